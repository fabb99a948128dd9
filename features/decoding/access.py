"""Tells of each packet, without decoding it, what its picture needs and who needs it.

A reader for each codec for which this can be proved; of every other, and of all that is out of the
ordinary, nothing is said (`Unclear`), and the clip is decoded wholly. What is out of sight here
(what damage within a packet does to its picture) shows when the packet is decoded, or never, where
no wanted picture needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from av.packet import Packet

from framebank.features.decoding.nal_readers import H264, Hevc
from framebank.features.decoding.nal_units import Picture, Unclear

_LATER = 1 << 40
_START_CODE = b"\0\0\1"
_TINY_VOP = 12  # bytes of what may stand for no picture ("not coded", N-VOP)
_VOL = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
_AV1_HEADER, _AV1_DELIMITER, _AV1_FRAMES = 1, 2, (3, 6)
_AV1_PASSED = (
    2,
    4,
    5,
    8,
    15,
)  # delimiter, tile groups, metadata, tile list, padding


class _Straight:
    """A codec whose pictures are shown in the order of their packets."""

    delay: int | None = 0

    def __init__(self, extradata: bytes) -> None:
        self._extradata = extradata
        self._number = 0

    def picture(self, packet: Packet) -> Picture | None:
        """Return what the packet says; None of one that shows nothing. Raises Unclear."""
        self._number += 1
        begins = self._begins(packet)
        if begins is None:
            return None
        if self._number == 1 and not begins:
            raise Unclear("a clip that begins amid a sequence")
        return Picture(2 * self._number, begins, False)

    def _begins(self, packet: Packet) -> bool | None:
        raise NotImplementedError


class _Alone(_Straight):
    """A codec whose pictures need no other."""

    def _begins(self, packet: Packet) -> bool:
        return True


class _Jpeg(_Straight):
    """JPEG: a picture that brings its tables needs no other."""

    def _begins(self, packet: Packet) -> bool:
        head = bytes(memoryview(packet)[:4096])
        head = head[: head.find(b"\xff\xda") + 1]
        return b"\xff\xdb" in head and b"\xff\xc4" in head


class _Vp8(_Straight):
    """VP8 (RFC 6386, 9.1): a key frame sets all that later ones go by."""

    def _begins(self, packet: Packet) -> bool | None:
        tag = memoryview(packet)[0]
        return not tag & 1 if tag & 0x10 else self._hidden(tag)

    @staticmethod
    def _hidden(tag: int) -> None:
        if not tag & 1:
            raise Unclear("a key frame that is not shown")


class _Vp9(_Straight):
    """VP9 (specification, annex B and 6.2): of a superframe's frames one is shown."""

    def _begins(self, packet: Packet) -> bool | None:
        data = memoryview(packet)
        shown, begins = 0, False
        for number, head in enumerate(self._frames(data)):
            if head >> 6 != 2:
                raise Unclear("no frame of VP9")
            profile = (head >> 5 & 1) + 2 * (head >> 4 & 1)
            if profile == 3:
                raise Unclear("VP9 of profile 3")
            if head >> 3 & 1:  # a frame of before is shown
                shown += 1
                continue
            key, visible = not head >> 2 & 1, head >> 1 & 1
            shown += visible
            begins |= key and not number
        if shown > 1 or (begins and not shown):
            raise Unclear(f"{shown} pictures in a packet")
        return begins if shown else None

    @staticmethod
    def _frames(data: memoryview) -> list[int]:
        """Return the first byte of each frame."""
        last = data[-1]
        if last >> 5 != 6:
            return [data[0]]
        count, width = (last & 7) + 1, (last >> 3 & 3) + 1
        start = len(data) - 2 - count * width
        if start < 0 or data[start] != last:
            return [data[0]]
        heads, at = [], 0
        for number in range(count):
            field = start + 1 + number * width
            size = int.from_bytes(data[field : field + width], "little")
            if not size or at + size > start:
                raise Unclear("a superframe that does not fit")
            heads.append(data[at])
            at += size
        return heads


class _Av1(_Straight):
    """AV1 (specification, 5.3 and 5.9): a shown key frame with its sequence header begins anew."""

    def __init__(self, extradata: bytes) -> None:
        super().__init__(extradata)
        self._sequence = b""

    def _begins(self, packet: Packet) -> bool:
        data = memoryview(packet)
        at, shown, first, headed = 0, 0, -1, False
        while at < len(data):
            head = data[at]
            at += 1
            if head & 0x85 or not head & 2:  # a reserved bit, an extension, or no size
                raise Unclear("units of AV1 in layers, or without a size")
            size, at = _leb128(data, at)
            if at + size > len(data):
                raise Unclear("a unit that does not fit")
            kind = head >> 3 & 15
            if kind == _AV1_HEADER:
                self._hold(bytes(data[at : at + size]))
                headed |= first < 0
            elif kind in _AV1_FRAMES:
                if not size:
                    raise Unclear("an empty frame")
                bits = data[at]
                again = bits >> 7
                first = bits if first < 0 else first
                shown += again or bits >> 4 & 1
            elif kind == 7 or kind not in _AV1_PASSED:
                raise Unclear("units of AV1 that are not known")
            at += size
        if shown != 1:
            raise Unclear(f"{shown} pictures in a packet")
        return headed and first >> 4 == 1  # not shown again, a key frame, shown

    def _hold(self, sequence: bytes) -> None:
        if sequence[0] & 0x18:
            raise Unclear("still pictures in AV1")
        self._sequence = self._sequence or sequence
        if sequence != self._sequence:
            raise Unclear("a sequence header that changes")


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        value |= (data[at] & 127) << 7 * place
        at += 1
        if not data[at - 1] & 128:
            return value, at
    raise Unclear("a number too long")


class _Mpeg:
    """MPEG-1, -2 and -4: a B picture is shown at once, another when the next such one comes."""

    delay: int | None = 1

    def __init__(self, extradata: bytes) -> None:
        self._number = self._waited = 0  # pictures, and those of them that waited

    def picture(self, packet: Packet) -> Picture:
        """Return what the packet says; raises Unclear."""
        kind, opens = self._look(packet)
        if kind not in (1, 2, 3):
            raise Unclear("a picture of another kind")
        begins = kind == 1 and opens
        if not self._number and not begins:
            raise Unclear("a clip that begins amid a sequence")
        self._number += 1
        # B pictures come after the one that they are shown before.
        self._waited += kind != 3
        place = self._number if kind == 3 else _LATER - 1
        return Picture(self._waited * _LATER + place, begins, kind == 3)

    def _look(self, packet: Packet) -> tuple[int, bool]:
        """Return the kind (1: I, 2: P, 3: B), and whether all that it goes by is there."""
        raise NotImplementedError


class _Mpeg2(_Mpeg):
    """MPEG-1 and -2 (ISO/IEC 13818-2, 6.2): a sequence header resets the matrices."""

    def _look(self, packet: Packet) -> tuple[int, bool]:
        data = bytes(packet)
        at = data.find(b"\0\0\1\0")
        if at < 0 or len(data) < at + 6 or data.find(b"\0\0\1\0", at + 4) >= 0:
            raise Unclear("not one picture in a packet")
        if b"\0\0\1\xb7" in data:
            raise Unclear("a sequence that ends within the clip")
        extension = data.find(b"\0\0\1\xb5", at)
        while extension >= 0:
            if data[extension + 4] >> 4 == 8 and data[extension + 6] & 3 != 3:
                raise Unclear("interlaced")
            extension = data.find(b"\0\0\1\xb5", extension + 4)
        return data[at + 5] >> 3 & 7, b"\0\0\1\xb3" in data[:at]


class _Mpeg4(_Mpeg):
    """MPEG-4 part 2 (ISO/IEC 14496-2, 6.2.5)."""

    def __init__(self, extradata: bytes) -> None:
        super().__init__(extradata)
        self._layer = _layer_of(extradata)

    def _look(self, packet: Packet) -> tuple[int, bool]:
        data = bytes(packet)
        at = data.find(b"\0\0\1\xb6")
        if at < 0 or data.find(b"\0\0\1\xb6", at + 4) >= 0 or len(data) - at < _TINY_VOP:
            raise Unclear("not one picture in a packet")
        layer = _layer_of(data[:at])
        self._layer = self._layer or layer
        if layer and layer != self._layer:
            raise Unclear("a layer that changes")
        kind = data[at + 4] >> 6
        return kind + 1 if kind < 3 else 2, True  # a sprite is predicted as a P picture is


def _layer_of(data: bytes) -> bytes:
    """Return the header of the video object layer, or nothing."""
    match = _VOL.search(data)
    if match is None:
        return b""
    after = data.find(_START_CODE, match.end())
    return data[match.start() : after if after >= 0 else len(data)].rstrip(b"\0")


Reader: TypeAlias = H264 | Hevc | _Straight | _Mpeg
READERS: dict[str, Callable[[bytes], Reader]] = {
    "h264": H264,
    "hevc": Hevc,
    "vp8": _Vp8,
    "vp9": _Vp9,
    "av1": _Av1,
    "mpeg1video": _Mpeg2,
    "mpeg2video": _Mpeg2,
    "mpeg4": _Mpeg4,
    "mjpeg": _Jpeg,
    "prores": _Alone,
    "dnxhd": _Alone,
}


def reader_of(codec: str, extradata: bytes) -> Reader:
    """Return what reads packets of a codec (FFmpeg's name); raises Unclear where nothing does."""
    if codec not in READERS:
        raise Unclear(f"packets of {codec} say too little")
    return READERS[codec](extradata)
