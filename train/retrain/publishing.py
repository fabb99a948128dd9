"""Bringing a model into a registry, and taking away what killed processes left there.

The first file of a version says which process writes it, the last one is its verdict. A version
without verdict whose process is gone belongs to nobody: on the same machine the kernel knows, for
another machine it counts as gone after a day (a version is written in seconds to minutes).
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from framebank.features.processes import is_gone, this_process
from framebank.features.stores import storage
from framebank.train.retrain.registry import VERDICT, Registry, new_version

_MAKER = "maker.json"
_GONE_AFTER_S = 24 * 3600.0
_FIRST_FILE_S = 60.0  # within which a living process has written who it is


def publish(registry: Registry, version: str, folder: Path, verdict: Mapping[str, Any]) -> None:
    """Copy the files of `folder` to the new `version`; `verdict` comes last and makes it whole."""
    target = registry.folder(version)
    write_json(storage.join(target, _MAKER), this_process())
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            storage.write_atomic(storage.join(target, path.name), _chunks(path))
    write_json(storage.join(target, VERDICT), verdict)


def check_writable(registry: Registry) -> None:
    """Raise FramebankError if nothing can be written: better before a training than after it."""
    path = storage.join(registry.folder(new_version()), _MAKER)
    write_json(path, this_process())
    storage.delete(path)
    _remove_folder(path.rpartition("/")[0])


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def write_json(path: str, fields: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    storage.write_atomic(path, text.encode("utf-8", "backslashreplace"))


def remove_leftovers(registry: Registry) -> list[str]:
    """Remove the versions that dead processes left half-written; return their names."""
    removed = []
    for version, names in registry.files().items():
        if VERDICT not in names and _is_abandoned(registry, version, names):
            for name in sorted(names, key=lambda name: name == _MAKER):  # who wrote it goes last
                storage.delete(storage.join(registry.folder(version), name))
            _remove_folder(registry.folder(version))
            removed.append(version)
    return removed


def _is_abandoned(registry: Registry, version: str, names: Sequence[str]) -> bool:
    if _MAKER not in names:  # killed before its first file was whole
        return _age_s(version) > _FIRST_FILE_S
    gone = is_gone(registry.read_json(version, _MAKER))
    return _age_s(version) > _GONE_AFTER_S if gone is None else gone


def _age_s(version: str) -> float:
    """Return for how long a version has been called so; 0 for a name that tells no time."""
    try:
        made = datetime.datetime.strptime(version[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return 0.0
    made = made.replace(tzinfo=datetime.UTC)
    return (datetime.datetime.now(datetime.UTC) - made).total_seconds()


def _remove_folder(path: str) -> None:
    if storage.is_local(path):
        try:
            os.rmdir(storage.local_path(path))
        except OSError:  # something is in it that is not ours
            return
