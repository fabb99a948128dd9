"""Files that tensorflow-io reads: s3:// without boto3, az:// and http://, by `tf.io.gfile`.

The reading half of what `features/stores/s3.py` has (infra/decisions/0006). Credentials are those
of the AWS libraries (AWS_ENDPOINT_URL for a server of your own) and, for
az://ACCOUNT/CONTAINER/NAME, TF_AZURE_STORAGE_KEY.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import html.parser
import importlib.util
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from framebank.features.errors import JobError, UsageError
from framebank.features.stores import objects
from framebank.features.tensorflow_import import import_tensorflow
from framebank.features.terminal import say

T = TypeVar("T")
SCHEMES = ("s3", "az", "http", "https")
HOW_TO_INSTALL = "make tfio, and train with .venv-tfio/bin/framebank"
_PAGE_BYTES = 64 << 20
_ANSWER_TIMEOUT_S = 30.0
_FORBIDDEN = ("403", "401", "denied")


def is_installed() -> bool:
    """Return whether tensorflow-io is there, without importing it."""
    return importlib.util.find_spec("tensorflow_io") is not None


@functools.cache
def _gfile() -> Any:
    """Return tf.io.gfile with tensorflow-io's file systems; raises UsageError, JobError."""
    if not is_installed():
        raise UsageError("this address needs the package tensorflow-io", todo=HOW_TO_INSTALL)
    _tell_endpoint()
    import_tensorflow(wake=lambda: None)  # several workers set the runtime up later
    import tensorflow as tf

    try:
        import tensorflow_io  # noqa: F401
    except (ImportError, OSError, NotImplementedError) as err:
        raise UsageError(
            "tensorflow-io does not load",
            got=f"TensorFlow {tf.__version__}: {str(err).splitlines()[0][:200]}",
            expected="TensorFlow 2.16 with tensorflow-io 0.37.1",
            todo=HOW_TO_INSTALL,
        ) from err
    return tf.io.gfile


def _tell_endpoint() -> None:
    """Give tensorflow-io's S3 client the variables of the AWS libraries under its own names."""
    # One call tries for seconds only: `_ask` tries again, and says so.
    os.environ.setdefault("AWS_RETRY_MODE", "standard")
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    if endpoint := s3_endpoint():
        os.environ.setdefault("S3_ENDPOINT", endpoint)
        if endpoint.startswith("http://"):
            os.environ.setdefault("S3_USE_HTTPS", "0")
    if region := os.environ.get("AWS_DEFAULT_REGION"):
        os.environ.setdefault("AWS_REGION", region)


def read(path: str, start: int, length: int | None) -> bytes | None:
    """Return bytes [start, start + length) of a file, None where there is none."""

    def work(gfile: Any) -> bytes:
        with gfile.GFile(path, "rb") as file:
            size_bytes = file.size()
            if start >= size_bytes:
                return b""
            file.seek(start)
            end = size_bytes if length is None else min(start + length, size_bytes)
            data: bytes = file.read(end - start)
        if len(data) != end - start:
            raise NoAnswer(f"{len(data)} of {end - start} bytes")
        return data

    with contextlib.suppress(FileNotFoundError):
        return _ask(path, "read", work)
    return None


def open_read(path: str) -> BinaryIO:
    """Open a file for reading with seeks; raises FileNotFoundError, JobError."""
    file = _ask(path, "read", lambda gfile: gfile.GFile(path, "rb"))

    def get(start: int, length: int) -> bytes:
        def work(_: Any) -> bytes:
            file.seek(start)
            return bytes(file.read(length))

        return _ask(path, "read", work)

    return objects.open_ranges(int(_ask(path, "read", lambda _: file.size())), get)


def download(path: str, target: BinaryIO, *, generation: str) -> None:
    """Copy a file to an open one, part by part."""
    found = stat(path)
    objects.check_listed(path, found and found[1], generation)
    size_bytes = found[0] if found else 0
    objects.copy(size_bytes, lambda start, length: read(path, start, length) or b"", target)


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, a text that another version would likely not have), None for no file."""
    with contextlib.suppress(FileNotFoundError):
        status = _ask(path, "look at", lambda gfile: gfile.stat(path))
        if not status.is_directory:
            return int(status.length), f"{status.length}-{status.mtime_nsec}"
    return None


def list_objects(
    prefix: str, *, limit: int | None = None, deep: bool = True
) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, generation) of the files right in the folder `prefix`, by name."""
    folder, names = prefix.rstrip("/"), []
    with contextlib.suppress(FileNotFoundError):
        listing = _linked if folder.startswith("http") else _listed
        names = _ask(folder, "list", lambda gfile: listing(folder, gfile))
    for name in sorted(names)[:limit]:
        path = f"{folder}/{name}"
        if (found := stat(path)) is not None:
            yield path, *found


def _listed(folder: str, gfile: Any) -> list[str]:
    return [name for name in gfile.listdir(folder) if not name.endswith("/")]


class _Links(html.parser.HTMLParser):
    """The names of files that the links of an index page lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href") if tag == "a" else None
        name = urllib.parse.unquote((target or "").removeprefix("./"))
        if name and not any(sign in name for sign in "/?#:"):  # no folder, sort order or other site
            self.names.add(name)


def _linked(folder: str, _: Any) -> list[str]:
    page = _Links()
    try:
        with urllib.request.urlopen(f"{folder}/", timeout=_ANSWER_TIMEOUT_S) as answer:
            page.feed(answer.read(_PAGE_BYTES).decode("utf-8", "replace"))
    except urllib.error.HTTPError as err:
        if err.code == 404:
            raise FileNotFoundError(folder) from err
        if err.code >= 500 or err.code == 429:
            raise NoAnswer(f"status {err.code}", err.code) from err
        todo = "let the server show an index page for the folders of the cache"
        raise UsageError(f"cannot list {folder}", got=f"status {err.code}", todo=todo) from err
    except OSError as err:
        raise NoAnswer(getattr(err, "reason", None) or err) from err
    return list(page.names)


def check_writing(path: str) -> None:
    """Raise UsageError: this way nothing is written, and nothing deleted."""
    raise UsageError(
        f"cannot write {path}",
        got="tensorflow-io, which has no conditional writes, is used for reading only",
        todo='pip install "framebank[s3]" for s3://, or write to a local path',
    )


delete = check_writing


class NoAnswer(Exception):
    """The service is not there or ails; `code` is the HTTP status, None where nothing came."""

    def __init__(self, reason: object, code: int | None = None) -> None:
        super().__init__(str(reason))
        self.code = code


def _ask(path: str, doing: str, work: Callable[[Any], T]) -> T:
    """Return what `work` gets by tf.io.gfile from the service of `path`, asked again while it does
    not answer.

    Raises FileNotFoundError for what is not there, UsageError, JobError.
    """
    from google.api_core import exceptions as api

    patience = objects.patience_of(_service(path))
    again = patience.retry(path, retryable=lambda err: isinstance(err, NoAnswer))
    try:
        answer: T = again(_once)(path, doing, work)
        return answer
    except (api.RetryError, NoAnswer) as err:
        got = objects.first_line(getattr(err, "cause", None) or err)
        todo = "check the network and the address, then run the command again"
        raise JobError(f"cannot {doing} {path}", got=got, todo=todo) from err


def _once(path: str, doing: str, work: Callable[[Any], T]) -> T:
    gfile, patience = _gfile(), objects.patience_of(_service(path))
    import tensorflow as tf

    if not patience.reached and not path.startswith("http"):
        _check_alive(path)  # tensorflow-io's clients would try for a minute
    try:
        result = work(gfile)
    except tf.errors.OpError as err:
        refusals = (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError)
        if isinstance(err, refusals) or any(word in err.message for word in _FORBIDDEN):
            todo = "check the credentials, and that they may list and get the bucket's objects"
            got = objects.first_line(err)
            raise UsageError(f"cannot {doing} {path}", got=got, todo=todo) from err
        if not isinstance(err, tf.errors.NotFoundError):
            raise NoAnswer(objects.first_line(err)) from err
        if not path.startswith("http"):
            _check_alive(path)
        patience.reached = True
        if path.startswith("s3:"):
            _warn_of_credentials(path.split("/")[2])
        raise FileNotFoundError(path) from err
    except RuntimeError as err:  # of the Azure client, when it gives up
        raise NoAnswer(err) from err
    finally:
        _end_without_destructors(os.getpid())
    patience.reached = True
    return result


def _service(path: str) -> str:
    """Return the address whose answer shows that the service of `path` lives."""
    scheme, _, rest = path.partition("://")
    first = rest.partition("/")[0]
    if scheme == "s3":
        endpoint = s3_endpoint()
        return (
            f"{endpoint.rstrip('/')}/{first}" if endpoint else f"https://{first}.s3.amazonaws.com"
        )
    if scheme == "az":
        if os.environ.get("TF_AZURE_USE_DEV_STORAGE"):
            return f"http://127.0.0.1:10000/{first}"
        return f"https://{first}.blob.core.windows.net"
    return f"{scheme}://{urllib.parse.urlsplit(path).netloc}"


def s3_endpoint() -> str | None:
    """Return the server that takes Amazon's place, where one does."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _check_alive(path: str) -> None:
    """Raise NoAnswer unless the service answers anything of sense, UsageError for no bucket.

    The request has no signature: that it is refused is an answer.
    """
    request = urllib.request.Request(_service(path), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=objects.CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError as err:
        if err.code >= 500 or err.code == 429:
            raise NoAnswer(f"status {err.code}", err.code) from err
        if err.code == 404 and path.startswith("s3:"):
            raise objects.no_bucket(path, "read") from err
    except (OSError, ValueError) as err:  # ValueError: an endpoint that is no address
        raise NoAnswer(getattr(err, "reason", None) or err) from err


@functools.cache
def _warn_of_credentials(bucket: str) -> None:
    """Say it once when the bucket cannot be listed: tensorflow-io tells nobody of a 403."""
    import tensorflow as tf

    try:
        tf.io.gfile.listdir(f"s3://{bucket}/")
    except tf.errors.OpError:
        text = "cannot be listed with these credentials, or holds nothing: files may seem missing"
        say(f"s3://{bucket} {text}")


@functools.cache
def _end_without_destructors(pid: int) -> None:
    """Let this process end by _exit once Python has cleaned up.

    The AWS client inside tensorflow-io aborts in its static destructors (infra/decisions/0006). The
    last handler registered comes first.
    """
    libc: Any = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc, musl has none
        libc.on_exit(libc._exit, None)
