"""What an H.264 or HEVC packet says of its picture before anything is decoded.

Enough of both syntaxes to tell which pictures no other picture needs, where decoding may begin, and
in which order pictures are shown (ITU-T H.264, 7.3 and 8.2.1; H.265, 7.3 and 8.3.1).
"""

from __future__ import annotations

from collections.abc import Iterator

from framebank.features.decoding.nal_units import (
    HEAD_BYTES,
    OLD_X264_444,
    SEQUENCE,
    Bits,
    CodedPictures,
    Picture,
    Unclear,
    unwrapped,
)


class H264(CodedPictures):
    """Reads H.264: frames, no fields, with one sequence parameter set."""

    sets, sei, head_bytes, ends = (7, 8, 13, 15), (6,), 1, ()  # decoders skip 10 and 11

    def __init__(self, extradata: bytes) -> None:
        self._frame_num_bits = self._poc_kind = self._poc_bits = -1
        self._fields = False
        self._sequence = 0
        self._frame_num = self._was_reference = 0
        self._msb = self._lsb = 0
        super().__init__(extradata)

    def _units_of_record(self, extradata: bytes) -> Iterator[bytes]:
        self._length_bytes = (extradata[4] & 3) + 1
        at, count = 6, extradata[5] & 31
        for again in range(2):
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2])
                yield extradata[at + 2 : at + 2 + size]
                at += 2 + size
            if not again:
                count, at = extradata[at], at + 1

    def kind(self, unit: memoryview | bytes) -> int:
        return unit[0] & 31

    def _coded_kind(self, kind: int, unit: memoryview) -> bool:
        if 2 <= kind <= 4 or unit[0] & 0x80:
            raise Unclear("data partitions")
        return kind in (1, 5)

    def _part_differs(self, kind: int, unit: memoryview, first: Picture) -> bool:
        return (kind == 5) != first.begins or (not unit[0] & 0x60) != first.disposable

    def _read_set(self, kind: int, unit: bytes) -> None:
        if kind != 7:
            return
        if self._frame_num_bits >= 0:
            raise Unclear("two sequence parameter sets")
        bits = Bits(unit[1:])
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()
        if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
            if bits.golomb() == 3:
                self.old_x264 = OLD_X264_444
                bits.take(1)
            bits.golomb()
            bits.golomb()
            bits.take(1)
            if bits.take(1):
                self._pass_scaling(bits, 12 if self.old_x264 == OLD_X264_444 else 8)
        self._frame_num_bits = 4 + bits.golomb()
        self._poc_kind = bits.golomb()
        if self._poc_kind == 1:
            raise Unclear("an order of pictures by cycles")
        if self._poc_kind == 0:
            self._poc_bits = 4 + bits.golomb()
        bits.golomb()
        bits.take(1)  # gaps in frame numbers: those that come are looked at
        bits.golomb()
        bits.golomb()
        self._fields = not bits.flag()  # a picture may be one, which its slices say
        if self._fields:
            bits.take(1)
        bits.take(1)
        if bits.flag():
            for _ in range(4):
                bits.golomb()
        if bits.flag():
            self.delay = self._stated_delay(bits)

    @staticmethod
    def _stated_delay(bits: Bits) -> int | None:
        """Return what the usability information says of reordering (annex E.1.1)."""
        if bits.flag() and bits.take(8) == 255:
            bits.take(32)
        if bits.flag():
            bits.take(1)
        if bits.flag():
            bits.take(4)
            if bits.flag():
                bits.take(24)
        if bits.flag():
            bits.golomb()
            bits.golomb()
        if bits.flag():
            bits.take(65)
        models = 0
        for _ in range(2):
            if bits.flag():
                models += 1
                count = bits.golomb() + 1
                bits.take(8)
                for _ in range(count):
                    bits.golomb()
                    bits.golomb()
                    bits.take(1)
                bits.take(20)
        if models:
            bits.take(1)
        bits.take(1)
        if not bits.flag():
            return None
        bits.take(1)
        for _ in range(4):
            bits.golomb()
        return bits.golomb()

    @staticmethod
    def _pass_scaling(bits: Bits, count: int) -> None:
        for number in range(count):
            if not bits.flag():
                continue
            last = 8
            following = 8
            for _ in range(16 if number < 6 else 64):
                if following:
                    code = bits.golomb()
                    delta = (code + 1) // 2 if code % 2 else -(code // 2)
                    following = (last + delta) % 256
                last = following or last

    def _slice(self, kind: int, unit: memoryview) -> Picture:
        if self._frame_num_bits < 0:
            raise Unclear("no sequence parameter set")
        bits = Bits(bytes(unit[1 : 1 + HEAD_BYTES]))
        bits.golomb()
        bits.golomb()
        bits.golomb()
        frame_num = bits.take(self._frame_num_bits)
        if self._fields and bits.flag():
            raise Unclear("fields")
        reference = bool(unit[0] & 0x60)
        begins = kind == 5
        if begins:
            bits.golomb()
            self._sequence += 1
            self._msb = self._lsb = 0
            if frame_num or not reference:
                raise Unclear("an IDR picture that is none")
        elif frame_num != (self._frame_num + self._was_reference) % (1 << self._frame_num_bits):
            raise Unclear("a gap in the frame numbers")
        self._frame_num = frame_num
        if self._poc_kind == 0:
            order = self._unwrap(bits.take(self._poc_bits), reference)
        else:
            order = self._count_up(begins)
        self._was_reference = reference
        return Picture(self._sequence * SEQUENCE + order, begins, not reference)

    def _unwrap(self, lsb: int, reference: bool) -> int:
        """Return the picture order count (8.2.1.1)."""
        msb = unwrapped(lsb, self._lsb, self._msb, self._poc_bits)
        if reference:
            self._msb, self._lsb = msb, lsb
        return msb + lsb

    def _count_up(self, begins: bool) -> int:
        """Return the number of a picture since the IDR: without counts they come as shown."""
        self._lsb = 0 if begins else self._lsb + 1
        return self._lsb


class Hevc(CodedPictures):
    """Reads HEVC of one layer, with one sequence parameter set."""

    sets, sei, head_bytes, ends = (32, 33, 34), (39, 40), 2, (36, 37)

    def __init__(self, extradata: bytes) -> None:
        self._poc_bits = self._extra_bits = -1
        self._separate_planes = False
        self._sequence = self._msb = self._lsb = 0
        super().__init__(extradata)

    def _units_of_record(self, extradata: bytes) -> Iterator[bytes]:
        self._length_bytes = (extradata[21] & 3) + 1
        at = 23
        for _ in range(extradata[22]):
            count, at = int.from_bytes(extradata[at + 1 : at + 3]), at + 3
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2])
                yield extradata[at + 2 : at + 2 + size]
                at += 2 + size

    def kind(self, unit: memoryview | bytes) -> int:
        return unit[0] >> 1 & 63

    def _coded_kind(self, kind: int, unit: memoryview) -> bool:
        if len(unit) < 3 or unit[0] & 0x81 or unit[1] >> 3:
            raise Unclear("several layers")
        if 10 <= kind <= 15 or 22 <= kind <= 31:
            raise Unclear("units of a later standard")
        return kind < 32

    def _part_differs(self, kind: int, unit: memoryview, first: Picture) -> bool:
        return (kind < 16 and kind % 2 == 0) != first.disposable

    def _read_set(self, kind: int, unit: bytes) -> None:
        bits = Bits(unit[2:])
        if kind == 33:
            self._read_sequence_set(bits)
        elif kind == 34:
            bits.golomb()
            bits.golomb()
            bits.take(1)
            if bits.flag():
                raise Unclear("pictures that are not shown")
            extra = bits.take(3)
            if self._extra_bits not in (-1, extra):
                raise Unclear("two kinds of picture parameter sets")
            self._extra_bits = extra

    def _read_sequence_set(self, bits: Bits) -> None:
        if self._poc_bits >= 0:
            raise Unclear("two sequence parameter sets")
        bits.take(4)
        layers = bits.take(3)  # less one
        bits.take(1)
        bits.take(88)
        bits.take(8)
        present = [(bits.flag(), bits.flag()) for _ in range(layers)]
        if layers:
            bits.take(2 * (8 - layers))
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
        bits.golomb()
        if bits.golomb() == 3:
            self._separate_planes = bits.flag()
        bits.golomb()
        bits.golomb()
        if bits.flag():
            for _ in range(4):
                bits.golomb()
        bits.golomb()
        bits.golomb()
        self._poc_bits = 4 + bits.golomb()
        for _ in range(layers + 1 if bits.flag() else 1):
            bits.golomb()
            self.delay = bits.golomb()  # that of the highest layer counts
            bits.golomb()

    def _slice(self, kind: int, unit: memoryview) -> Picture:
        if self._poc_bits < 0 or self._extra_bits < 0:
            raise Unclear("no parameter sets")
        bits = Bits(bytes(unit[2 : 2 + HEAD_BYTES]))
        bits.take(1)
        begins = 16 <= kind <= 23
        # The first picture is none before which others could be dropped.
        if begins and bits.flag() and not self._first:
            raise Unclear("pictures that a later one drops")
        bits.golomb()
        bits.take(self._extra_bits)
        bits.golomb()
        if self._separate_planes:
            bits.take(2)
        layer = (unit[1] & 7) - 1
        new = begins and (kind < 21 or self._first)
        if new:
            self._sequence += 1
            self._msb = self._lsb = 0
        lsb = 0 if kind in (19, 20) else bits.take(self._poc_bits)
        msb = 0 if new else unwrapped(lsb, self._lsb, self._msb, self._poc_bits)
        disposable = kind < 16 and kind % 2 == 0
        if layer == 0 and not disposable and not 6 <= kind <= 9:
            self._msb, self._lsb = msb, lsb
        if self._first and not begins:
            raise Unclear("a clip that begins amid a sequence")
        return Picture(self._sequence * SEQUENCE + msb + lsb, begins, disposable, layer)
