"""Thumbnails of the frames that the network saw, from the source videos that are still there.

The frames come as extraction takes them: by the cache's own sampling rule, from decoder processes
that a damaged clip cannot hang or crash, a clip of a bucket by way of a temporary copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders.pool import (
    ClipDone,
    ClipRejected,
    DecoderPolicy,
    DecoderPool,
    Frame,
)
from framebank.features.errors import FramebankError, VideoRejected
from framebank.features.pages.page import jpeg_address
from framebank.features.stores import storage
from framebank.features.stores.storage import StoredFile
from framebank.features.video import VideoRef

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

FRAMES = 8
_LONG_SIDE = 176  # pixels of a thumbnail
_KEPT = 256  # thumbnails of one clip while it is decoded; beyond, every second one is dropped
_GONE = "The source video is not there any more"
_POLICY = DecoderPolicy(decoders=2, timeout_s=20.0, allow_partial=True)


@dataclasses.dataclass(frozen=True)
class Thumbnails:
    """`pictures` are data: addresses of JPEGs with `pts_ms`; or there are none, with a `reason`."""

    pictures: tuple[str, ...] = ()
    pts_ms: tuple[int, ...] = ()
    reason: str = ""
    size: tuple[int, int] = (0, 0)  # width and height of each


def make_thumbnails(
    cache: Cache,
    video_ids: Collection[str],
    *,
    say: Callable[[str], None] | None = None,
    most: int = FRAMES,
) -> dict[str, Thumbnails]:
    """Return up to `most` thumbnails of each video, or the reason why there are none."""
    found: dict[str, Thumbnails] = {}
    columns = ["video_id", "uri", "content_sha256", "source_width", "source_height"]
    rows = cache.done(columns, video_ids).to_pylist()
    try:
        clips = []
        for row in rows:
            reason = "The catalog does not say where the source video is."
            if row["uri"]:
                if file := storage.find(row["uri"]):
                    clips.append((row, file))
                    continue
                reason = f"{_GONE}: {row['uri']}"
            found[row["video_id"]] = Thumbnails(reason=reason)
        if clips and say is not None:
            say(f"taking frames from {len(clips)} source videos")
        found.update(_decode(cache, clips, most))
    except FramebankError as error:  # no room, a store that does not answer: the page does without
        for row in rows:
            reason = f"The source video cannot be fetched: {error.what}."
            found.setdefault(row["video_id"], Thumbnails(reason=reason))
    return found


def _decode(
    cache: Cache, clips: Sequence[tuple[dict[str, Any], StoredFile]], most: int
) -> Iterator[tuple[str, Thumbnails]]:
    """Yield each video_id with its thumbnails; raises FramebankError for one not fetched."""
    if not clips:
        return
    kept = {number: _Kept(row) for number, (row, _) in enumerate(clips)}
    refs = (
        VideoRef(row["video_id"], row["uri"], file.size_bytes, file.generation)
        for row, file in clips
    )
    with contextlib.closing(DecoderPool(cache.spec, _POLICY)) as pool:
        for event in pool.decode(refs):
            row, _ = clips[event.clip]
            if isinstance(event, Frame):
                kept[event.clip].add(event.token, event.pictures[0])
            elif isinstance(event, ClipDone):
                yield row["video_id"], _chosen(row, event.fields, kept.pop(event.clip), most)
            elif isinstance(event, ClipRejected):
                del kept[event.clip]
                reason = _why_rejected(row["uri"], event.reason)
                yield row["video_id"], Thumbnails(reason=reason)


def _why_rejected(uri: str, reason: VideoRejected) -> str:
    if reason.error_class == "missing":
        return f"{_GONE}: {uri}"
    done = "read" if reason.stage == "open" else "decoded"
    return f"The source video cannot be {done} ({reason.error_class}): {reason.message}"


def _chosen(row: dict[str, Any], fields: dict[str, Any], kept: _Kept, most: int) -> Thumbnails:
    if fields["sha256"] != row["content_sha256"]:
        reason = f"The source video has changed since its features were taken: {row['uri']}"
        return Thumbnails(reason=reason)
    rows = [
        (pts_ms, kept.pictures[token])
        for token, pts_ms in zip(fields["tokens"], fields["pts_ms"], strict=True)
        if token in kept.pictures
    ]
    if not rows:
        return Thumbnails(reason="No frame of the source video can be shown.")
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    chosen = [rows[place] for place in places.tolist()]
    pts_ms, pictures = zip(*chosen, strict=True)
    return Thumbnails(pictures, pts_ms, size=kept.size)


class _Kept:
    """Pictures of one clip's frames by token; of a long clip every second, fourth … one."""

    def __init__(self, row: dict[str, Any]) -> None:
        width, height = max(row["source_width"], 1), max(row["source_height"], 1)
        scale = _LONG_SIDE / max(width, height) / 2  # both sides are even
        self.size = max(32, 2 * round(width * scale)), max(32, 2 * round(height * scale))
        self.pictures: dict[int, str] = {}
        self._step, self._count = 1, 0

    def add(self, token: int, rgb: NDArray[np.uint8]) -> None:
        if token in self.pictures:  # a decoder that died is asked again
            return
        if self._count % self._step == 0:
            self.pictures[token] = jpeg_address(rgb, width=self.size[0], height=self.size[1])
        self._count += 1
        if len(self.pictures) > _KEPT:
            self._step *= 2
            self.pictures = dict(list(self.pictures.items())[::2])
