"""NAL units, and what is alike in H.264 and HEVC: one picture a packet, headers that do not change.

Whatever is out of the ordinary raises `Unclear`: the clip is then decoded wholly.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from av.packet import Packet

HEAD_BYTES = 64  # of a slice: what is read of its header lies within
# Up to these builds of x264 decoders follow an error, of direct prediction and of 4:4:4.
OLD_X264, OLD_X264_444 = 33, 150
_X264 = re.compile(rb"x264 - core (\d{1,9})")
# SEI of film grain and of a display's orientation reach pictures, and last until they are revoked.
_LASTING_SEI = (19, 47)
SEQUENCE = 1 << 40  # above the picture order counts of one coded sequence


class Unclear(Exception):
    """What a packet holds cannot be told without decoding everything."""


@dataclasses.dataclass(slots=True)
class Picture:
    """One picture: `order` rises in the order of showing; `begins`: decoding may begin with it;
    `disposable`: no other picture needs it."""

    order: int
    begins: bool
    disposable: bool
    layer: int = 0  # temporal sub-layer


class Bits:
    """Reads fields of a NAL unit's payload; raises Unclear past its end."""

    def __init__(self, unit: bytes) -> None:
        data = unit.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise Unclear("a header ends too soon")
        return self._value >> self._left & (1 << count) - 1

    def flag(self) -> bool:
        return bool(self.take(1))

    def golomb(self) -> int:
        """Return the next unsigned Exp-Golomb code (ue(v), also for se(v) that is skipped)."""
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        if zeros > 32:
            raise Unclear("a number too long")
        self._left -= zeros
        return self.take(zeros + 1) - 1


def units(data: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """Yield the NAL units of a packet: with lengths of `length_bytes`, or (0) by start codes."""
    end = len(data)
    if length_bytes:
        at = 0
        while at < end:
            size = int.from_bytes(data[at : at + length_bytes])
            at += length_bytes
            if not size or at + size > end:
                raise Unclear("a length that does not fit")
            yield data[at : at + size]
            at += size
        return
    text = bytes(data)
    at = text.find(b"\0\0\1")
    if at < 0 or text[:at].strip(b"\0"):
        raise Unclear("no start code")
    while at >= 0:
        after = text.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : after if after >= 0 else end]
        if not len(unit):
            raise Unclear("an empty unit")
        yield unit
        at = after


def _sei_kinds(unit: memoryview, head_bytes: int) -> Iterator[int]:
    """Yield the payload types of an SEI unit."""
    data = bytes(unit).replace(b"\0\0\3", b"\0\0")
    at, end = head_bytes, len(data.rstrip(b"\0")) - 1  # the trailing bits
    while at < end:
        sizes = []
        for _ in range(2):
            value = 0
            while at < end and data[at] == 255:
                value, at = value + 255, at + 1
            if at >= end:
                return
            sizes.append(value + data[at])
            at += 1
        yield sizes[0]
        at += sizes[1]


class CodedPictures:
    """What both codecs have in common: parameter sets that may not change, one picture a packet."""

    delay: int | None = None  # pictures that are held back at most, where the stream says it
    sets: tuple[int, ...]
    sei: tuple[int, ...]
    head_bytes: int
    ends: tuple[int, ...]
    old_x264 = OLD_X264

    def __init__(self, extradata: bytes) -> None:
        self._length_bytes = 0
        self._known: set[bytes] = set()
        self._first = True
        for unit in self._units_of_head(extradata):
            self._add_set(unit)

    def kind(self, unit: memoryview | bytes) -> int:
        raise NotImplementedError

    def _read_set(self, kind: int, unit: bytes) -> None:
        raise NotImplementedError

    def _slice(self, kind: int, unit: memoryview) -> Picture:
        raise NotImplementedError

    def _coded_kind(self, kind: int, unit: memoryview) -> bool:
        raise NotImplementedError

    def _units_of_head(self, extradata: bytes) -> Iterator[bytes]:
        if extradata[:1] == b"\1":
            yield from self._units_of_record(extradata)
        elif extradata:
            yield from map(bytes, units(memoryview(extradata), 0))

    def _units_of_record(self, extradata: bytes) -> Iterator[bytes]:
        """Yield the units of a configuration record, and note how long other units' lengths are."""
        raise NotImplementedError

    def _add_set(self, unit: bytes) -> None:
        kind = self.kind(unit)
        # Trailing zeros belong to the byte stream, not to the unit.
        unit = unit.rstrip(b"\0")
        if kind not in self.sets or unit in self._known:
            return
        if not self._first:
            raise Unclear("parameter sets that change")
        self._known.add(unit)
        self._read_set(kind, unit)

    def picture(self, packet: Packet) -> Picture:
        """Return what the packet says of its one picture; raises Unclear."""
        found: list[Picture] = []
        begun = 0
        for unit in units(memoryview(packet), self._length_bytes):
            kind = self.kind(unit)
            if self._coded_kind(kind, unit):
                if len(unit) <= self.head_bytes:
                    raise Unclear("an empty slice")
                if unit[self.head_bytes] & 0x80:
                    begun += 1
                    found.append(self._slice(kind, unit))
                elif not found:
                    raise Unclear("a picture without its first slice")
                elif self._part_differs(kind, unit, found[0]):
                    raise Unclear("slices of two kinds")
            elif kind in self.sets:
                self._add_set(bytes(unit))
            elif kind in self.ends:
                raise Unclear("a sequence that ends within the clip")
            elif kind in self.sei:
                if any(sei in _LASTING_SEI for sei in _sei_kinds(unit, self.head_bytes)):
                    raise Unclear("film grain, or a display's orientation")
                old = _X264.search(bytes(unit)) if self._first else None
                if old and int(old[1]) <= self.old_x264:
                    raise Unclear("an old encoder")
        if begun != 1:
            raise Unclear(f"{begun} pictures in a packet")
        self._first = False
        return found[0]

    def _part_differs(self, kind: int, unit: memoryview, first: Picture) -> bool:
        raise NotImplementedError


def unwrapped(lsb: int, last_lsb: int, last_msb: int, bits: int) -> int:
    """Return the high part of a picture order count (H.264, 8.2.1.1; H.265, 8.3.1)."""
    whole = 1 << bits
    if lsb < last_lsb and last_lsb - lsb >= whole // 2:
        return last_msb + whole
    if lsb > last_lsb and lsb - last_lsb > whole // 2:
        return last_msb - whole
    return last_msb
