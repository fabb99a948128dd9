"""Where the parts of a file begin that were put one behind the other, as `cat` does.

FFmpeg reads the first part of most such files (of Matroska the first two) and then ends without a
word. Each part is a whole file by itself, so each is opened by its own window of bytes. The walks
read heads and skip contents (of some formats they look at every byte), and stop at what they do not
know: that belongs to the part before. Sources: RFC 9559 (Matroska), RFC 3533, 4 (chained Ogg),
ISO/IEC 14496-12 (mp4), the FLV, ASF, IVF and SWF specifications, and PNG's (chunks).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

from framebank.features.decoding.structure import Peek, box_head, element_head, gif_end, mxf_units

MOST_PARTS = 256  # each is probed by itself
_MOST_STEPS = 4_000_000
_AHEAD_BYTES = 1 << 12
_LONGEST_HEAD = 27 + 255  # a page of Ogg
Walk = Callable[["_Heads", int], Iterator[int]]

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_WTV_HEADER = bytes.fromhex("b7d800203749da11a64e0007e95ead8d")
_SCANNED_BYTES, _MOST_SCANNED_BYTES, _LONGEST_MARK = 1 << 20, 1 << 32, 32
# Formats that are looked at byte by byte: their lengths are hard to follow, or, where a part was
# cut, swallow the beginning of the next.
_MARKS = {
    b"FLV\x01": re.compile(rb"FLV\x01[\0\1\4\5]\0\0\0\x09\0\0\0\0"),
    _ASF_HEADER: re.compile(re.escape(_ASF_HEADER)),
    _WTV_HEADER: re.compile(re.escape(_WTV_HEADER)),
    b"nut/multimedia container\0": re.compile(rb"nut/multimedia container\0"),
    b".RMF": re.compile(rb"\.RMF\0\0\0\x12"),
    b"YUV4MPEG2 ": re.compile(rb"YUV4MPEG2 "),
}
_MXF_KEY = bytes.fromhex("060e2b34020501010d0102010102")  # a header partition's
_PNG = b"\x89PNG\r\n\x1a\n"


class _Heads:
    """Reads small pieces ahead, for heads often lie close together."""

    def __init__(self, peek: Peek) -> None:
        self._peek = peek
        self._window, self._base = b"", 0

    def __call__(self, offset: int, size_bytes: int) -> bytes:
        if not self._base <= offset <= self._base + len(self._window) - size_bytes:
            self._window, self._base = self._peek(offset, max(size_bytes, _AHEAD_BYTES)), offset
        return self._window[offset - self._base : offset - self._base + size_bytes]


def part_windows(peek: Peek, size_bytes: int) -> list[tuple[int, int]]:
    """Return (start, end) of each part in bytes: one for a file that nothing was glued to.

    Stops at one more than `MOST_PARTS`.
    """
    head = peek(0, 32)
    walk = next((walk for start, walk in _WALKS.items() if head.startswith(start)), None)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        walk = _mp4
    starts = [0]
    if walk is not None:
        starts += itertools.islice(walk(_Heads(peek), size_bytes), MOST_PARTS)
    return list(zip(starts, [*starts[1:], size_bytes], strict=True))


def _matroska(heads: _Heads, end: int) -> Iterator[int]:
    """Yield where a further EBML header is; segments and clusters of unknown size are entered."""
    offset = 0
    for _ in range(_MOST_STEPS):
        if offset >= end or (head := element_head(heads, offset, cut=True)) is None:
            return
        kind, start, size = head
        if kind == _EBML and offset:
            yield offset
        if size is None and kind not in (_SEGMENT, _CLUSTER):
            return
        offset = start + (size or 0)


def _mp4(heads: _Heads, end: int) -> Iterator[int]:
    """Yield where an `ftyp` comes after an index; old QuickTime has none, so a second index tells.

    Its parts end with their index, or with the pictures after it.
    """
    named = heads(4, 4) == b"ftyp"
    offset, pictures_end, indexed, last_kind = 0, 0, False, b""
    after_index: list[int] = []
    after_pictures: list[int] = []
    for _ in range(_MOST_STEPS):
        kind, size, _ = box_head(heads, offset)
        if offset >= end or size < 8:
            break
        if kind == b"ftyp" and indexed:
            yield offset
            indexed = False
        indexed |= kind == b"moov"
        offset, last_kind = offset + size, kind if kind in (b"moov", b"mdat") else last_kind
        if kind == b"mdat":
            pictures_end = offset
        elif kind == b"moov":
            after_index.append(offset)
            after_pictures.append(pictures_end)
        if not named and len(after_index) > MOST_PARTS + 1:
            break
    if not named and len(after_index) > 1:
        yield from after_index[:-1] if last_kind == b"moov" else after_pictures[1:]


def _units(least_bytes: int, look: Callable[[bytes, bytes], tuple[bool, int]]) -> Walk:
    """Return a walk from unit to unit, whose heads have `least_bytes` or more.

    `look` takes a head and the one before, and tells whether a part may begin with this unit, and
    its size (0: it is none).
    """

    def walk(heads: _Heads, end: int) -> Iterator[int]:
        offset, last = 0, b""
        for _ in range(_MOST_STEPS):
            head = heads(offset, _LONGEST_HEAD)
            if offset >= end or len(head) < least_bytes:
                return
            begins, size = look(head, last)
            if not size:
                return
            if begins and offset:
                yield offset
            offset, last = offset + size, head

    return walk


def _ogg(head: bytes, last: bytes) -> tuple[bool, int]:
    """Look for a page that begins a stream after pages that do not: a link of a chain."""
    if not head.startswith(b"OggS"):
        return False, 0
    begins = head[5] & 2 and last and not last[5] & 2
    return bool(begins), 27 + head[26] + sum(head[27 : 27 + head[26]])


def _avi(head: bytes, _: bytes) -> tuple[bool, int]:
    """Look for a further AVI; a long one goes on in chunks of the type AVIX."""
    size = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and head[8:12] == b"AVI ", 8 + size + size % 2 if size else 0


def _ivf(head: bytes, _: bytes) -> tuple[bool, int]:
    if head.startswith(b"DKIF\0\0"):
        return True, max(32, int.from_bytes(head[6:8], "little"))
    return False, 12 + int.from_bytes(head[:4], "little")


def _png(head: bytes, last: bytes) -> tuple[bool, int]:
    if head.startswith(_PNG):
        return True, len(_PNG)
    return False, 0 if last[4:8] == b"IEND" else 12 + int.from_bytes(head[:4], "big")


def _swf(head: bytes, _: bytes) -> tuple[bool, int]:
    size = max(8, int.from_bytes(head[4:8], "little"))
    return True, size if head.startswith(b"FWS") else 0


def _mxf(heads: _Heads, end: int) -> Iterator[int]:
    """Yield where a further header partition begins (SMPTE ST 377-1, 6 and 7.1)."""
    for key, offset, _ in mxf_units(heads, end):
        if offset and key.startswith(_MXF_KEY):
            yield offset


def _scan(mark: re.Pattern[bytes]) -> Walk:
    """Return a walk that looks at every byte of the first 4 GiB for a part's beginning."""

    def walk(heads: _Heads, end: int) -> Iterator[int]:
        found = 0
        for base in range(0, min(end, _MOST_SCANNED_BYTES), _SCANNED_BYTES):
            # Marks that lie on the border are found with the piece that they begin in.
            piece = heads(base, min(end - base, _SCANNED_BYTES + _LONGEST_MARK))
            for match in mark.finditer(piece):
                if base + match.start() > found:
                    found = base + match.start()
                    yield found

    return walk


def _gif(heads: _Heads, end: int) -> Iterator[int]:
    offset = gif_end(heads, 0, end)
    while offset is not None and offset < end and heads(offset, 4) == b"GIF8":
        yield offset
        offset = gif_end(heads, offset, end)


_WALKS: dict[bytes, Walk] = {
    b"\x1a\x45\xdf\xa3": _matroska,
    b"OggS": _units(27, _ogg),
    b"RIFF": _units(12, _avi),
    b"GIF8": _gif,
    _MXF_KEY: _mxf,
    b"DKIF": _units(12, _ivf),
    _PNG: _units(8, _png),
    b"FWS": _units(8, _swf),
    **{start: _scan(mark) for start, mark in _MARKS.items()},
}
