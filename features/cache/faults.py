"""What `framebank verify` found damaged, noted in the cache: the next `extract` makes it anew.

Reading a whole cache back takes as long as its disk needs, so `extract` does not do it by itself.
What can be told from names and sizes it sees without a note.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection

from framebank.features.cache import layout
from framebank.features.errors import FramebankError
from framebank.features.stores import json_text, storage


@dataclasses.dataclass(frozen=True)
class Note:
    """The names of shards at which the last look found faults."""

    shards: frozenset[str] = frozenset()


def read_note(cache: str) -> Note:
    """Return the note of a cache; an empty one where there is none, or none that can be read."""
    try:
        shards = json_text.parse(storage.read_bytes(layout.note_path(cache)))["damaged_shards"]
        return Note(frozenset(map(layout.check_name, shards)))
    except (FramebankError, ValueError, KeyError, TypeError, RecursionError):
        return Note()


def write_note(cache: str, damaged_shards: Collection[str]) -> None:
    """Note what is damaged, in place of what was noted before; raises as `storage` does."""
    path = layout.note_path(cache)
    if damaged_shards:
        text = json.dumps({"damaged_shards": sorted(damaged_shards)}, indent=1)
        storage.write_atomic(path, text.encode() + b"\n")
    elif storage.exists(path):
        storage.delete(path)
