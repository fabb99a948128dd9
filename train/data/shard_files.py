"""How the shards of a cache are opened: where they are, or staged to a local disk meanwhile.

A staged file is named by its SHA-256, which must be the one in the shard's sidecar: what an earlier
run left in the folder is used again, what belongs to another cache is not. When the folder is full,
the shard whose last use is longest ago goes first; an open file stays readable. Several processes
may share a folder: room is made by one at a time, and what a killed one left half done is removed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from framebank.features.bounds import MOST_BYTES, check_number
from framebank.features.cache import layout
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.errors import CacheError, JobError
from framebank.features.stores import disk, storage, tensorflow_files
from framebank.features.stores.temporary import live_folder

_SUFFIX, _PART = ".staged", ".part"
_CHUNK_BYTES = 1 << 20
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Staging:
    """Where shards of a bucket are put: `folder` (kept after the run; None for a temporary one),
    at most `size_bytes` in it, `parallel` fetched at a time."""

    folder: str | None = None
    size_bytes: int = 50 * 2**30
    parallel: int = 4

    def __post_init__(self) -> None:
        check_number("--stage-bytes", self.size_bytes, 0, MOST_BYTES, above=True)


class ShardFiles:
    """The shards of a cache, opened where they are."""

    def __init__(self, cache: str, open_file: Callable[[str], BinaryIO]) -> None:
        self._cache, self._open_file = cache, open_file

    def open(self, shard: str) -> BinaryIO:
        path = layout.tfrecord_path(self._cache, shard)
        try:
            return self._open_file(path)
        except FileNotFoundError as err:
            raise CacheError(
                f"the shard {path} is missing",
                todo="restore it; `framebank verify` names all that is missing",
            ) from err

    def announce(self, shards: Sequence[str]) -> None:
        """Say in which order shards will be opened."""

    def close(self) -> None:
        """Give up what is held."""


class StagedShards(ShardFiles):
    """Opens shards of a cache that is not on this machine."""

    def __init__(self, cache: str, staging: Staging) -> None:
        self._cache, self._staging = cache, staging
        self._held = contextlib.ExitStack()
        self._folder = Path(staging.folder or self._held.enter_context(live_folder()).path)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._pool = concurrent.futures.ThreadPoolExecutor(
            staging.parallel, thread_name_prefix="staging"
        )
        self._lock = threading.Lock()
        self._fetches: dict[str, concurrent.futures.Future[Path]] = {}
        self._names: dict[str, tuple[str, int]] = {}  # shard → (sha256, bytes)
        self._coming: list[str] = []  # announced, not yet begun

    def announce(self, shards: Sequence[str]) -> None:
        """Fetch these next, in this order, then what was announced before; as many ahead as are
        fetched at a time."""
        with self._lock:
            coming = dict.fromkeys([*shards, *self._coming])
            self._coming = [shard for shard in coming if shard not in self._fetches]
        self._go_on()

    def open(self, shard: str) -> BinaryIO:
        """Open a shard, fetched first where it is not there; raises CacheError, JobError."""
        for _ in range(_TRIES):
            path = self._fetch(shard).result()
            with self._lock:
                self._fetches.pop(shard, None)
                self._coming = [other for other in self._coming if other != shard]
            self._go_on()
            with contextlib.suppress(FileNotFoundError):  # given up for another meanwhile
                file = path.open("rb")
                os.utime(path)
                return file
        raise JobError(
            f"the staged shard {shard} was removed again and again",
            todo="give a larger --stage-bytes, or each run a folder of its own",
        )

    def close(self) -> None:
        """Stop fetching; remove a temporary folder."""
        with self._lock:
            self._coming = []
        self._pool.shutdown(cancel_futures=True)
        self._held.close()

    def _go_on(self) -> None:
        with self._lock:
            begin = self._coming[: max(0, self._staging.parallel - len(self._fetches))]
            self._coming = self._coming[len(begin) :]
        for shard in begin:
            self._fetch(shard)

    def _fetch(self, shard: str) -> concurrent.futures.Future[Path]:
        with self._lock:
            if shard not in self._fetches:
                self._fetches[shard] = self._pool.submit(self._stage, shard)
            return self._fetches[shard]

    def _stage(self, shard: str) -> Path:
        if shard not in self._names:
            committed = read_sidecar(self._cache, shard)
            self._names[shard] = (committed.tfrecord_sha256, committed.tfrecord_bytes)
        sha256, size_bytes = self._names[shard]
        path = self._folder / f"{sha256}{_SUFFIX}"
        if path.exists():  # whole: it got its name after its hash was compared
            return path
        with self._lock, disk.locked(self._folder / ".lock"):  # of who stages here too
            self._make_room(size_bytes)
            part = _reserve(self._folder, size_bytes)
        with part:
            _download(layout.tfrecord_path(self._cache, shard), part, path, sha256)
        return path

    def _make_room(self, size_bytes: int) -> None:
        """Remove the least recently used files until `size_bytes` more fit the limit."""
        room, files = self._staging.size_bytes, []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if path.suffix == _PART and _is_dead(path):
                    path.unlink()
                elif path.suffix in (_PART, _SUFFIX):
                    room -= status.st_size
                    if path.suffix == _SUFFIX:
                        files.append((status.st_mtime_ns, status.st_size, path))
        for _, size, path in sorted(files):
            if room >= size_bytes:
                return
            path.unlink(missing_ok=True)
            room += size


def shard_files(cache: str, staging: Staging) -> ShardFiles:
    """Return how the shards of `cache` are opened: where they are, or staged.

    Shards that tensorflow-io reaches are read where they are, unless a folder for staging is given.
    """
    if storage.is_local(cache):
        return ShardFiles(cache, lambda path: open(storage.local_path(path), "rb"))
    by_tensorflow_io = (
        cache.partition("://")[0] in tensorflow_files.SCHEMES and tensorflow_files.is_installed()
    )
    if by_tensorflow_io and staging.folder is None:
        return ShardFiles(cache, tensorflow_files.open_read)
    return StagedShards(cache, staging)


def _reserve(folder: Path, size_bytes: int) -> IO[bytes]:
    """Return a new file of that size, locked as long as its process lives."""
    try:
        file = tempfile.NamedTemporaryFile(dir=folder, suffix=_PART, delete=False)
        disk.lock(file, folder)
        file.truncate(size_bytes)
    except OSError as err:
        raise storage.storage_error(str(folder), err, "write") from err
    return file


def _is_dead(part: Path) -> bool:
    """Return whether the process that wrote `part` is gone."""
    with part.open("rb") as file:
        return disk.lock(file, part, wait=False)


def _download(source: str, part: IO[bytes], target: Path, sha256: str) -> None:
    """Write the object `source` to `part` and, when its hash is right, name that `target`."""
    found = ""
    try:
        for _ in range(_TRIES):
            part.seek(0)
            with storage.open_read(source) as stream:
                shutil.copyfileobj(stream, part, _CHUNK_BYTES)
            part.truncate()
            part.flush()
            found = disk.file_hash(part.name)
            if found == sha256:
                os.replace(part.name, target)
                return
    except OSError as err:
        raise storage.storage_error(str(target), err, "write") from err
    finally:
        Path(part.name).unlink(missing_ok=True)
    raise CacheError(
        f"{source} is not what its sidecar says",
        got=f"SHA-256 {found}",
        expected=sha256,
        todo="run `framebank verify` on the cache to see all that is damaged",
    )
