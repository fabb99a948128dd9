"""The parent's end of the wire to a decoder process: its clock, and doubt in what it says.

A decoder reads strangers' bytes, so whatever comes from it may be a stranger's too: a length to
take memory for, a row that was never sent, a number that is none. All of it is looked at here;
what no decoder of ours sends raises `Garbled`, and costs the decoder and its clip.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import re
import select
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders import launch
from framebank.features.decoders.child import HEADER, TOKEN
from framebank.features.decoders.sandbox import Confinement
from framebank.features.errors import ERROR_CLASSES, STAGES, VideoRejected, plain_text
from framebank.features.stores import json_text
from framebank.features.video import SourceInfo

_WORDS_BYTES = 2**16  # a verdict
_ROW_BYTES = 3 * 24  # a row of the last word: three numbers and what parts them
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME_CHARACTERS = 64


class Message(bytes, enum.Enum):
    """What a decoder says; `features/decoders/child.py` has the format."""

    CONFINED = b"S"
    FRAME = b"F"
    BEAT = b"B"
    WORN = b"W"
    DONE = b"D"
    REJECTED = b"R"


class Hang(Exception):
    """A decoder that is over one of its time limits."""


class Garbled(Exception):
    """A decoder that says what none of ours does."""


class Wire:
    """Reads one clip's messages from a child, with the clock that finds hangs."""

    def __init__(
        self,
        child: launch.ConfinedProcess,
        *,
        silence_s: float,
        limit_s: float,
        size: int,
        max_rows: int,
    ) -> None:
        self._out = child.output
        self._silence_s, self._limit_s = silence_s, limit_s
        self._waited_s = 0.0
        self.is_worn = False  # the child wants to decode no other clip
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN | select.POLLHUP)
        frame_bytes = TOKEN.size + 3 * size * size
        self._lengths = {
            Message.CONFINED: range(_WORDS_BYTES),
            Message.FRAME: range(frame_bytes, frame_bytes + 1),
            Message.BEAT: range(1),
            Message.WORN: range(1),
            Message.DONE: range(_WORDS_BYTES + max_rows * _ROW_BYTES),
            Message.REJECTED: range(_WORDS_BYTES),
        }

    def receive(self) -> tuple[Message, bytearray]:
        """Return the next message; raises Hang, Garbled, or EOFError when the child is gone."""
        kind, length = HEADER.unpack(self._read(HEADER.size))
        try:
            message = Message(kind)
        except ValueError:
            raise Garbled(f"a message of kind {kind!r}") from None
        if length not in self._lengths[message]:
            raise Garbled(f"{length} bytes of kind {kind!r}")
        self.is_worn |= message == Message.WORN
        return message, self._read(length)

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            self._wait()
            count = os.readv(self._out, [view])
            if count == 0:
                raise EOFError
            view = view[count:]
        return data

    def _wait(self) -> None:
        """Wait for bytes; only this time counts against the limits."""
        left_s = min(self._silence_s, self._limit_s - self._waited_s)
        start = time.monotonic()
        ready = self._poll.poll(max(0.0, left_s) * 1000)
        waited_s = time.monotonic() - start
        self._waited_s += waited_s
        if not ready and self._waited_s >= self._limit_s:
            raise Hang(f"not done after {self._limit_s:.0f} s, the limit for a clip of its size")
        if not ready:
            raise Hang(f"no sign of life for {self._silence_s:.0f} s")


def frame_of(payload: bytearray, size: int) -> tuple[int, NDArray[np.uint8]]:
    """Return a frame's token and uint8[size, size, 3] RGB."""
    (token,) = TOKEN.unpack_from(payload)
    rgb = np.frombuffer(payload, dtype=np.uint8, offset=TOKEN.size)
    return token, rgb.reshape(size, size, 3)


def confinement(payload: bytearray) -> Confinement:
    """Return what a decoder says of its own confinement; raises Garbled."""
    try:
        return launch.confinement_of(payload)
    except (ValueError, TypeError, KeyError) as error:
        raise Garbled(plain_text(str(error))) from None


def rejection(payload: bytearray) -> VideoRejected:
    """Return a verdict; raises Garbled."""
    fields = _document(payload)
    stage, error_class, text = (fields.get(name) for name in ("stage", "error_class", "message"))
    if stage not in STAGES or error_class not in ERROR_CLASSES or not isinstance(text, str):
        raise Garbled("a verdict of no known class")
    return VideoRejected(stage, error_class, plain_text(text))


def done_fields(payload: bytearray, max_rows: int) -> dict[str, Any]:
    """Return the last word on a clip that decoded, its lists of rows all of one length.

    Raises Garbled, and VideoRejected where the rule picks no frame of it or more than `max_rows`.
    """
    fields = _document(payload)
    try:
        counts = {_checked_numbers(fields[name]) for name in ("tokens", "frame_index", "pts_ms")}
        _check_source(fields["source"])
        _checked_numbers([fields["decode_errors"]])
        sound = type(fields["partial"]) is type(fields["capped"]) is bool
        sound &= type(fields.setdefault("warning", "")) is str
        sound &= len(counts) == 1 and bool(_SHA256.fullmatch(fields["sha256"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Garbled(plain_text(f"a last word that is none ({error})")) from None
    if not sound:
        raise Garbled("a last word that does not fit together")
    (count,) = counts
    if not count:
        raise VideoRejected("decode", "no_frames", "the sampling rule picks no frame of it")
    if count > max_rows:
        raise VideoRejected("decode", "too_large", f"{count} rows, the limit here is {max_rows}")
    return fields


def _document(payload: bytearray) -> dict[str, Any]:
    try:
        return json_text.parse_object(bytes(payload))
    except ValueError as error:
        raise Garbled(plain_text(str(error))) from None


def _checked_numbers(values: Any) -> int:
    """Return how many numbers of 64 bits there are; raises TypeError, OverflowError."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise TypeError("no list of whole numbers")
    return len(np.array(values, np.int64))


def _check_source(fields: Any) -> None:
    """Raise TypeError, ValueError, OverflowError unless these are fields of a SourceInfo."""
    source = SourceInfo(**fields)
    for field in dataclasses.fields(SourceInfo):
        value = getattr(source, field.name)
        if field.type == "str":
            sound = value.isprintable() and len(value) <= _NAME_CHARACTERS
        elif field.type == "float":
            sound = math.isfinite(value)
        else:
            sound = bool(_checked_numbers([value])) and value >= 0
        if not sound:
            raise ValueError(f"{field.name} is {value!r}")
