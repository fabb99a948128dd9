"""Files on disk and objects in a bucket, behind one handful of functions.

The scheme of a path says which module is asked, and all of them have the same functions. A file
appears under its final name whole or not at all: the cache stands on that. What a person can act on
(a full disk, no permission, no credentials) is a FramebankError that says what to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from framebank.features.errors import JobError, UsageError, needing
from framebank.features.stores import disk, objects, tensorflow_files
from framebank.features.stores.disk import FileMissingError as FileMissingError
from framebank.features.stores.disk import explained as explained
from framebank.features.stores.disk import is_leftover as is_leftover
from framebank.features.stores.disk import local_path as local_path
from framebank.features.stores.disk import replacing as replacing
from framebank.features.stores.disk import storage_error as storage_error

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# Scheme → the module that speaks with that kind of object store.
_STORES = {"gs": "framebank.features.stores.gcs", "s3": "framebank.features.stores.s3"}
ABSENT = ""  # the generation of a file that is not there


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """One file: its path, size, and what tells its versions apart (mtime_ns or generation)."""

    path: str
    size_bytes: int
    generation: str


def is_local(path: str) -> bool:
    """Return whether `path` is on a file system; raises UsageError for what is no address."""
    match = _SCHEME.match(path)
    if match is None or match[1].lower() == "file":
        return True
    if match[1] not in _STORES:
        by_tensorflow_io = match[1] in tensorflow_files.SCHEMES
        if not by_tensorflow_io or not tensorflow_files.is_installed():
            more = f", or, to train on a cache there: {tensorflow_files.HOW_TO_INSTALL}"
            raise UsageError(
                f"Framebank cannot reach {match[1]}:// addresses",
                got=path,
                expected="a local path, gs://BUCKET/NAME or s3://BUCKET/NAME",
                todo="copy or mount the files first" + (more if by_tensorflow_io else ""),
            )
    objects.check_address(path)
    return False


def store_of(path: str) -> ModuleType:
    """Return the module for where `path` is; raises UsageError for what is no address.

    boto3 comes first for s3://, since it can write; without it tensorflow-io reads.
    """
    if is_local(path):
        return disk
    scheme = path.partition("://")[0]
    without_boto3 = scheme == "s3" and importlib.util.find_spec("boto3") is None
    if scheme not in _STORES or (without_boto3 and tensorflow_files.is_installed()):
        return tensorflow_files
    with needing(f"{scheme}://", extra="gcp" if scheme == "gs" else scheme):
        return importlib.import_module(_STORES[scheme])


def absolute(path: str) -> str:
    """Return a folder's path such that it does not depend on where this process is."""
    return os.path.abspath(local_path(path)) if is_local(path) else path.rstrip("/")


def on_this_machine(path: str, refusal: str, *, todo: str) -> Path:
    """Return the path of a folder that must be on a disk; raises UsageError with `refusal`."""
    if not is_local(path):
        raise UsageError(refusal, got=path, todo=todo)
    return Path(local_path(path))


def join(base: str, *parts: str) -> str:
    """Join with one slash between each, for both kinds of path."""
    start = base.rstrip("/")
    return "/".join([start, *parts]) if start or base.startswith("/") else "/".join(parts)


def read_bytes(path: str) -> bytes:
    """Return the whole content; raises FileMissingError, JobError, UsageError."""
    try:
        return _read(path, 0, None)
    except MemoryError as err:
        got = "more than fits into this machine's memory"
        raise JobError(f"cannot read {path}", got=got) from err


def read_range(path: str, start: int, length: int) -> bytes:
    """Return up to `length` bytes from byte `start`; fewer where the file ends before."""
    return _read(path, start, length) if length else _read(path, start, 1)[:0]


def _read(path: str, start: int, length: int | None) -> bytes:
    data: bytes | None = store_of(path).read(path, start, length)
    if data is None:
        raise FileMissingError(f"cannot read {path}", got="no such object")
    return data


def open_read(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open for reading from front to back, in bounded memory."""
    if is_local(path):
        return disk.open_read(path)
    if (found := find(path)) is None:
        raise FileMissingError(f"cannot read {path}", got="no such object")
    return objects.open_ranges(found.size_bytes, functools.partial(read_range, path))


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
    if is_local(path):
        opened = disk.open_write(path, create_only=create_only)
    else:
        opened = objects.open_write(store_of(path), path, create_only=create_only)
    with explained(path, "write"), opened as file:
        yield file


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


def read_with_generation(path: str) -> tuple[bytes | None, str]:
    """Return the content of a small file that several processes change, and its generation for
    `replace_if`; (None, ABSENT) where there is no such file."""
    if is_local(path):
        return disk.read_with_generation(path)
    return objects.read_with_generation(store_of(path), path)


def replace_if(path: str, data: bytes, *, generation: str) -> bool:
    """Write `data` if `path` still has `generation`; return whether it was written.

    Of two who replace the same generation one wins and the other is told. `data` should never say
    the same twice: put a number or a token in it. Raises JobError, UsageError.
    """
    if is_local(path):
        return disk.replace_if(path, data, generation=generation)
    return objects.replace_if(store_of(path), path, data, generation=generation)


def find(path: str) -> StoredFile | None:
    """Return size and generation of a file, or None where there is none (a folder is none)."""
    found = store_of(path).stat(path)
    return None if found is None else StoredFile(path, *found)


def exists(path: str) -> bool:
    """Return whether there is a file or object of this name (a folder does not count)."""
    return find(path) is not None


def iter_files(folder: str, *, deep: bool = False) -> Iterator[StoredFile]:
    """Yield the files directly in `folder`, as they come; an absent folder holds none.

    `deep`: all below it, however deep.
    """
    for row in store_of(folder).list_objects(join(folder, ""), deep=deep):
        yield StoredFile(*row)


def list_files(folder: str) -> list[StoredFile]:
    """Return the files directly in `folder`, by name (`iter_files` streams a large one)."""
    return sorted(iter_files(folder), key=lambda file: file.path)


def iter_strange(folder: str) -> Iterator[str]:
    """Yield the paths directly in `folder` that `iter_files` passes over, but for folders.

    A bucket holds nothing but objects.
    """
    if is_local(folder) and os.path.isdir(path := local_path(folder)):
        with os.scandir(path) as entries:
            for entry in entries:
                if not (entry.is_file() or entry.is_dir()):
                    yield join(folder, entry.name)


def folder_exists(path: str) -> bool:
    """Return whether `path` is a folder; in a bucket, whether any object lies under it."""
    if is_local(path):
        return os.path.isdir(local_path(path))
    return any(True for _ in store_of(path).list_objects(join(path, ""), limit=1))


def is_empty(folder: str, *, but: str) -> bool:
    """Return whether nothing is in a folder, or under it in a bucket, but for the file `but` and,
    on a disk, what a killed write left."""
    if not is_local(folder):
        return all(file.path == but for file in iter_files(folder, deep=True))
    path = local_path(folder)
    with explained(folder, "list"):
        names = os.listdir(path) if os.path.isdir(path) else []
    return all(is_leftover(name) or join(folder, name) == but for name in names)


def make_folder(path: str) -> None:
    """Make a folder on a disk; a bucket has none. Raises JobError, UsageError."""
    if is_local(path):
        with explained(path, "write"):
            disk.make_folder(local_path(path))


def remove_folder(path: str) -> None:
    """Remove an empty folder on a disk; one that holds something stays."""
    if is_local(path):
        with contextlib.suppress(OSError):
            os.rmdir(local_path(path))


def delete(path: str) -> bool:
    """Delete one file; returns False where there was none."""
    return bool(store_of(path).delete(path))
