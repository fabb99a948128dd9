"""Small files that several processes change: read with their generation, replaced only over it.

Compare-and-swap, on a file system and in a bucket alike. Of two who replace the same generation one
wins and the other is told. On a file system a lock that the kernel drops with its process holds the
comparison and the rename together, and the generation is the content's own hash: unlike a
modification time it cannot be the same for two contents. So `data` should never say the same twice:
put a number or a token in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from framebank.features.errors import JobError
from framebank.features.stores import storage

ABSENT = ""  # the generation of a file that is not there
_READS = 20  # of an object that changes while it is read


def read_with_generation(path: str) -> tuple[bytes | None, str]:
    """Return (content, generation), (None, ABSENT) where there is no such file."""
    if storage.is_local(path):
        try:
            data = storage.read_bytes(path)
        except storage.FileMissingError:
            return None, ABSENT
        return data, _hash(data)
    for _ in range(_READS):
        before = storage.find(path)
        if before is None:
            return None, ABSENT
        try:
            data = storage.read_bytes(path)
        except storage.FileMissingError:
            continue
        after = storage.find(path)
        if after is not None and after.generation == before.generation:
            return data, before.generation
    raise JobError(f"{path} changes too quickly to be read", todo="run the same command again")


def replace_if(path: str, data: bytes, *, generation: str) -> bool:
    """Write `data` if `path` still has `generation`; return whether it was written.

    Raises JobError, UsageError as `storage.write_atomic` does.
    """
    if not storage.is_local(path):
        found = storage.find(path)  # first, since not every server heeds the condition
        if (ABSENT if found is None else found.generation) != generation:
            return read_with_generation(path)[0] == data  # our own, whose answer was lost
        return bool(storage.store_of(path).replace_if(path, data, generation=generation))
    with _locked(path):
        if read_with_generation(path)[1] != generation:
            return False
        storage.write_atomic(path, data)
        return True


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock of a local file, and remove what a writer left that was killed with it."""
    folder, name = os.path.split(os.path.abspath(storage.local_path(path)))
    try:
        os.makedirs(folder, exist_ok=True)
        lock = Path(folder, f".{name}.lock").open("w")
    except OSError as err:
        raise storage.storage_error(path, err, "write") from err
    with lock:  # closing drops it
        fcntl.flock(lock, fcntl.LOCK_EX)
        for other in os.listdir(folder):
            if other.startswith(f".{name}.") and storage.is_leftover(other):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, other))
        yield
