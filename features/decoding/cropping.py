"""What a container says is cut off a picture before it is shown, which FFmpeg leaves to players.

In mp4 and mov it is the clean aperture (`clap`: ISO/IEC 14496-12, 12.1.4), in Matroska PixelCrop
(RFC 9559, 5.1.4.1.28.8). Crops of the codec itself the decoder applies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from framebank.features.decoding.structure import Peek, boxes, elements, matroska_picture_tracks

_VIDEO = 0xE0
_MARGINS = {0x54BB: "top", 0x54AA: "bottom", 0x54CC: "left", 0x54DD: "right"}
_ENTRY_BYTES = 86  # of a VisualSampleEntry, before the boxes in it


class Crop(NamedTuple):
    """Pixels that are not shown, at each side of a stored picture."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def within(self, width: int, height: int) -> Crop:
        """Return the crop for a picture of that size; none where it would leave nothing of it."""
        fits = self.left + self.right < width and self.top + self.bottom < height
        return self if fits and min(self) >= 0 else Crop()

    @property
    def filters(self) -> tuple[tuple[str, str | None], ...]:
        """Return the FFmpeg filter, name and arguments, that cuts these margins off."""
        if self == Crop():
            return ()
        size = f"iw-{self.left + self.right}:ih-{self.top + self.bottom}"
        return (("crop", f"{size}:{self.left}:{self.top}:exact=1"),)


def stated_crop(container: str, peek: Peek, size_bytes: int, *, track: int) -> Crop:
    """Return the crop of the `track`-th picture track (from 0) by the container's own words."""
    reader = {"mov": _mp4_crops, "matroska": _matroska_crops}.get(container)
    crops = reader(peek, size_bytes) if reader else iter(())
    return next((crop for number, crop in enumerate(crops) if number == track), Crop())


def _matroska_crops(peek: Peek, size_bytes: int) -> Iterator[Crop]:
    for parts in matroska_picture_tracks(peek, size_bytes):
        margins = {
            _MARGINS[kind]: int.from_bytes(peek(c, min(d - c, 8)), "big")
            for part, a, b in parts
            if part == _VIDEO
            for kind, c, d in elements(peek, a, b)
            if kind in _MARGINS
        }
        yield Crop(**margins)


def _mp4_crops(peek: Peek, size_bytes: int) -> Iterator[Crop]:
    for kind, start, end in boxes(peek, 0, size_bytes):
        if kind == b"moov":
            for inner, track_start, track_end in boxes(peek, start, end):
                if inner == b"trak":
                    yield from _track_crop(peek, track_start, track_end)


def _track_crop(peek: Peek, start: int, end: int) -> Iterator[Crop]:
    """Yield the crop of a track, nothing where it is no picture track."""
    for kind, media_start, media_end in boxes(peek, start, end):
        if kind == b"mdia":
            found = {inner: (a, b) for inner, a, b in boxes(peek, media_start, media_end)}
            handler = found.get(b"hdlr", (0, 0))[0]
            if handler and peek(handler + 8, 4) == b"vide" and b"minf" in found:
                yield _described_crop(peek, *found[b"minf"])


def _described_crop(peek: Peek, start: int, end: int) -> Crop:
    """Return the crop that the first sample description of a track has."""
    for kind, table_start, table_end in boxes(peek, start, end):
        if kind == b"stbl":
            return _described_crop(peek, table_start, table_end)
        if kind == b"stsd":
            entry = table_start + 8
            size = int.from_bytes(peek(entry, 4), "big")
            shape = peek(entry + 32, 4)
            if len(shape) < 4:
                return Crop()
            width, height = struct.unpack(">2H", shape)
            inner_end = min(table_end, entry + size)
            for inner, a, b in boxes(peek, entry + _ENTRY_BYTES, inner_end):
                if inner == b"clap" and b - a >= 32:
                    return _aperture(peek(a, 32), width, height)
    return Crop()


def _aperture(data: bytes, width: int, height: int) -> Crop:
    """Return the margins that a clean aperture leaves; none for one that reaches outside."""
    w_n, w_d, h_n, h_d, x_n, x_d, y_n, y_d = struct.unpack(">4IiIiI", data)
    if not (w_d and h_d and x_d and y_d):
        return Crop()
    left, right = _margins(width, Fraction(w_n, w_d), Fraction(x_n, x_d))
    top, bottom = _margins(height, Fraction(h_n, h_d), Fraction(y_n, y_d))
    return Crop(top, bottom, left, right).within(width, height)


def _margins(stored: int, shown: Fraction, off_centre: Fraction) -> tuple[int, int]:
    """Return what is cut off before and after, of `stored` pixels of which `shown` are shown."""
    first = Fraction(stored - 1, 2) + off_centre - (shown - 1) / 2
    return int(first), stored - int(first + shown)
