"""Reads a file of weights in a process of its own, before this one opens it.

HDF5's library runs in circles over some damaged files, dies of others, or takes all memory. What it
has read once from end to end it reads again: so each name, attribute and number in a file is read
under limits, nothing outside of it is followed, and any fault refuses the whole file. That is done
once, where a file is chosen (`features.network.weights`); whoever reads it later, here or on
another machine, holds its SHA-256 against that file's. Half a second, and what reading takes.
"""

from __future__ import annotations

import io
import math
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from framebank.features.decoders.sandbox import child_environment, lower_limit
from framebank.features.errors import JobError
from framebank.features.processes import program

# What the process may take, and more for a larger file. Seconds are the processor's, so that a slow
# disk is no fault.
_MOST_SECONDS, _BYTES_A_SECOND = 60, 2**26
_MOST_BYTES = 2**33
# Numbers unfold to at most so many times the file's size: those of a bomb to thousands.
_MOST_GROWTH, _FREE_BYTES = 16, 2**26
_MOST_CHUNK_BYTES = 2**30


def find_fault(source: Path | bytes) -> str:
    """Return why nobody should read the HDF5 in a file, or in these bytes; "" where all is well,
    and for a file that is none. Of a zip archive, its .h5 files are meant.

    Raises JobError where no process can be started, OSError for a file that is not there.
    """
    data = source if isinstance(source, bytes) else None
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    seconds = _MOST_SECONDS + size // _BYTES_A_SECOND
    words = ["-" if data is not None else str(source), str(seconds), str(_MOST_BYTES + 2 * size)]
    command = program(__name__, f"main(*{words})")
    try:
        done = subprocess.run(
            command, input=data or b"", env=child_environment(), capture_output=True, check=False
        )
    except OSError as err:
        raise JobError("weights cannot be tried in a process", got=str(err)) from err
    told = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
    if done.returncode == -signal.SIGPROF:
        return f"reading it does not end within {seconds} s"
    if done.returncode < 0:
        return f"HDF5's library crashes on it (signal {-done.returncode})"
    return told if done.returncode else ""  # the last line of a traceback


def main(path: str, seconds: str, most_bytes: str) -> None:
    """Read the HDF5 at `path` ("-": on stdin) to its end, or raise what is wrong with it."""
    signal.setitimer(signal.ITIMER_PROF, int(seconds))  # SIGPROF ends this process
    lower_limit(resource.RLIMIT_AS, int(most_bytes))
    lower_limit(resource.RLIMIT_CORE, 0)
    import h5py

    for one, size in _files(path):
        with h5py.File(one, "r") as file:
            _read_all(file, _MOST_GROWTH * size + _FREE_BYTES)


def _files(path: str) -> Iterator[tuple[Any, int]]:
    """Yield what h5py can open, and its size in bytes: the file, or what is in it."""
    import h5py

    if path == "-":
        data = sys.stdin.buffer.read()
        yield io.BytesIO(data), len(data)
    elif h5py.is_hdf5(path):
        yield path, os.path.getsize(path)
    elif zipfile.is_zipfile(path):
        most = _MOST_GROWTH * os.path.getsize(path) + _FREE_BYTES
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".h5"):
                    if info.file_size > most:
                        raise ValueError(f"{info.filename} unpacks to {info.file_size} bytes")
                    yield io.BytesIO(archive.read(info)), info.file_size


def _read_all(file: Any, most_bytes: int) -> None:
    """Read all names, attributes and numbers; raises whatever h5py does, ValueError for more."""
    import h5py

    todo, seen, total = [file], set(), 0
    while todo:
        item = todo.pop()
        place = h5py.h5o.get_info(item.id).addr
        if place in seen:  # a second name of the same, maybe a circle
            continue
        seen.add(place)
        for name in item.attrs:
            _ = item.attrs[name]
        if isinstance(item, h5py.Group):
            names = [n for n in item if isinstance(item.get(n, getlink=True), h5py.HardLink)]
            todo += [item[name] for name in names]
        elif isinstance(item, h5py.Dataset):
            total += item.nbytes
            chunk = math.prod(item.chunks or ()) * item.dtype.itemsize
            if total > most_bytes or chunk > _MOST_CHUNK_BYTES:
                told = f"{item.name} of shape {item.shape}"
                raise ValueError(f"{told} makes the file unpack to {max(total, chunk)} bytes")
            # What lies elsewhere, or is no number, the readers of weights refuse.
            if not (item.is_virtual or item.external) and item.dtype.kind in "fiub":
                _ = item[()]
