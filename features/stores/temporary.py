"""Temporary folders that outlive nobody: what a killed run left, the next one removes.

Each folder holds a file that its maker keeps locked, so a folder whose lock is free belongs to
nobody. Only folders with that file are ever removed: a folder of the user's own may well be called
/tmp/framebank-cache. What goes wrong in the temporary directory is told as that: whoever keeps
something there does it in `explained`, or in a `Spool`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.stores import disk

PREFIX = "framebank-"
_LOCK = ".framebank-lives"
_PROBE_BYTES = 1 << 20  # of what keeps small files there


def temporary_error(err: OSError) -> FramebankError:
    """Return the error to raise for an OSError met in the temporary directory."""
    todo = "make room there, or set TMPDIR to a folder with room; then run the same command again"
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as none:
        return JobError("there is no temporary folder", got=none.strerror, todo=todo)
    told = disk.storage_error(f"the temporary folder {folder}", err, "use")
    return JobError(told.what, got=told.got, todo=todo)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Tell an OSError of the block as one of the temporary directory; raises JobError."""
    try:
        yield
    except OSError as err:
        raise temporary_error(err) from err


def _is_full(folder: str | None) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError:
        return True
    return False


def at_fault(folder: str) -> bool:
    """Return whether the temporary directory takes no file of 1 MiB, while `folder` does.

    For libraries that keep files there and do not say which file it was that found no room.
    """
    return _is_full(None) and not _is_full(folder)


class Spool(tempfile.SpooledTemporaryFile[bytes]):
    """Bytes that wait, in memory up to `max_size` and then in a temporary file; raises JobError."""

    write = explained()(tempfile.SpooledTemporaryFile[bytes].write)
    seek = explained()(tempfile.SpooledTemporaryFile[bytes].seek)  # writes what is still held back
    read = explained()(tempfile.SpooledTemporaryFile[bytes].read)
    flush = explained()(tempfile.SpooledTemporaryFile[bytes].flush)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # nobody wants it any more
            super().close()

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveFolder(contextlib.AbstractContextManager["LiveFolder"]):
    """A folder of this process until `close`, or until the process ends; a context manager."""

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    def close(self) -> None:
        """Remove the folder with all that is in it; a second call does nothing."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        _remove(self.path)
        os.close(lock)  # last: until here nobody else takes the folder for a dead one

    def __exit__(self, *_: object) -> None:
        self.close()


@explained()
def live_folder(prefix: str = PREFIX) -> LiveFolder:
    """Make a folder in the temporary directory; raises JobError where none can be made.

    What dead processes left there is removed first, on whatever machine this is.
    """
    remove_dead(prefix)
    while True:
        path = tempfile.mkdtemp(prefix=prefix)
        name = os.path.join(path, _LOCK)
        try:
            lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        disk.lock(lock, path)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(name), os.fstat(lock)):
                return LiveFolder(path, lock)
        os.close(lock)  # removed by another run between the two lines above


def remove_dead(prefix: str = PREFIX) -> int:
    """Remove the folders whose process is gone; return how many. Other users' are left alone."""
    root, removed = tempfile.gettempdir(), 0
    with contextlib.suppress(OSError):
        for name in os.listdir(root):
            if name.startswith(prefix):
                removed += _remove_if_dead(os.path.join(root, name))
    return removed


def _remove_if_dead(path: str) -> bool:
    try:
        # O_NOFOLLOW, and not of another user: the temporary directory is open to everyone.
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # no folder, none of ours, another user's, or just removed
        return False
    try:
        strange = os.path.islink(path) or os.fstat(lock).st_uid != os.geteuid()
        if strange or not disk.lock(lock, path, wait=False):  # locked: its maker lives
            return False
        _remove(path)
        return not os.path.lexists(path)
    except (OSError, UsageError):
        return False
    finally:
        os.close(lock)


def _remove(path: str) -> None:
    """Remove a folder, its lock's file last: killed half-way, the rest is still known as ours."""
    for _ in range(10):  # again when a worker that tells its counts wrote to it meanwhile
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(path)):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif entry.name != _LOCK:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(path, _LOCK))
            os.rmdir(path)
        if not os.path.lexists(path):
            return
