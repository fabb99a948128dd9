"""The disk as a store: files whole under their names or not at all, the kernel's locks, hashes.

A lock is dropped by the kernel with its process, so a killed one blocks nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat as modes
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from framebank.features.errors import CacheError, FramebankError, JobError, UsageError

# What `replacing` calls a file that is not complete yet: .<name>.<pid>-<8 hex digits>.tmp
_LEFTOVER = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
_HANDED_OVER = re.compile(r"/dev/(stdin|fd/\d+)\Z|/proc/self/fd/\d+\Z")

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


def storage_error(path: str, err: OSError, doing: str) -> FramebankError:
    """Return the error to raise for an OSError met while `doing` ("read", "write"...) `path`."""
    if isinstance(err, FileNotFoundError):
        return FileMissingError(f"cannot {doing} {path}", got="no such file or folder")
    kind, got, todo = _TODO.get(err.errno or 0, (JobError, err.strerror or str(err), None))
    return kind(f"cannot {doing} {path}", got=got, todo=todo)


@contextlib.contextmanager
def explained(path: str, doing: str) -> Iterator[None]:
    """Tell an OSError of the block as one met while `doing` ("read", "write"...) `path`."""
    try:
        yield
    except FileExistsError:  # an answer (create_only), not a fault
        raise
    except OSError as err:
        raise storage_error(path, err, doing) from err


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


def is_leftover(name: str) -> bool:
    """Return whether the file name `name` is one of the temporary names of `replacing`."""
    return _LEFTOVER.fullmatch(os.path.basename(name)) is not None


def read(path: str, start: int, length: int | None) -> bytes:
    """Return bytes [start, start + length) of a file; raises FramebankError."""
    with open_read(path) as file:
        if start:  # a pipe cannot be sought in
            file.seek(start)
        return file.read(-1 if length is None else length)


@contextlib.contextmanager
def open_read(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading; what is none is refused, not waited for (a pipe, a device).

    Pipes that a shell hands over (`<(zcat q.csv.gz)`, /dev/stdin) are what was asked for.
    """
    with explained(path, "read"), _open(path) as file:
        yield file


def _open(path: str) -> BinaryIO:
    name = local_path(path)
    if _HANDED_OVER.match(name):
        return cast(BinaryIO, Path(name).open("rb"))
    handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if modes.S_ISREG(mode):
        return os.fdopen(handle, "rb", buffering=1 << 20)
    os.close(handle)
    if modes.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", name)
    raise UsageError(f"cannot read {path}", got="a pipe or device", expected="a file")


@contextlib.contextmanager
def open_write(path: str, *, create_only: bool) -> Iterator[BinaryIO]:
    """Open for writing; raises FileExistsError when `create_only` and the file exists."""
    with (
        replacing(local_path(path), create_only=create_only) as temporary,
        temporary.open("xb") as file,
    ):
        yield cast(BinaryIO, file)


@contextlib.contextmanager
def replacing(
    path: str | Path, *, create_only: bool = False, durable: bool = True
) -> Iterator[Path]:
    """Yield a temporary name beside `path`, whose file has that name, synced, after the block;
    not synced where it need not be `durable`.

    After an error the file there was stays, and nothing else; raises OSError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    # A name may have 255 bytes; the temporary one must fit too.
    stem, suffix = os.fsdecode(os.fsencode(name)[:200]), f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = os.path.join(folder, f".{stem}.{suffix}.tmp")
    make_folder(folder)
    try:
        yield Path(temporary)
        if durable:
            _sync(temporary)
        _publish(temporary, os.path.join(folder, name), create_only=create_only)
        if durable:
            with contextlib.suppress(OSError):  # some file systems refuse to sync a folder
                _sync(folder)
    finally:
        # After a success the name is gone; after a failure nothing may stay behind.
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def remove_leftovers(path: str | Path) -> None:
    """Remove what killed writers of `path` left; for who holds a lock against the living ones."""
    folder, name = os.path.split(path)
    for other in os.listdir(folder):
        if other.startswith(f".{name}.") and is_leftover(other):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, other))


def make_folder(folder: str) -> None:
    """Make a folder that is not there; raises OSError."""
    if os.path.isdir(folder):
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as err:  # a file is in the way
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", folder) from err
    with contextlib.suppress(OSError):
        _sync(os.path.dirname(folder))


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


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def why_unwritable(folder: str) -> OSError | None:
    """Return what making a file in `folder` would meet, None where nothing is in the way."""
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    number = errno.EROFS if read_only else errno.EACCES
    return OSError(number, os.strerror(number), folder)


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, mtime_ns) of a file, None where there is none (a folder is none)."""
    try:
        status = os.stat(local_path(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise storage_error(path, err, "look at") from err
    return None if modes.S_ISDIR(status.st_mode) else (status.st_size, str(status.st_mtime_ns))


def list_objects(
    folder: str, *, limit: int | None = None, deep: bool = True
) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, mtime_ns) of the files in `folder`, which ends in "/"."""
    with (
        explained(folder, "list"),
        contextlib.suppress(FileNotFoundError),
        os.scandir(local_path(folder)) as entries,
    ):
        for entry in entries:
            path = folder + entry.name
            with contextlib.suppress(FileNotFoundError):  # renamed away since it was listed
                if entry.is_file():
                    status = entry.stat()
                    yield path, status.st_size, str(status.st_mtime_ns)
                elif deep and entry.is_dir(follow_symlinks=False):
                    yield from list_objects(path + "/")


def delete(path: str) -> bool:
    """Delete one file; returns False where there was none."""
    with explained(path, "delete"), contextlib.suppress(FileNotFoundError):
        os.unlink(local_path(path))
        return True
    return False


def read_with_generation(path: str) -> tuple[bytes | None, str]:
    """Return (content, generation), (None, "") where there is no such file."""
    try:
        data = read(path, 0, None)
    except FileMissingError:
        return None, ""
    return data, bytes_sha256(data)  # a modification time may be the same for two contents


def replace_if(path: str, data: bytes, *, generation: str) -> bool:
    """Write `data` if `path` still has `generation`; return whether it was written."""
    folder, name = os.path.split(os.path.abspath(local_path(path)))
    with explained(path, "write"), locked(os.path.join(folder, f".{name}.lock")):
        remove_leftovers(os.path.join(folder, name))
        if read_with_generation(path)[1] != generation:
            return False
        with open_write(path, create_only=False) as file:
            file.write(data)
        return True


def lock(file: int | IO[bytes], path: str | Path, *, wait: bool = True) -> bool:
    """Lock an open file or folder until it is closed; False where another process has it.

    Raises UsageError on a file system that keeps no locks (some of NFS, Lustre, FUSE).
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise UsageError(
            "this file system keeps no locks, by which runs know of each other",
            got=f"{error.strerror} at {path}",
            expected="NFS mounted without nolock, Lustre with flock, or a disk of this machine",
            todo="mount it so, or give a folder elsewhere or a bucket",
        ) from error
    return True


@contextlib.contextmanager
def locked(path: str | Path, *, otherwise: FramebankError | None = None) -> Iterator[None]:
    """Hold a file that is made for that, in a folder that is made too; raises OSError.

    Waits for another process that holds it, or raises `otherwise`.
    """
    make_folder(os.path.dirname(os.path.abspath(path)))
    with Path(path).open("wb") as file:
        if otherwise is None:
            lock(file, path)
        elif not lock(file, path, wait=False):
            raise otherwise
        yield


def bytes_sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def file_hash(file: str | Path | BinaryIO, algorithm: str = "sha256") -> str:
    """Return the hash of a local file, or of what an open one still has, in hex; raises OSError."""
    if isinstance(file, str | Path):
        with Path(file).open("rb") as opened:
            return file_hash(opened, algorithm)
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
