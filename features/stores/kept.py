"""What is dear to make and follows from its inputs, kept on this machine for the next process.

An entry lies at ~/.cache/framebank/kept/<key>-<hash>: `key` is the hash of all that it follows
from, the other that of its bytes, which is checked before they are used; damage costs the time of
making it anew and nothing else. Only the user who runs the command may have written there: entries
and their folder are taken from nobody else, and from no folder that others can write to.
Nothing here raises: what cannot be kept is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.stores import disk

MOST_ENTRY_BYTES = 512 << 20
_MOST_BYTES = 1 << 30  # of all entries: those that were used last stay
_DIGITS = 32
_HEAD = struct.Struct("<8sQ")  # magic, length of what follows as JSON
_MAGIC = b"fbkept-1"
_ALIGNED = 64

Arrays = dict[str, NDArray[Any]]


def home() -> Path:
    """Return the folder of all that is kept on this machine for its user (not made here)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "framebank"


def folder() -> Path:
    """Return the folder of the entries (not made here)."""
    return home() / "kept"


def key_of(*parts: object, sources: Sequence[Path] = ()) -> str:
    """Return the key of what follows from `parts` and the content of the files `sources`."""
    digest = hashlib.sha256(json.dumps(list(map(str, parts))).encode())
    for path in sources:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:_DIGITS]


def load(key: str) -> tuple[Any, Arrays] | None:
    """Return what was kept under `key`, a JSON value and arrays by name; None where there is none
    that can be trusted. The arrays are views of one buffer."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, MemoryError):
        for path in _entries(key):
            data = _read(path)
            if data is not None and _hash(data) == path.name.partition("-")[2]:
                os.utime(path)  # it was used last
                return _unpacked(data)
    return None


def keep(key: str, about: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep a JSON value and arrays under `key`, where that can be done."""
    if sum(array.nbytes for array in arrays.values()) > MOST_ENTRY_BYTES:
        return
    with contextlib.suppress(OSError, MemoryError):
        data = _packed(about, arrays)
        place = folder()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(os.stat(place)):
            return
        target = place / f"{key}-{_hash(data)}"
        # No sync: bytes that a crash of the machine takes do not have their hash.
        with (
            disk.replacing(target, durable=False) as part,
            open(part, "xb", opener=_private) as file,
        ):
            file.write(data.data)
        _tidy(place, spared=target)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _entries(key: str) -> Iterator[Path]:
    place = folder()
    if _is_ours(os.stat(place)):
        for name in sorted(os.listdir(place)):
            if name.startswith(f"{key}-"):
                yield place / name


def _read(path: Path) -> NDArray[np.uint8] | None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return np.fromfile(file, np.uint8) if _is_ours(os.fstat(handle)) else None


def _hash(data: NDArray[np.uint8]) -> str:
    return hashlib.sha256(data.data).hexdigest()[:_DIGITS]


def _packed(about: Any, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return header and arrays as the bytes of an entry, each array at a multiple of 64."""
    table, at = {}, 0
    for name, array in arrays.items():
        table[name] = (at, array.dtype.str, array.shape)
        at += -(-array.nbytes // _ALIGNED) * _ALIGNED
    text = json.dumps({"about": about, "arrays": table}).encode()
    start = -(-(_HEAD.size + len(text)) // _ALIGNED) * _ALIGNED
    data = np.zeros(start + at, np.uint8)
    head = _HEAD.pack(_MAGIC, len(text)) + text
    data[: len(head)] = np.frombuffer(head, np.uint8)
    for name, array in arrays.items():
        begin = start + table[name][0]
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        data[begin : begin + array.nbytes] = flat
    return data


def _unpacked(data: NDArray[np.uint8]) -> tuple[Any, Arrays]:
    magic, length = _HEAD.unpack(data[: _HEAD.size].tobytes())
    if magic != _MAGIC:
        raise ValueError("another format")
    fields = json.loads(data[_HEAD.size : _HEAD.size + length].tobytes())
    start = -(-(_HEAD.size + length) // _ALIGNED) * _ALIGNED
    arrays = {}
    for name, (at, kind, shape) in fields["arrays"].items():
        dtype = np.dtype(kind)
        size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        part = data[start + at : start + at + size_bytes]
        arrays[name] = part.view(dtype).reshape(shape)
    return fields["about"], arrays


def _tidy(place: Path, *, spared: Path) -> None:
    """Remove what was not used for longest, and what killed writers left, beyond the room."""
    seen = []
    for entry in os.scandir(place):
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            seen.append((status.st_mtime, status.st_size, entry.path))
    left = _MOST_BYTES
    for _, size_bytes, path in sorted(seen, reverse=True):
        left -= size_bytes
        if left < 0 and path != str(spared):
            with contextlib.suppress(OSError):
                os.unlink(path)
