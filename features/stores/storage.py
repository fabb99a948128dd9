"""Files on disk and objects in a bucket, behind one handful of functions.

A path is a local path (or file:// address), gs://BUCKET/NAME or s3://BUCKET/NAME. The one law that
the cache stands on: a file appears under its final name whole or not at all. On a file system that
takes a temporary name, fsync and rename; in a bucket an upload is atomic and a rename is not, so it
goes straight to its final name. Reads, lists and deletes are plain; nothing here is a batch call.

Every failure that a person can act on (full disk, read-only folder, no permission, no credentials)
is a FramebankError that says what to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import importlib.util
import io
import os
import re
import secrets
import stat
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

from framebank.features.errors import CacheError, FramebankError, JobError, UsageError
from framebank.features.stores import tensorflow_files

# What write_atomic calls a file that is not complete yet: .<name>.<pid>-<8 hex digits>.tmp
_LEFTOVER = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
_READ_AHEAD_BYTES = 8 << 20  # of one request
_HANDED_OVER = re.compile(r"/dev/(stdin|fd/\d+)\Z|/proc/self/fd/\d+\Z")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# Scheme → the module that speaks with that kind of object store.
_STORES = {"gs": "framebank.features.stores.gcs", "s3": "framebank.features.stores.s3"}
ADDRESSES = "a local path, gs://BUCKET/NAME or s3://BUCKET/NAME"

_TODO: dict[int, tuple[type[FramebankError], str, str]] = {
    errno.ENOSPC: (JobError, "the disk is full", "make room, then run the same command again"),
    errno.EDQUOT: (JobError, "the quota is used up", "make room, then run the same command again"),
    errno.EFBIG: (JobError, "the file is too large for this file system", "use another disk"),
    errno.EROFS: (UsageError, "the file system is read-only", "give a folder that can be written"),
    errno.EACCES: (UsageError, "permission denied", "give another path, or change its rights"),
    errno.EPERM: (UsageError, "permission denied", "give another path, or change its rights"),
    errno.ENOTDIR: (UsageError, "a part of the path is no folder", "give another path"),
    errno.EISDIR: (UsageError, "it is a folder, not a file", "give the path of a file"),
    errno.ENAMETOOLONG: (UsageError, "the path is too long", "give a shorter path"),
    errno.EMFILE: (JobError, "too many open files", "raise the limit (ulimit -n)"),
    errno.EIO: (JobError, "the disk reports a fault", "check the disk (dmesg), use another one"),
    errno.ESTALE: (JobError, "the network disk lost the file", "mount it again, then run again"),
}


class FileMissingError(CacheError):
    """The file or object that was asked for is not there."""


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """One file: its path, size, and what tells its versions apart (mtime_ns or generation)."""

    path: str
    size_bytes: int
    generation: str


def is_local(path: str) -> bool:
    """Return whether `path` is on a file system; raises UsageError for an unknown scheme."""
    match = _SCHEME.match(path)
    if match is None or match[1].lower() == "file":
        return True
    if match[1] not in _STORES:
        by_tensorflow_io = match[1] in tensorflow_files.SCHEMES
        if by_tensorflow_io and tensorflow_files.is_installed():
            return False
        more = f", or, to train on a cache there: {tensorflow_files.HOW_TO_INSTALL}"
        raise UsageError(
            f"Framebank cannot reach {match[1]}:// addresses",
            got=path,
            expected=ADDRESSES,
            todo="copy or mount the files first" + (more if by_tensorflow_io else ""),
        )
    if not path.partition("://")[2].strip("/"):
        raise UsageError("an address without a bucket", got=path, expected=ADDRESSES)
    return False


def store_of(path: str) -> ModuleType:
    """Return the module for the object store of `path`, which is no local path.

    boto3 comes first for s3://, since it can write; without it tensorflow-io reads.
    """
    scheme = path.partition("://")[0]
    without_boto3 = scheme == "s3" and importlib.util.find_spec("boto3") is None
    if scheme not in _STORES or (without_boto3 and tensorflow_files.is_installed()):
        return tensorflow_files
    return importlib.import_module(_STORES[scheme])


def local_path(path: str) -> str:
    """Return the local path of `path`, which may be a file:// address."""
    if not path.lower().startswith("file://"):
        return path
    address = urllib.parse.urlsplit(path)
    if address.netloc not in ("", "localhost"):
        raise UsageError("a file:// address of another machine", got=path, expected="file:///PATH")
    return urllib.parse.unquote(
        path[len("file://") + len(address.netloc) :], errors="surrogateescape"
    )


def expand_user(path: str) -> str:
    """Return `path` with a leading `~` or `~NAME` as that home folder, as a shell has it."""
    return os.path.expanduser(path) if path.startswith("~") else path


def join(base: str, *parts: str) -> str:
    """Join with one slash between each, for both kinds of path."""
    start = base.rstrip("/")
    return "/".join([start, *parts]) if start or base.startswith("/") else "/".join(parts)


def is_leftover(name: str) -> bool:
    """Return whether the file name `name` is one of write_atomic's temporary names."""
    return _LEFTOVER.fullmatch(os.path.basename(name)) is not None


def storage_error(path: str, err: OSError, doing: str) -> FramebankError:
    """Return the error to raise for an OSError met while `doing` ("read", "write"...) `path`."""
    if isinstance(err, FileNotFoundError):
        return FileMissingError(f"cannot {doing} {path}", got="no such file or folder")
    kind, got, todo = _TODO.get(err.errno or 0, (JobError, err.strerror or str(err), None))
    return kind(f"cannot {doing} {path}", got=got, todo=todo)


@contextlib.contextmanager
def _explained(path: str, doing: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:  # an answer (create_only), not a fault
        raise
    except OSError as err:
        raise storage_error(path, err, doing) from err


def read_bytes(path: str) -> bytes:
    """Return the whole content; raises FileMissingError, JobError, UsageError."""
    try:
        if not is_local(path):
            return _bucket_read(path, 0, None)
        with _explained(path, "read"), _open_local(path) as file:
            return file.read()
    except MemoryError as err:
        got = "more than fits into this machine's memory"
        raise JobError(f"cannot read {path}", got=got) from err


def read_range(path: str, start: int, length: int) -> bytes:
    """Return up to `length` bytes from byte `start`; fewer where the file ends before."""
    if not is_local(path):
        return _bucket_read(path, start, length)
    with _explained(path, "read"), _open_local(path) as file:
        file.seek(start)
        return file.read(length)


def _bucket_read(path: str, start: int, length: int | None) -> bytes:
    data = store_of(path).read(path, start, length)
    if data is None:
        raise FileMissingError(f"cannot read {path}", got="no such object")
    return data


def _open_local(path: str) -> BinaryIO:
    """Open a local file; what is no file is refused, not waited for (a pipe, a device).

    Pipes that a shell hands over (`<(zcat q.csv.gz)`, /dev/stdin) are what was asked for.
    """
    name = local_path(path)
    if _HANDED_OVER.match(name):
        return cast(BinaryIO, Path(name).open("rb"))
    handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb", buffering=1 << 20)
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", name)
    raise UsageError(f"cannot read {path}", got="a pipe or device", expected="a file")


@contextlib.contextmanager
def open_read(path: str) -> Iterator[BinaryIO]:
    """Open for reading from front to back, in bounded memory."""
    if is_local(path):
        with _explained(path, "read"), _open_local(path) as file:
            yield file
    else:
        with io.BufferedReader(_ObjectReader(path), _READ_AHEAD_BYTES) as stream:
            yield cast(BinaryIO, stream)


class _ObjectReader(io.RawIOBase):
    """An object of a bucket as a file: each read is a request for a range of it."""

    def __init__(self, path: str) -> None:
        found = find(path)
        if found is None:
            raise FileMissingError(f"cannot read {path}", got="no such object")
        self._path, self._size_bytes, self._position = path, found.size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size_bytes:
            return 0
        data = read_range(self._path, self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def download(path: str, target: BinaryIO, *, generation: str) -> None:
    """Copy an object of a bucket to an open file: that generation, held against its checksum.

    Raises VideoRejected for an object that is gone, changed or may not be read, JobError where the
    service does not answer.
    """
    store_of(path).download(path, target, generation=generation)


@contextlib.contextmanager
def open_atomic(path: str, *, create_only: bool = False) -> Iterator[BinaryIO]:
    """Open for writing; the file appears under its name, whole, when the block ends without error.

    With `create_only` an existing file stays as it is and FileExistsError is raised.
    Raises JobError, UsageError.
    """
    if not is_local(path):
        # An upload waits in a local temporary file, whose disk may be full.
        with (
            _explained(path, "write"),
            store_of(path).open_write(path, create_only=create_only) as stream,
        ):
            yield stream
            # Looked at first, since not every server that speaks a protocol heeds its conditions.
            if create_only and exists(path):
                raise FileExistsError(errno.EEXIST, "it exists", path)
        return
    target = local_path(path)
    folder, name = os.path.split(os.path.abspath(target))
    # A name may have 255 bytes; the temporary one must fit too.
    stem = os.fsdecode(os.fsencode(name)[:200])
    temporary = os.path.join(folder, f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with _explained(path, "write"):
            _make_folder(folder)
            with Path(temporary).open("xb") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            _publish(temporary, os.path.join(folder, name), create_only=create_only)
            _sync_folder(folder)
    finally:
        # After a success the name is gone; after a failure nothing may stay behind.
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _make_folder(folder: str) -> None:
    if os.path.isdir(folder):
        return
    try:
        os.makedirs(folder, exist_ok=True)
        _sync_folder(os.path.dirname(folder))
    except FileExistsError as err:  # a file is in the way
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", folder) from err


def _publish(temporary: str, target: str, *, create_only: bool) -> None:
    if not create_only:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # unlike rename, link never replaces what is there
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the check and the rename are two steps
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it exists", target) from None
        os.replace(temporary, target)


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable; some file systems refuse to fsync a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: str, data: bytes | Iterable[bytes], *, create_only: bool = False) -> bool:
    """Write `data` (bytes, or chunks of bytes) so that the file is there whole or not at all.

    Returns False, and leaves the file alone, when `create_only` and it already exists.
    """
    chunks = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
    try:
        with open_atomic(path, create_only=create_only) as file:
            for chunk in chunks:
                file.write(chunk)
    except FileExistsError:
        return False
    return True


def why_unwritable(folder: str) -> OSError | None:
    """Return what making a file in a local folder would meet, None where nothing is in the way."""
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    number = errno.EROFS if read_only else errno.EACCES
    return OSError(number, os.strerror(number), folder)


def find(path: str) -> StoredFile | None:
    """Return size and generation of a file, or None where there is none (a folder is none)."""
    if not is_local(path):
        found = store_of(path).stat(path)
        return None if found is None else StoredFile(path, *found)
    try:
        status = os.stat(local_path(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise storage_error(path, err, "look at") from err
    if stat.S_ISDIR(status.st_mode):
        return None
    return StoredFile(path, status.st_size, str(status.st_mtime_ns))


def exists(path: str) -> bool:
    """Return whether there is a file or object of this name (a folder does not count)."""
    return find(path) is not None


def iter_files(folder: str) -> Iterator[StoredFile]:
    """Yield the files directly in `folder`, as they come; an absent folder holds none."""
    if not is_local(folder):
        prefix = folder.rstrip("/") + "/"
        for row in store_of(folder).list_objects(prefix):
            if "/" not in row[0][len(prefix) :]:
                yield StoredFile(*row)
        return
    try:
        with os.scandir(local_path(folder)) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # renamed away since it was listed
                    if entry.is_file():
                        status = entry.stat()
                        path = join(folder, entry.name)
                        yield StoredFile(path, status.st_size, str(status.st_mtime_ns))
    except FileNotFoundError:
        return
    except OSError as err:
        raise storage_error(folder, err, "list") from err


def iter_strange(folder: str) -> Iterator[str]:
    """Yield the paths directly in a local `folder` that `iter_files` passes over, but for folders.

    A bucket holds nothing but objects.
    """
    if not is_local(folder) or not os.path.isdir(local_path(folder)):
        return
    with os.scandir(local_path(folder)) as entries:
        yield from (join(folder, e.name) for e in entries if not (e.is_file() or e.is_dir()))


def iter_objects(prefix: str) -> Iterator[StoredFile]:
    """Yield all objects of a bucket below `prefix`, however deep, by name."""
    for row in store_of(prefix).list_objects(prefix.rstrip("/") + "/"):
        yield StoredFile(*row)


def list_files(folder: str) -> list[StoredFile]:
    """Return the files directly in `folder`, by name (`iter_files` streams a large one)."""
    return sorted(iter_files(folder), key=lambda file: file.path)


def folder_exists(path: str) -> bool:
    """Return whether `path` is a folder; in a bucket, whether any object lies under it."""
    if is_local(path):
        return os.path.isdir(local_path(path))
    return any(True for _ in store_of(path).list_objects(path.rstrip("/") + "/", limit=1))


def delete(path: str) -> bool:
    """Delete one file; returns False where there was none."""
    if not is_local(path):
        return store_of(path).delete(path)
    try:
        os.unlink(local_path(path))
    except FileNotFoundError:
        return False
    except OSError as err:
        raise storage_error(path, err, "delete") from err
    return True
