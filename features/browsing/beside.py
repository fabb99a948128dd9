"""What is made of a cache to look at it, kept for the next time: beside the cache where that can be
written, else in this user's home (~/.cache/framebank/browsing).

Files are whole or not there, and whoever reads one has to doubt what is in it: others may write to
a cache. Nothing here raises for what cannot be kept; it is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from framebank.features.errors import FramebankError
from framebank.features.stores import kept, storage

_MOST_HOME_BYTES = 4 << 30  # of all caches; the folders that were used last stay
_MOST_FILE_BYTES = 256 << 20


class Beside:
    """The folder `name` of what is kept of the cache at `path`."""

    def __init__(self, path: str, name: str) -> None:
        self._home = home() / hashlib.sha256(storage.absolute(path).encode()).hexdigest()[:32]
        self._own, self._far = storage.join(path, name), str(self._home / name)
        self._writes_own = True

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, None where there is none that can be read."""
        for folder in (self._own, self._far):
            with contextlib.suppress(FramebankError):
                path = storage.join(folder, name)
                file = storage.find(path)
                if file is not None and file.size_bytes <= _MOST_FILE_BYTES:
                    return storage.read_bytes(path)
        return None

    def names(self) -> list[str]:
        """Return the names of all files, however deep none."""
        found: set[str] = set()
        for folder in (self._own, self._far):
            with contextlib.suppress(FramebankError):
                files = (file.path.rsplit("/", 1)[-1] for file in storage.iter_files(folder))
                found.update(name for name in files if not name.startswith("."))
        return sorted(found)

    def write(self, name: str, data: bytes) -> None:
        """Keep a file, where that can be done."""
        if self._writes_own:
            try:
                storage.write_atomic(storage.join(self._own, name), data)
                return
            except FramebankError:  # read-only, full, forbidden
                self._writes_own = False
                _tidy(spared=self._home)
        with contextlib.suppress(FramebankError, OSError):
            home().mkdir(mode=0o700, parents=True, exist_ok=True)
            storage.write_atomic(storage.join(self._far, name), data)

    def remove(self, name: str) -> None:
        """Remove a file that nobody needs any more, where that can be done."""
        for folder in (self._own, self._far):
            with contextlib.suppress(FramebankError):
                storage.delete(storage.join(folder, name))


def home() -> Path:
    """Return the folder of what cannot lie beside its cache (not made here)."""
    return kept.home() / "browsing"


def _tidy(*, spared: Path) -> None:
    """Remove the folders of other caches that were written longest ago, beyond the room."""
    left = _MOST_HOME_BYTES
    with contextlib.suppress(OSError):
        folders = sorted(home().iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in folders:
            left -= sum(_sizes(folder))
            if left < 0 and folder != spared:
                shutil.rmtree(folder, ignore_errors=True)


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(place, name)).st_size
