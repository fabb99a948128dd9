"""Files that tensorflow-io reads: s3:// without boto3, az:// and http://, by `tf.io.gfile`.

The reading half of what `features/stores/s3.py` has; nothing is written this way. It serves the
trainer's environment with TensorFlow 2.16 (`make tfio`, `infra/decisions/0006`). Credentials are
those of the AWS libraries (AWS_ENDPOINT_URL for a server of your own) and, for
az://ACCOUNT/CONTAINER/NAME, TF_AZURE_STORAGE_KEY. A web server has no listing, so over http:// a
folder is what the links of its index page name, as nginx, Apache and Python's own server write it.
"""

from __future__ import annotations

import contextlib
import functools
import html.parser
import importlib.util
import io
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from framebank.features.errors import UsageError, VideoRejected
from framebank.features.stores.tf_asking import NoAnswer, ask, s3_endpoint
from framebank.features.tensorflow_import import import_tensorflow

SCHEMES = ("s3", "az", "http", "https")
HOW_TO_INSTALL = "make tfio, and train with .venv-tfio/bin/framebank"
_CHUNK_BYTES = 8 << 20
_PAGE_BYTES = 64 << 20
_ANSWER_TIMEOUT_S = 30.0


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
    # One call tries for seconds only: `ask` tries again, and says so.
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
    gfile = _gfile()
    if length == 0:
        return None if stat(path) is None else b""

    def work() -> bytes:
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

    try:
        return ask(path, "read", work)
    except FileNotFoundError:
        return None


def open_read(path: str) -> BinaryIO:
    """Open a file for reading with seeks, 8 MiB at a time; raises FileNotFoundError, JobError."""
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(path), _CHUNK_BYTES))


class _RemoteFile(io.RawIOBase):
    """One open file of tf.io.gfile."""

    def __init__(self, path: str) -> None:
        gfile = _gfile()
        self._path, self._place = path, 0
        self._file = ask(path, "read", lambda: gfile.GFile(path, "rb"))
        self._size_bytes = int(ask(path, "read", self._file.size))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size_bytes}
        self._place = start[whence] + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        room = min(len(buffer), self._size_bytes - self._place)
        if room <= 0:
            return 0

        def work() -> bytes:
            self._file.seek(self._place)
            return bytes(self._file.read(room))

        data = ask(self._path, "read", work)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def download(path: str, target: BinaryIO, *, generation: str) -> None:
    """Copy a file to an open one, part by part; `generation` is its size, all that is known.

    Raises VideoRejected "missing" for a file that is gone, "unreadable" for one that changed.
    """
    found = stat(path)
    if found is None:
        raise VideoRejected("open", "missing", f"{path} does not exist")
    if generation and found[1] != generation:
        raise VideoRejected("open", "unreadable", f"{path} changed while the job ran")
    for start in range(0, found[0], _CHUNK_BYTES):
        target.write(read(path, start, _CHUNK_BYTES) or b"")


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, a text that another version would likely not have), None for no file."""
    gfile = _gfile()
    try:
        status = ask(path, "look at", lambda: gfile.stat(path))
    except FileNotFoundError:
        return None
    if status.is_directory:
        return None
    return int(status.length), f"{status.length}-{status.mtime_nsec}"


def list_objects(prefix: str, *, limit: int | None = None) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, generation) of the files of the folder `prefix`, by name.

    Unlike in `features/stores/s3.py` sub-folders are not entered; no reader of a cache asks for
    that.
    """
    folder = prefix.rstrip("/")
    names = _linked(folder) if folder.startswith("http") else _listed(folder)
    for count, name in enumerate(sorted(names)):
        if limit is not None and count >= limit:
            return
        path = f"{folder}/{name}"
        if (found := stat(path)) is not None:
            yield path, *found


def _listed(folder: str) -> list[str]:
    gfile = _gfile()
    try:
        names = ask(folder, "list", lambda: gfile.listdir(folder))
    except FileNotFoundError:
        return []
    return [name for name in names if not name.endswith("/")]


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


def _linked(folder: str) -> set[str]:
    def work() -> bytes:
        try:
            with urllib.request.urlopen(f"{folder}/", timeout=_ANSWER_TIMEOUT_S) as answer:
                return bytes(answer.read(_PAGE_BYTES))
        except urllib.error.HTTPError as err:
            if err.code == 404:
                raise FileNotFoundError(folder) from err
            if err.code >= 500 or err.code == 429:
                raise NoAnswer(f"status {err.code}", err.code) from err
            todo = "let the server show an index page for the folders of the cache"
            raise UsageError(f"cannot list {folder}", got=f"status {err.code}", todo=todo) from err
        except OSError as err:
            raise NoAnswer(getattr(err, "reason", None) or err) from err

    page = _Links()
    with contextlib.suppress(FileNotFoundError):
        page.feed(ask(folder, "list", work).decode("utf-8", "replace"))
    return page.names


def open_write(path: str, *, create_only: bool) -> contextlib.AbstractContextManager[BinaryIO]:
    """Raise UsageError: this way nothing is written."""
    raise _read_only(path)


def replace_if(path: str, data: bytes, *, generation: str) -> bool:
    """Raise UsageError: this way nothing is written."""
    raise _read_only(path)


def delete(path: str) -> bool:
    """Raise UsageError: this way nothing is deleted."""
    raise _read_only(path)


def _read_only(path: str) -> UsageError:
    return UsageError(
        f"cannot write {path}",
        got="tensorflow-io, which has no conditional writes, is used for reading only",
        todo='pip install "framebank[s3]" for s3://, or write to a local path',
    )
