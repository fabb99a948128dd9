"""Thumbnails of the frames that the network saw, from the source videos that are still there.

The frames come as extraction takes them: by the cache's own sampling rule, from decoder processes
that a damaged clip cannot hang or crash, a clip of a bucket by way of a temporary copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders.pool import (
    ClipAgain,
    ClipDone,
    ClipRejected,
    DecoderPolicy,
    DecoderPool,
    Frame,
)
from framebank.features.errors import FramebankError, VideoRejected
from framebank.features.pages.page import data_address, jpeg_bytes
from framebank.features.spec import FeatureSpec
from framebank.features.stores import storage
from framebank.features.video import VideoRef

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

FRAMES = 8
LONG_SIDE = 176  # pixels of a thumbnail
# Of the catalog's columns, what is needed of a clip.
COLUMNS = ("video_id", "uri", "content_sha256", "source_width", "source_height")
_KEPT = 256  # thumbnails of one clip while it is decoded; beyond, every second one is dropped
_GONE = "The source video is not there any more"
POLICY = DecoderPolicy(decoders=2, timeout_s=20.0, allow_partial=True)

Clip = tuple[Mapping[str, Any], VideoRef]  # its row in the catalog, and where it lies now


@dataclasses.dataclass(frozen=True)
class Thumbnails:
    """`pictures` are data: addresses of JPEGs with `pts_ms`; or there are none, with a `reason`."""

    pictures: tuple[str, ...] = ()
    pts_ms: tuple[int, ...] = ()
    reason: str = ""
    size: tuple[int, int] = (0, 0)  # width and height of each


@dataclasses.dataclass(frozen=True)
class Taken:
    """What was taken of one clip: the JPEGs of some of its `of` rows, or none, with a `reason`.

    `rows` are their numbers among the rows of the cache, ascending. `duration_s` is how long the
    frames last that could be decoded.
    """

    jpegs: tuple[bytes, ...] = ()
    rows: tuple[int, ...] = ()
    pts_ms: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    of: int = 0
    duration_s: float = 0.0
    reason: str = ""

    def spread(self, most: int) -> list[int]:
        """Return the places of up to `most` pictures that lie evenly."""
        places = np.linspace(0, len(self.rows) - 1, min(most, len(self.rows)))
        return [int(place) for place in places.round()]


def make_thumbnails(
    cache: Cache,
    video_ids: Collection[str],
    *,
    say: Callable[[str], None] | None = None,
    most: int = FRAMES,
) -> dict[str, Thumbnails]:
    """Return up to `most` thumbnails of each video, or the reason why there are none."""
    found: dict[str, Thumbnails] = {}
    rows = cache.done(COLUMNS, video_ids).to_pylist()
    try:
        clips = []
        for row in rows:
            clip = find_source(row)
            if isinstance(clip, str):
                found[row["video_id"]] = Thumbnails(reason=clip)
            else:
                clips.append(clip)
        if clips and say is not None:
            say(f"taking frames from {len(clips)} source videos")
        for row, taken in take_pictures(cache.spec, POLICY, clips) if clips else ():
            found[row["video_id"]] = _shown(taken, most)
    except FramebankError as error:  # no room, a store that does not answer: the page does without
        for row in rows:
            found.setdefault(row["video_id"], Thumbnails(reason=why_not_fetched(error)))
    return found


def _shown(taken: Taken, most: int) -> Thumbnails:
    if taken.reason:
        return Thumbnails(reason=taken.reason)
    places = taken.spread(most)
    pictures = tuple(data_address(taken.jpegs[place]) for place in places)
    return Thumbnails(pictures, tuple(taken.pts_ms[place] for place in places), size=taken.size)


def why_not_fetched(error: FramebankError) -> str:
    return f"The source video cannot be fetched: {error.what}."


def find_source(row: Mapping[str, Any]) -> Clip | str:
    """Return a clip as it lies there now, or why there is none; raises FramebankError."""
    if not row["uri"]:
        return "The catalog does not say where the source video is."
    if (file := storage.find(row["uri"])) is None:
        return f"{_GONE}: {row['uri']}"
    return row, VideoRef(row["video_id"], row["uri"], file.size_bytes, file.generation)


def take_pictures(
    spec: FeatureSpec,
    policy: DecoderPolicy,
    clips: Iterable[Clip],
    *,
    long_side: int = LONG_SIDE,
    most: int = _KEPT,
) -> Iterator[tuple[Mapping[str, Any], Taken]]:
    """Yield each clip's row with what was taken of it, as they come; `clips` is read ahead.

    Up to `most` pictures of a clip are kept, of a long one every second, fourth … one. A clip whose
    row has a `content_sha256` has to have those bytes still. Raises FramebankError for a clip that
    cannot be fetched.
    """
    begun: list[tuple[Mapping[str, Any], _Kept]] = []

    def refs() -> Iterator[VideoRef]:
        for row, ref in clips:
            begun.append((row, _Kept(row, long_side, most)))
            yield ref

    with contextlib.closing(DecoderPool(spec, policy)) as pool:
        for event in pool.decode(refs()):
            row, kept = begun[event.clip]
            if isinstance(event, Frame):
                kept.add(event.token, event.pictures[0])
            elif isinstance(event, ClipAgain):
                kept.clear()
            elif isinstance(event, ClipDone):
                yield row, _taken(row, event.fields, kept)
            elif isinstance(event, ClipRejected):
                yield row, Taken(reason=_why_rejected(row["uri"], event.reason))
            if isinstance(event, ClipDone | ClipRejected):
                kept.clear()


def _why_rejected(uri: str, reason: VideoRejected) -> str:
    if reason.error_class == "missing":
        return f"{_GONE}: {uri}"
    done = "read" if reason.stage == "open" else "decoded"
    return f"The source video cannot be {done} ({reason.error_class}): {reason.message}"


def _taken(row: Mapping[str, Any], fields: Mapping[str, Any], kept: _Kept) -> Taken:
    known = row["content_sha256"]  # of a quarantined clip it is not known
    if known and fields["sha256"] != known:
        reason = f"The source video has changed since its features were taken: {row['uri']}"
        return Taken(reason=reason)
    kept.finish()
    rows = [
        (number, pts_ms, kept.pictures[token])
        for number, (token, pts_ms) in enumerate(
            zip(fields["tokens"], fields["pts_ms"], strict=True)
        )
        if token in kept.pictures
    ]
    if not rows:
        return Taken(reason="No frame of the source video can be shown.")
    numbers, pts_ms, pictures = zip(*rows, strict=True)
    source, size = fields["source"], kept.size
    if not row["source_width"]:  # of a quarantined clip the shape is known only now
        size = shape_of(source["width"], source["height"], long_side=max(size))
        pictures = tuple(_resized(jpeg, size) for jpeg in pictures)
    duration_s = float(source["duration_s"])
    return Taken(pictures, numbers, pts_ms, size, len(fields["tokens"]), duration_s)


def shape_of(width: int, height: int, *, long_side: int) -> tuple[int, int]:
    """Return width and height, both even, of a thumbnail of a clip of that shape."""
    width, height = max(width, 1), max(height, 1)
    scale = long_side / max(width, height) / 2
    return max(32, 2 * round(width * scale)), max(32, 2 * round(height * scale))


def _resized(jpeg: bytes, size: tuple[int, int]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
        picture.resize(size).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class _Kept:
    """Pictures of one clip's frames by token; of a long clip every second, fourth … one, and the
    last."""

    def __init__(self, row: Mapping[str, Any], long_side: int, most: int) -> None:
        width, height = row["source_width"], row["source_height"]
        self.size = shape_of(width, height, long_side=long_side)
        self.pictures: dict[int, bytes] = {}
        self._most = most
        self._last: tuple[int, NDArray[np.uint8]] | None = None
        self.clear()

    def clear(self) -> None:
        self.pictures = {}
        self._step, self._count, self._last = 1, 0, None

    def add(self, token: int, rgb: NDArray[np.uint8]) -> None:
        if token in self.pictures:  # a decoder that died is asked again
            return
        self._last = (token, rgb)
        if self._count % self._step == 0:
            self.pictures[token] = self._jpeg(rgb)
        self._count += 1
        if len(self.pictures) > self._most:
            self._step *= 2
            self.pictures = dict(list(self.pictures.items())[::2])

    def finish(self) -> None:
        if self._last is not None and self._last[0] not in self.pictures:
            self.pictures[self._last[0]] = self._jpeg(self._last[1])

    def _jpeg(self, rgb: NDArray[np.uint8]) -> bytes:
        width, height = self.size
        return jpeg_bytes(rgb, width=width, height=height)
