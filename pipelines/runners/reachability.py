"""Whether workers reach what a job names, and whether its results can be written at all."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable

from framebank.features.errors import FramebankError, UsageError
from framebank.features.stores import storage

_PROBE_S = 6.0


def check_remote(role: str, paths: Iterable[str]) -> None:
    """Raise UsageError for a path of this machine, which workers elsewhere cannot see.

    A manifest may be local: it is read here; what it names is checked like any other path.
    """
    for path in paths:
        if storage.is_local(path) and not _is_manifest(role, path):
            raise UsageError(
                f"{role} is on this machine, and the workers are on others",
                got=path,
                expected="a path that every worker reaches, such as gs://BUCKET/NAME",
                todo="copy it to a bucket; or, where all workers mount the same disk at the same "
                "path, say so by --shared-disk",
            )


def _is_manifest(role: str, path: str) -> bool:
    return role == "INPUT" and path.lower().endswith((".csv", ".jsonl", ".parquet"))


def check_writable(path: str) -> None:
    """Raise the FramebankError of a folder or prefix in which nothing can be written."""
    if storage.is_local(path):
        _check_local_folder(os.path.abspath(storage.local_path(path)), path)
        return
    outcome: list[Exception | None] = []
    # In a thread, since the clients of buckets try again and again for minutes.
    probing = threading.Thread(target=lambda: outcome.append(_probe(path)), daemon=True)
    probing.start()
    probing.join(_PROBE_S)
    if not outcome:
        raise UsageError(
            f"{path} does not answer",
            got=f"nothing within {_PROBE_S:.0f} s",
            todo="check the network and the address",
        )
    error = outcome[0]
    if isinstance(error, FramebankError):
        raise UsageError(error.what, got=error.got, expected=error.expected, todo=error.todo)
    if error is not None:
        raise error


def _probe(path: str) -> Exception | None:
    """Write a small object and delete it; return the error that stands in the way."""
    probe = storage.join(path, f".framebank-probe-{secrets.token_hex(8)}")
    try:
        storage.write_atomic(probe, b"may this be written?\n")
        storage.delete(probe)
    except FramebankError as error:
        error.what = error.what.replace(probe, path)
        return error
    except Exception as error:  # noqa: BLE001 - for the thread that waits
        return error
    return None


def _check_local_folder(folder: str, path: str) -> None:
    """Look, and write nothing: the nearest folder that is there must let us make files."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if os.path.isdir(folder) and (err := storage.why_unwritable(folder)):
        told = storage.storage_error(path, err, "write into")
        raise UsageError(told.what, got=f"{told.got}: {folder}", todo=told.todo)
