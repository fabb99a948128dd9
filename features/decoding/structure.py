"""What a file's own bytes say and FFmpeg does not pass on: was it cut, is it locked, its crop.

Each walk reads lengths and skips contents, so it costs some small reads however long the file is.
Sources: ISO/IEC 14496-12, 4.2 (boxes); RFC 8794 and RFC 9559 (EBML, Matroska); the GIF89a
specification, appendix B (blocks); PNG, third edition.

A crop is cut off a picture before it is shown, which FFmpeg leaves to players. In mp4 and mov it is
the clean aperture (`clap`: ISO/IEC 14496-12, 12.1.4), in Matroska PixelCrop (RFC 9559,
5.1.4.1.28.8). Crops of the codec itself the decoder applies.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeVar

# FFmpeg's decoder of PNG unpacks text and colour profiles of any size, so it has no part in probing
# (covers are decoded there too), and what it gets afterwards is looked at (`png_unpacks_over`).
UNPACKING = ("png", "apng")
MOST_UNPACKED = 64 * 2**20  # bytes of text, profiles or index; libpng takes 8 MB, a day's index 40
Peek = Callable[[int, int], bytes]  # (offset, most bytes) -> bytes, fewer at the end of the file
_Kind = TypeVar("_Kind", bytes, int)

_MP4_STARTS = (
    *(b"ftyp", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"),
    *(b"moov", b"moof", b"sidx"),
)
_MOST_BOXES = 100_000
_MOST_UNITS = 4_000_000  # hours of AV1
_UNKNOWN = 1 << 62  # an end that no file has
_SEGMENT, _TRACKS, _TRACK, _TRACK_TYPE = 0x18538067, 0x1654AE6B, 0xAE, 0x83
_ENCODINGS, _ENCODING, _ENCRYPTION = 0x6D80, 0x6240, 0x5035
_PICTURES = 1  # Matroska's TrackType of video
_VIDEO = 0xE0
_MARGINS = {0x54BB: "top", 0x54AA: "bottom", 0x54CC: "left", 0x54DD: "right"}
_ENTRY_BYTES = 86  # of a VisualSampleEntry, before the boxes in it


def mp4_boxes(peek: Peek, size_bytes: int) -> tuple[list[bytes], bool]:
    """Return the types of an mp4's outer boxes, and whether the last of them ends with the file.

    Bytes that do not begin as an mp4 does give no boxes.
    """
    kinds: list[bytes] = []
    offset = 0
    while offset + 8 <= size_bytes and len(kinds) < _MOST_BOXES:
        kind, size, _ = box_head(peek, offset)
        if not kinds and kind not in _MP4_STARTS:
            return [], False
        kinds.append(kind)
        if size < 8:
            return kinds, size == 0
        offset += size
    return kinds, offset == size_bytes


def packed_index_bytes(peek: Peek, size_bytes: int) -> int:
    """Return how long the packed index of a mov says it is, 0 where it is not packed."""
    moov = next(_places(boxes, peek, 0, size_bytes, b"moov"), (0, 0))
    start, _ = next(_places(boxes, peek, *moov, b"cmov", b"cmvd"), (0, 0))
    return int.from_bytes(peek(start, 4), "big") if start else 0


def box_head(peek: Peek, offset: int) -> tuple[bytes, int, int]:
    """Return the type of the mp4 box at `offset`, its size (0: up to the end) and its head's."""
    head = peek(offset, 16)
    size = int.from_bytes(head[:4], "big")
    return (head[4:8], int.from_bytes(head[8:16], "big"), 16) if size == 1 else (head[4:8], size, 8)


def stated_size(peek: Peek, size_bytes: int) -> int | None:
    """Return the size that an AVI or Matroska file says it has, None where it does not say."""
    head = peek(0, 12)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        _, end = next(_places(elements, peek, 0, _UNKNOWN, _SEGMENT), (0, _UNKNOWN))
        return None if end == _UNKNOWN else end
    return None


def matroska_locked(peek: Peek, size_bytes: int) -> bool:
    """Tell whether the first picture track of a Matroska file is encrypted."""
    path = (_ENCODINGS, _ENCODING, _ENCRYPTION)
    track = next(_picture_tracks(peek, size_bytes), (0, 0))
    return any(_places(elements, peek, *track, *path))


def gif_is_cut(peek: Peek, size_bytes: int) -> bool:
    """Tell whether a GIF ends before its trailer (0x3B); what follows a trailer does not matter."""
    return (gif_end(peek, 0, size_bytes) or 0) > size_bytes


def gif_end(peek: Peek, start: int, size_bytes: int) -> int | None:
    """Return the offset after a GIF's trailer, past the end of the file if it is cut.

    None: no GIF begins at `start`, or what follows its header is damaged.
    """
    head = peek(start, 13)
    if len(head) < 13 or head[:3] != b"GIF":
        return None
    offset = start + 13 + _colour_table(head[10])
    while offset < size_bytes:
        kind = peek(offset, 10)
        if kind[:1] == b"\x3b":
            return offset + 1
        if kind[:1] == b"\x21":
            offset = _after_sub_blocks(peek, offset + 2, size_bytes)
        elif kind[:1] == b"\x2c" and len(kind) == 10:
            offset = _after_sub_blocks(peek, offset + 11 + _colour_table(kind[9]), size_bytes)
        else:
            return None if len(kind) == 10 else size_bytes + 1
    return size_bytes + 1


def ends_amid_a_packet(container: str, peek: Peek, size_bytes: int) -> bool:
    """Tell whether a stream of packets of a fixed or stated size ends within one.

    Transport streams (ISO/IEC 13818-1, 2.4.3.2), DV (SMPTE 314M), Ogg pages (RFC 3533, 6), MXF
    (SMPTE ST 377-1, 6), and the units of AV1 (its specification, 5.3 and annex B).
    """
    if container == "mpegts":
        return _ts_ends_amid(peek, size_bytes)
    if container == "dv":  # the flag says 50 Hz: 12 sequences of 12,000 bytes a frame, else 10
        return size_bytes % (144_000 if peek(3, 1)[:1] >= b"\x80" else 120_000) != 0
    if container == "mxf":
        return any(end > size_bytes for _, _, end in mxf_units(peek, size_bytes))
    if container in ("obu", "av1"):
        return _av1_ends_amid(peek, size_bytes, annex_b=container == "av1")
    return container == "ogg" and _ogg_ends_amid(peek, size_bytes)


def _ts_ends_amid(peek: Peek, size_bytes: int) -> bool:
    head = peek(0, 4096)
    for length in (188, 192, 204):
        for first in range(length):
            marks = head[first::length]
            if len(marks) > 4 and set(marks) == {0x47}:
                rest = (size_bytes - first) % length
                # A packet of 192 bytes has its mark after four bytes of time, of 204 before parity.
                ahead = 4 if length == 192 else 0
                last = peek(size_bytes - rest, 1) if rest > ahead else b""
                return last == b"\x47" and rest < 188
    return False


def _ogg_ends_amid(peek: Peek, size_bytes: int) -> bool:
    tail_start = max(0, size_bytes - (1 << 17))  # a page has 65,307 bytes at most
    tail = peek(tail_start, 1 << 17)
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return page >= 0
    count = tail[page + 26]
    lengths = tail[page + 27 : page + 27 + count]
    return len(lengths) < count or page + 27 + count + sum(lengths) > len(tail)


def mxf_units(peek: Peek, size_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (key, where it begins, where its content ends) of an MXF's units, until one is none."""
    offset = 0
    for _ in range(_MOST_UNITS):
        head = peek(offset, 25)
        if offset >= size_bytes or len(head) < 17 or not head.startswith(b"\x06\x0e\x2b\x34"):
            return
        more = head[16] & 0x7F if head[16] & 0x80 else 0
        length = int.from_bytes(head[17 : 17 + more], "big") if more else head[16]
        yield head[:16], offset, offset + 17 + more + length
        offset += 17 + more + length


def _av1_ends_amid(peek: Peek, size_bytes: int, *, annex_b: bool) -> bool:
    """Walk open bitstream units of stated sizes, or the temporal units of annex B."""
    offset = 0
    for _ in range(_MOST_UNITS):
        if offset >= size_bytes:
            break
        head = peek(offset, 10)
        if not annex_b:
            if not head[0] & 2 or head[0] & 0x80:  # no size, or no unit at all
                return False
            skipped = 2 if head[0] & 4 else 1
            head, offset = head[skipped:], offset + skipped
        length = next((n for n, byte in enumerate(head[:8], 1) if byte < 0x80), 0)
        if not length:
            return len(head) < 8
        size = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(head[:length]))
        offset += length + size
    return offset > size_bytes


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(peek: Peek, offset: int, size_bytes: int) -> int:
    """Return the offset after a chain of GIF sub-blocks, past the end if it does not end."""
    window, base = b"", 0
    while offset < size_bytes:
        if not base <= offset < base + len(window):
            window, base = peek(offset, 1 << 16), offset
        length = window[offset - base]
        offset += length + 1
        if not length:
            return offset
    return size_bytes + 1


def _picture_tracks(peek: Peek, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield where the entries of a Matroska's picture tracks lie, of the first list of tracks."""
    tracks = next(_places(elements, peek, 0, size_bytes, _SEGMENT, _TRACKS), (0, 0))
    for track in _places(elements, peek, *tracks, _TRACK):
        start, end = next(_places(elements, peek, *track, _TRACK_TYPE), (0, 0))
        if int.from_bytes(peek(start, end - start), "big") == _PICTURES:
            yield track


def _places(
    children: Callable[[Peek, int, int], Iterator[tuple[_Kind, int, int]]],
    peek: Peek,
    start: int,
    end: int,
    *path: _Kind,
) -> Iterator[tuple[int, int]]:
    """Yield where the contents lie of the boxes or elements at `path`, one within the other."""
    for kind, inner_start, inner_end in children(peek, start, end):
        if kind == path[0] and len(path) == 1:
            yield inner_start, inner_end
        elif kind == path[0]:
            yield from _places(children, peek, inner_start, inner_end, *path[1:])


def elements(peek: Peek, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, start of the content, end of the content) of the EBML elements in a range."""
    for _ in range(_MOST_BOXES):
        if offset >= end or (head := element_head(peek, offset)) is None:
            return
        kind, start, size = head
        offset = end if size is None else min(end, start + size)
        yield kind, start, offset


def element_head(
    peek: Peek, offset: int, *, cut: bool = False
) -> tuple[int, int, int | None] | None:
    """Return (id, start of the content, its size or None if unknown) of an EBML element.

    None where there is no head of one; with `cut` the file may end within its size.
    """
    head = peek(offset, 12)
    id_length = _vint_length(head[:1], 4)
    size_length = _vint_length(head[id_length : id_length + 1], 8)
    length = id_length + size_length
    if not id_length or not size_length or (len(head) < length and not cut):
        return None
    most = (1 << 7 * size_length) - 1
    size = int.from_bytes(head[id_length:length], "big") & most
    return int.from_bytes(head[:id_length], "big"), offset + length, None if size == most else size


def boxes(peek: Peek, offset: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start of the content, end of the content) of the mp4 boxes in a range."""
    for _ in range(_MOST_BOXES):
        kind, size, head_bytes = box_head(peek, offset)
        start = offset + head_bytes
        content_end = end if size == 0 else min(end, offset + size)
        if offset + 8 > end or len(kind) < 4 or content_end < start:
            return
        yield kind, start, content_end
        offset = content_end


def is_animated_webp(peek: Peek) -> bool:
    """Tell whether a file is a WebP of several pictures (RFC 9649, 2.7.1.1)."""
    head = peek(0, 21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2 > 0


def _vint_length(first: bytes, most: int) -> int:
    """Return how many bytes a variable-length number has by its first byte (0: it is none)."""
    length = 9 - first[0].bit_length() if first and first[0] else 0
    return length if length <= most else 0


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
    for track in _picture_tracks(peek, size_bytes):
        margins = {
            _MARGINS[kind]: int.from_bytes(peek(start, min(end - start, 8)), "big")
            for video in _places(elements, peek, *track, _VIDEO)
            for kind, start, end in elements(peek, *video)
            if kind in _MARGINS
        }
        yield Crop(**margins)


def _mp4_crops(peek: Peek, size_bytes: int) -> Iterator[Crop]:
    for media in _places(boxes, peek, 0, size_bytes, b"moov", b"trak", b"mdia"):
        handler, _ = next(_places(boxes, peek, *media, b"hdlr"), (0, 0))
        if handler and peek(handler + 8, 4) == b"vide":
            table = next(_places(boxes, peek, *media, b"minf", b"stbl", b"stsd"), (0, 0))
            yield _described_crop(peek, *table)


def _described_crop(peek: Peek, start: int, end: int) -> Crop:
    """Return the crop that the first sample description in a track's table has."""
    entry = start + 8
    entry_end = min(end, entry + int.from_bytes(peek(entry, 4), "big"))
    shape = peek(entry + 32, 4)
    for a, b in _places(boxes, peek, entry + _ENTRY_BYTES, entry_end, b"clap"):
        if b - a >= 32:
            return _aperture(peek(a, 32), *struct.unpack(">2H", shape))
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


def png_unpacks_over(data: bytes, limit: int) -> bool:
    """Tell whether the packed text and colour profiles of a PNG, or of some chunks of one, have
    more than `limit` bytes in all; FFmpeg passes over iTXt."""
    offset = 8 if data.startswith(b"\x89PNG") else 0
    while offset + 8 <= len(data):
        size, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        if kind in (b"zTXt", b"iCCP"):
            _, _, packed = data[offset + 8 : offset + 8 + size].partition(b"\0")
            with contextlib.suppress(zlib.error):  # damage, which the decoder tells
                limit -= len(zlib.decompressobj().decompress(packed[1:], limit + 1))
            if limit < 0:
                return True
        offset += 12 + size
    return False
