"""What a model has seen: the videos that it was trained on, or chose its best epoch by.

Kept in the model's folder, by id and by the hash of the file, so that a copy that goes by another
id is known too. What a model has not seen is what it may be judged on.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from framebank.features.errors import CacheError
from framebank.features.stores import json_text, storage

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

SEEN = "seen.json.gz"
NO_LIST = "the model keeps no list of the videos that it has seen, as an older version saved it"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model has seen: ids of videos, the SHA-256 of their files, and their groups."""

    videos: frozenset[str] = frozenset()
    contents: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def __or__(self, other: Seen) -> Seen:
        return Seen(
            self.videos | other.videos, self.contents | other.contents, self.groups | other.groups
        )

    def has(self, video_id: str, contents: Mapping[str, str], *, group: str | None = None) -> bool:
        """Return whether a video, a copy of it, or another of its group was seen; `contents` maps
        ids to hashes."""
        return (
            video_id in self.videos
            or contents.get(video_id) in self.contents
            or group in self.groups
        )

    def to_bytes(self) -> bytes:
        """Return the content of seen.json.gz."""
        fields = {"videos": sorted(self.videos), "contents": sorted(self.contents)}
        if self.groups:
            fields["groups"] = sorted(self.groups)
        return gzip.compress(json.dumps(fields).encode(), mtime=0)


def content_hashes(cache: Cache, video_ids: set[str]) -> dict[str, str]:
    """Return the SHA-256 of the file of each of these videos, where it is known."""
    found = cache.done(["video_id", "content_sha256"], video_ids).to_pydict().values()
    return {video_id: content for video_id, content in zip(*found, strict=True) if content}


def read_seen(model_dir: str) -> Seen:
    """Return what the model in `model_dir` has seen; raises CacheError."""
    path = storage.join(model_dir, SEEN)
    try:
        fields = json_text.parse(gzip.decompress(storage.read_bytes(path)))
        named = (fields["videos"], fields["contents"], fields.get("groups", []))
        return Seen(*map(_texts, named))
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, MemoryError) as err:
        raise CacheError(f"{path} is damaged", got=err, todo="restore it from a copy") from err


def _texts(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("what should be a list of texts is not one")
    return frozenset(value)


def find_seen(model_dir: str) -> Seen | None:
    """Return what the model has seen, None where its folder does not say; raises CacheError."""
    return read_seen(model_dir) if storage.exists(storage.join(model_dir, SEEN)) else None
