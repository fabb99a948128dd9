"""A decoder process from outside: how it is started, what goes to it, doubt in what it says.

What no decoder of ours says raises `Garbled`, and costs the decoder and its clip.

To the child: one JSON document a line, each with an open clip. From it: one byte of kind, four
bytes of length (little-endian), the payload (`Message` has the kinds). Why: infra/decisions/0009.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import os
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from framebank.features import threads
from framebank.features.decoders.sandbox import Confinement, child_environment
from framebank.features.decoding import container
from framebank.features.decoding.probe import Probe
from framebank.features.decoding.request import CHECKS
from framebank.features.errors import ERROR_CLASSES, STAGES, VideoRejected, plain_text
from framebank.features.processes import program
from framebank.features.stores import json_text
from framebank.features.video import SourceInfo

HEADER = struct.Struct("<cI")
TOKEN = struct.Struct("<q")
_WORDS_BYTES = 2**16  # a verdict
_ROW_BYTES = 3 * 24  # a row of the last word: three numbers and what parts them
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME_CHARACTERS = 64
_Answer = TypeVar("_Answer", SourceInfo, Probe)


class Hang(Exception):
    """A decoder that is over one of its time limits, or a file system that does not answer."""


class ConfinedProcess:
    """A Python process that runs `call` of `module`, this very copy, and takes clips."""

    def __init__(self, module: str, call: str) -> None:
        """Raises OSError where no process can be started."""
        with contextlib.ExitStack() as opened:
            self._stderr = opened.enter_context(tempfile.TemporaryFile())
            self._channel, theirs = socket.socketpair()
            opened.enter_context(self._channel)
            with theirs:
                self._process = subprocess.Popen(
                    program(module, call),
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    bufsize=0,
                    env=child_environment(),
                )
            assert self._process.stdout is not None
            self.output = opened.enter_context(self._process.stdout).fileno()
            self._close = opened.pop_all().close

    def send(self, job: dict[str, Any], clip: container.NamelessFile) -> None:
        """Hand over a job with its clip; raises OSError when the process is gone."""
        text = json.dumps(job).encode() + b"\n"
        sent = socket.send_fds(self._channel, [text], [clip.descriptor])
        self._channel.sendall(text[sent:])

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process now, stopped or not; whoever waits for its output stops waiting."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill the process and close what leads to it."""
        self.kill()
        self._close()

    def describe_death(self, error: Exception) -> str:
        """Return how the process ended, or what was wrong with what it said."""
        status: int | None = None
        if not isinstance(error, Garbled):
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(5)  # the pipe ends a moment before the process
        self._stderr.seek(0)
        last = self._stderr.read()[-2000:].decode("utf-8", "replace").strip().splitlines()[-1:]
        said = f"; its last output: {plain_text(last[0])}" if last else ""
        if isinstance(error, Garbled):
            return f"the decoder process sent an invalid message: {error}{said}"
        if status is None:
            return "the decoder process closed its output and went on"
        if status < 0:
            return f"the decoder process was ended by {_signal_name(-status)}{said}"
        return f"the decoder process ended with status {status}{said}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals has no name
        return f"signal {number}"


@contextlib.contextmanager
def opened_clip(
    path: str, limits: container.DecodeLimits, *, timeout_s: float
) -> Iterator[container.NamelessFile]:
    """Open a clip as `container.open_file` does; raises Hang after `timeout_s`.

    A file system that does not answer keeps a thread and a clip, and nobody else.
    """
    opening = container.open_file(path, limits)
    found = threads.begin(opening.__enter__)
    if not wait([found], timeout=timeout_s).done:  # a file system's own TimeoutError is no hang
        raise Hang(f"opening it took more than {timeout_s:.0f} s")
    file = found.result()
    try:
        yield file
    finally:
        opening.__exit__(None, None, None)


class Message(bytes, enum.Enum):
    """What a decoder says."""

    CONFINED = b"S"  # what is out of its reach, once (JSON)
    FRAME = b"F"  # 8 bytes of token, then uint8[size, size, 3] for each size asked for
    SAME = b"="  # 8 bytes of token: its pictures are those of the frame before, of the same clip
    AGAIN = b"A"  # the frames so far count for nothing: those of the whole clip follow
    CUT = b"C"  # 8 bytes: into how many shares the film is cut, of which this is the first
    SHARED = b"H"  # the last word on a share that is not the first
    DOUBTED = b"?"  # the last word on a share of a film that has to be decoded wholly
    BEAT = b"B"  # a sign of life
    WORN = b"W"  # for the next clip take another
    DONE = b"D"  # the last word on a clip that decoded (JSON)
    PROBED = b"P"  # the answer to a probe (JSON)
    PLANNED = b"L"  # of a film that was only to be planned, whatever came of it
    REJECTED = b"R"  # the last word on a clip that did not (JSON)


class Garbled(Exception):
    """A decoder that says what none of ours does."""


class Wire:
    """Reads one clip's messages from a child, with the clock that finds hangs."""

    def __init__(
        self,
        child: ConfinedProcess,
        *,
        silence_s: float,
        limit_s: float,
        sizes: Sequence[int],
        max_rows: int,
        asked: Message = Message.DONE,
    ) -> None:
        """`sizes`: of the pictures of a frame; `asked`: with what a clip ends that is sound, DONE,
        or PROBED or PLANNED, before which no frame comes."""
        self._out = child.output
        self._silence_s, self._limit_s = silence_s, limit_s
        self._waited_s = 0.0
        self.is_worn = False  # the child wants to decode no other clip
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN | select.POLLHUP)
        words, nothing = range(_WORDS_BYTES), range(1)
        frame_bytes = TOKEN.size + sum(3 * size * size for size in sizes)
        self._lengths = {
            Message.CONFINED: words,
            Message.BEAT: nothing,
            Message.WORN: nothing,
            Message.REJECTED: words,
        }
        if asked != Message.DONE:
            self._lengths[asked] = words if asked == Message.PROBED else nothing
        else:
            self._lengths[Message.FRAME] = range(frame_bytes, frame_bytes + 1)
            self._lengths[Message.SAME] = range(TOKEN.size, TOKEN.size + 1)
            self._lengths[Message.AGAIN] = nothing
            self._lengths[Message.CUT] = range(TOKEN.size, TOKEN.size + 1)
            self._lengths[Message.SHARED] = self._lengths[Message.DOUBTED] = nothing
            self._lengths[Message.DONE] = range(_WORDS_BYTES + max_rows * _ROW_BYTES)

    def receive(self) -> tuple[Message, bytearray]:
        """Return the next message; raises Hang, Garbled, or EOFError when the child is gone."""
        kind, length = HEADER.unpack(self._read(HEADER.size))
        try:
            message = Message(kind)
        except ValueError:
            raise Garbled(f"a message of kind {kind!r}") from None
        if length not in self._lengths.get(message, ()):
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
            raise Hang(f"no output for {self._silence_s:.0f} s")


def frame_of(payload: bytearray, sizes: Sequence[int]) -> tuple[int, tuple[NDArray[np.uint8], ...]]:
    """Return a frame's token and its pictures, uint8[size, size, 3] RGB for each of `sizes`."""
    (token,) = TOKEN.unpack_from(payload)
    pictures, offset = [], TOKEN.size
    for size in sizes:
        rgb = np.frombuffer(payload, np.uint8, count=3 * size * size, offset=offset)
        pictures.append(rgb.reshape(size, size, 3))
        offset += rgb.nbytes
    return token, tuple(pictures)


def number_of(payload: bytearray) -> int:
    """Return the one number of a message, such as the token of a frame that shows the same."""
    (token,) = TOKEN.unpack(payload)
    return int(token)


def confinement(payload: bytearray) -> Confinement:
    """Return what a decoder says of its own confinement; raises Garbled."""
    try:
        return Confinement.from_json(bytes(payload))
    except (ValueError, TypeError, KeyError) as error:
        raise Garbled(plain_text(str(error))) from None


def rejection(payload: bytearray) -> VideoRejected:
    """Return a verdict; raises Garbled."""
    fields = _document(payload)
    stage, error_class, text = (fields.get(name) for name in ("stage", "error_class", "message"))
    if stage not in STAGES or error_class not in ERROR_CLASSES or not isinstance(text, str):
        raise Garbled("a verdict of an unknown class")
    return VideoRejected(stage, error_class, plain_text(text))


def done_fields(payload: bytearray, max_rows: int) -> dict[str, Any]:
    """Return the last word on a clip that decoded, its lists of rows all of one length.

    Raises Garbled, and VideoRejected where the rule picks no frame of it or more than `max_rows`.
    """
    fields = _document(payload)
    try:
        counts = {_checked_numbers(fields[name]) for name in ("tokens", "frame_index", "pts_ms")}
        _checked(SourceInfo, fields["source"])
        _checked_numbers([fields["decode_errors"]])
        sound = type(fields["partial"]) is type(fields["capped"]) is bool
        sound &= type(fields.setdefault("warning", "")) is str
        sound &= fields.setdefault("checked", "whole") in CHECKS
        sound &= len(counts) == 1 and bool(_SHA256.fullmatch(fields["sha256"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Garbled(plain_text(f"an invalid last message ({error})")) from None
    if not sound:
        raise Garbled("a last message that contradicts itself")
    (count,) = counts
    if not count:
        raise VideoRejected("decode", "no_keyframes", "the sampling rule picks no frame of it")
    if count > max_rows:
        raise VideoRejected("decode", "too_large", f"{count} rows, the limit here is {max_rows}")
    return fields


def probed(payload: bytearray) -> Probe:
    """Return the answer to a probe, its fields of their types and not negative; raises Garbled."""
    fields = _document(payload)
    try:
        if fields.get("error_class"):
            raise ValueError("a verdict")
        return _checked(Probe, fields)
    except (TypeError, ValueError):
        raise Garbled("an invalid answer to a probe") from None


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


def _checked(kind: type[_Answer], fields: Any) -> _Answer:
    """Return these fields, each of the type it has to be; raises TypeError, ValueError."""
    answer = kind(**fields)
    for field in dataclasses.fields(answer):
        value = getattr(answer, field.name)
        if field.type == "str":
            sound = isinstance(value, str) and value.isprintable()
            sound = sound and len(value) <= _NAME_CHARACTERS
        elif field.type == "bool":
            sound = type(value) is bool
        elif field.type == "int":
            sound = type(value) is int and 0 <= value < 2**63
        else:
            sound = type(value) in (int, float) and 0 <= value < math.inf
            sound |= value is None and field.type != "float"
        if not sound:
            raise ValueError(f"{field.name} is {value!r}")
    return answer
