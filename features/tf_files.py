"""Files that tensorflow-io reads: s3:// without boto3, az:// and http://, by `tf.io.gfile`.

The reading half of what `features/s3.py` has; nothing is written this way. It serves the trainer's
environment with TensorFlow 2.16 (`make tfio`, `infra/decisions/0006`). Credentials are those of the
AWS libraries (AWS_ENDPOINT_URL for a server of your own) and, for az://ACCOUNT/CONTAINER/NAME,
TF_AZURE_STORAGE_KEY. A web server has no listing, so over http:// a folder is what the links of its
index page name, as nginx, Apache and Python's own server write it.
"""

from __future__ import annotations

import contextlib
import ctypes
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

from features.errors import FramebankError, JobError, UsageError, VideoRejected
from features.quiet import import_tensorflow

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
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        os.environ.setdefault("S3_ENDPOINT", endpoint)
        if endpoint.startswith("http://"):
            os.environ.setdefault("S3_USE_HTTPS", "0")
    if region := os.environ.get("AWS_DEFAULT_REGION"):
        os.environ.setdefault("AWS_REGION", region)


@functools.cache
def _end_without_destructors(pid: int) -> None:
    """Let this process end by _exit once Python has cleaned up.

    The AWS client inside tensorflow-io aborts in its static destructors ("pure virtual method
    called", status 134), after everything of ours is done. The last handler registered comes first.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc, musl has none
        libc.on_exit(libc._exit, None)


@contextlib.contextmanager
def _explained(path: str, doing: str) -> Iterator[None]:
    """Raise what tf.io.gfile raises as our own error; FileNotFoundError for what is not there."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as err:
        raise FileNotFoundError(path) from err
    except tf.errors.OpError as err:
        raise _error(path, err, doing) from err
    finally:
        _end_without_destructors(os.getpid())


def _error(path: str, err: Any, doing: str) -> FramebankError:
    import tensorflow as tf

    got = (str(err.message).splitlines() or [type(err).__name__])[0][:300]
    refused = (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError)
    # The S3 client says "forbidden" under whatever code it finds fit.
    if isinstance(err, refused) or any(word in got for word in ("403", "401", "denied")):
        todo = "check the credentials, and that they may list and get the bucket's objects"
        return UsageError(f"cannot {doing} {path}", got=got, todo=todo)
    todo = "check the network and the address, then run the command again"
    return JobError(f"cannot {doing} {path}", got=got, todo=todo)


def read(path: str, start: int, length: int | None) -> bytes | None:
    """Return bytes [start, start + length) of a file, None where there is none."""
    gfile = _gfile()
    try:
        if length == 0:
            return None if stat(path) is None else b""
        with _explained(path, "read"), gfile.GFile(path, "rb") as file:
            size_bytes = file.size()
            if start >= size_bytes:
                return b""
            file.seek(start)
            end = size_bytes if length is None else min(start + length, size_bytes)
            data: bytes = file.read(end - start)
    except FileNotFoundError:
        return None
    if len(data) != end - start:
        got = f"{len(data)} of {end - start} bytes"
        raise JobError(f"cannot read {path}", got=got, todo="run the command again")
    return data


def open_read(path: str) -> BinaryIO:
    """Open a file for reading with seeks, 8 MiB at a time; raises FileNotFoundError, JobError."""
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(path), _CHUNK_BYTES))


class _RemoteFile(io.RawIOBase):
    """One open file of tf.io.gfile."""

    def __init__(self, path: str) -> None:
        gfile = _gfile()
        with _explained(path, "read"):
            self._path, self._file = path, gfile.GFile(path, "rb")
            self._size_bytes = int(self._file.size())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        with _explained(self._path, "read"):
            return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size_bytes}
        with _explained(self._path, "read"):
            self._file.seek(start[whence] + offset)
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        room = min(len(buffer), self._size_bytes - self.tell())
        if room <= 0:
            return 0
        with _explained(self._path, "read"):
            data = self._file.read(room)
        buffer[: len(data)] = data
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
        with _explained(path, "look at"):
            status = gfile.stat(path)
    except FileNotFoundError:
        return None
    if status.is_directory:
        return None
    return int(status.length), f"{status.length}-{status.mtime_nsec}"


def list_objects(prefix: str, *, limit: int | None = None) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, generation) of the files of the folder `prefix`, by name.

    Unlike in `features/s3.py` sub-folders are not entered; no reader of a cache asks for that.
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
        with _explained(folder, "list"):
            return [name for name in gfile.listdir(folder) if not name.endswith("/")]
    except FileNotFoundError:
        return []


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
    page = _Links()
    try:
        with urllib.request.urlopen(f"{folder}/", timeout=_ANSWER_TIMEOUT_S) as answer:
            page.feed(answer.read(_PAGE_BYTES).decode("utf-8", "replace"))
    except urllib.error.HTTPError as err:
        if err.code == 404:
            return set()
        todo = "let the server show an index page for the folders of the cache"
        raise UsageError(f"cannot list {folder}", got=f"status {err.code}", todo=todo) from err
    except OSError as err:
        todo = "check the network and the address, then run the command again"
        raise JobError(f"cannot list {folder}", got=str(err), todo=todo) from err
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
