"""Decoder processes, kept and watched: clips go in, frames come out of a queue bounded in bytes.

Each slot is one thread that owns one child process (`features/decoder_child.py`). A child that
says nothing for too long, or takes too long in all, is killed and its clip is rejected as `hang`. A
child that dies has its clip tried once more by a new one (the kernel, short of memory, takes
innocent ones too), then rejected as `crash`. Time in which a child waits for room in the queue is
not counted: the clock runs only while the parent waits. Clips of a bucket come through
`features/staging.py`, whose time is none of the decoder's.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import json_text, storage
from features.container import DecodeLimits
from features.cores import usable_cores
from features.decoder_child import HEADER, TOKEN
from features.errors import JobError, VideoRejected
from features.spec import FeatureSpec
from features.staging import ClipSource, StagedClip, Staging
from features.video import VideoRef

_ATTEMPTS = 2  # of a clip whose decoder dies
_TIMEOUT_BYTES = 10 * 2**20  # a clip's time grows by the base limit for each 10 MiB


@dataclasses.dataclass(frozen=True)
class DecoderPolicy:
    """How decoders are run; nothing in here changes a feature.

    `decoders`: processes of one pool; None: as many as the machine that decodes has cores.
    `timeout_s`: a decoder silent for that long hangs; one clip may take that long plus as much
    again for each 10 MiB of file. `memory_bytes` is the address space of one decoder process,
    `queue_bytes` what decoded frames may take while they wait for the network.
    """

    decoders: int | None = None
    timeout_s: float = 60.0
    memory_bytes: int = 6 * 2**30
    queue_bytes: int = 64 * 2**20
    allow_partial: bool = False
    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)

    def time_limit_s(self, size_bytes: int) -> float:
        """Return the most seconds that decoding a clip of `size_bytes` may take."""
        return self.timeout_s * (1 + max(0, size_bytes) / _TIMEOUT_BYTES)


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame to run the network on; `clip` counts the clips of a run, `token` its frames."""

    clip: int
    token: int
    rgb: NDArray[np.uint8]  # [size, size, 3]


@dataclasses.dataclass(frozen=True)
class ClipDone:
    """The last word on a clip that decoded: which frame each row uses, and where it lies."""

    clip: int
    ref: VideoRef
    fields: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ClipRejected:
    """The last word on a clip that did not."""

    clip: int
    ref: VideoRef
    reason: VideoRejected


Event = Frame | ClipDone | ClipRejected


class DecoderPool:
    """Runs decoder processes; use `decode` for one set of clips after the other."""

    def __init__(self, spec: FeatureSpec, policy: DecoderPolicy) -> None:
        self._spec, self._policy = spec, policy
        limit_bytes = policy.limits.max_size_bytes
        count = policy.decoders or usable_cores()
        self._staging = Staging(downloads=count, max_size_bytes=limit_bytes)
        self._closed = threading.Event()
        self._slots = [_Slot(spec, policy, self._closed) for _ in range(count)]

    def decode(self, refs: Iterable[VideoRef]) -> Iterator[Event]:
        """Yield frames and last words as they come; each clip gets exactly one last word."""
        queue = _ByteQueue(self._policy.queue_bytes)
        source = self._staging.source(refs, self._closed)
        for slot in self._slots:
            slot.work(source, queue)
        working = len(self._slots)
        while working:
            event = queue.get()
            if event is None:
                working -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event

    def close(self) -> None:
        """End every decoder process now and remove what they staged."""
        self._closed.set()
        for slot in self._slots:
            slot.close()
        self._staging.close()


class _ByteQueue:
    """A queue bounded in bytes; last words always fit, so that nobody waits for ever."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity, self._bytes = capacity_bytes, 0
        self._items: collections.deque[Event | BaseException | None] = collections.deque()
        self._changed = threading.Condition()

    def put(self, item: Event | BaseException | None, closed: threading.Event) -> None:
        size = item.rgb.nbytes if isinstance(item, Frame) else 0
        with self._changed:
            while size and self._bytes and self._bytes + size > self._capacity:
                if closed.is_set():
                    return
                self._changed.wait(timeout=0.5)
            self._items.append(item)
            self._bytes += size
            self._changed.notify_all()

    def get(self) -> Event | BaseException | None:
        with self._changed:
            while not self._items:
                self._changed.wait()
            item = self._items.popleft()
            if isinstance(item, Frame):
                self._bytes -= item.rgb.nbytes
                self._changed.notify_all()
            return item


class _Slot:
    """One thread and the decoder process it owns.

    The thread lives as long as the slot: the kernel ends a child when the *thread* that made it
    ends (see prctl(2), PR_SET_PDEATHSIG).
    """

    def __init__(self, spec: FeatureSpec, policy: DecoderPolicy, closed: threading.Event) -> None:
        self._spec, self._policy, self._closed = spec, policy, closed
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr: Any = None
        self._tasks: collections.deque[tuple[ClipSource, _ByteQueue]] = collections.deque()
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="decoder-slot", daemon=True)
        self._thread.start()

    def work(self, source: ClipSource, queue: _ByteQueue) -> None:
        with self._wake:
            self._tasks.append((source, queue))
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._wake.notify()
        child = self._child
        if child is not None:
            child.kill()  # also ends a stopped one
            child.wait()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._tasks and not self._closed.is_set():
                    self._wake.wait()
                if self._closed.is_set():
                    return
                source, queue = self._tasks.popleft()
            try:
                while not self._closed.is_set() and (clip := source.take()) is not None:
                    try:
                        self._decode(clip, queue)
                    finally:
                        source.done(clip)
                queue.put(None, self._closed)
            except BaseException as error:  # noqa: BLE001 - handed to whoever reads the queue
                queue.put(error, self._closed)

    def _decode(self, clip: StagedClip, queue: _ByteQueue) -> None:
        """Pass on what a child says of a clip until its last word; twice where the child dies."""
        reason = clip.rejected
        for attempt in range(1, _ATTEMPTS + 1):
            if reason is not None:
                break
            try:
                reason = self._attempt(clip, queue)
                if reason is None:
                    return
            except (EOFError, BrokenPipeError, ConnectionResetError):
                text = self._describe_death()
                if attempt == _ATTEMPTS:
                    text = f"{text}; it was tried {_ATTEMPTS} times"
                    reason = VideoRejected("decode", "crash", text)
                elif self._closed.is_set():
                    return
        assert reason is not None
        queue.put(ClipRejected(clip.number, clip.ref, reason), self._closed)

    def _attempt(self, clip: StagedClip, queue: _ByteQueue) -> VideoRejected | None:
        """Have the child decode one clip; return why it cannot be used, None where it can.

        A second attempt gives the frames of the first once more: the same ones, by their tokens.
        """
        try:
            wire = _Wire(self._ready_child(), self._policy, clip.ref.size_bytes)
            wire.send(self._job(clip))
            while True:
                kind, payload = wire.receive()
                if kind == b"F":
                    frame = _frame(clip.number, payload, self._spec.input_size)
                    queue.put(frame, self._closed)
                elif kind == b"D":
                    done = ClipDone(clip.number, clip.ref, json_text.parse(payload))
                    queue.put(done, self._closed)
                    return None
                elif kind == b"R":
                    return VideoRejected(**json_text.parse(payload))
        except _Hang as hang:
            self._end_child()
            return VideoRejected("decode", "hang", str(hang))

    def _job(self, clip: StagedClip) -> dict[str, Any]:
        local = storage.is_local(clip.ref.uri)  # a copy cannot change under the decoder
        return {
            "path": clip.path,
            "size_bytes": clip.ref.size_bytes,
            "generation": clip.ref.generation if local else "",
            "sample": self._spec.sample,
            "max_frames": self._spec.max_frames,
            "size": self._spec.input_size,
            "resize": self._spec.resize,
            "allow_partial": self._policy.allow_partial,
            "limits": dataclasses.asdict(self._policy.limits),
        }

    def _ready_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            if self._stderr is not None:
                self._stderr.close()
            try:
                self._stderr = tempfile.TemporaryFile()
                self._child = _spawn(self._policy.memory_bytes, self._stderr)
            except OSError as error:
                raise JobError(
                    "cannot start a decoder process",
                    got=error,
                    todo="see to memory, processes and open files (ulimit -n -u) and room in the "
                    "temporary folder (TMPDIR), or give fewer --decoders; then run again",
                ) from error
            if self._closed.is_set():
                self._child.kill()
        return self._child

    def _end_child(self) -> int:
        """Kill the child and return its exit status (negative: the signal that ended it)."""
        assert self._child is not None
        self._child.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        return self._child.wait()

    def _describe_death(self) -> str:
        assert self._child is not None
        try:
            status = self._child.wait(timeout=5)  # the pipe ends a moment before the process
        except subprocess.TimeoutExpired:
            status = None
        self._end_child()
        if status is None:
            return "the decoder process closed its output and went on"
        self._stderr.seek(0)
        last = self._stderr.read()[-2000:].decode("utf-8", "replace").strip().splitlines()[-1:]
        said = f"; its last words: {last[0]}" if last else ""
        if status < 0:
            return f"the decoder process was ended by {signal.Signals(-status).name}{said}"
        return f"the decoder process ended with status {status}{said}"


class _Hang(Exception):
    """A decoder that is over one of its time limits."""


class _Wire:
    """The parent's end of the pipes to one child, with the clock that finds hangs."""

    def __init__(
        self, child: subprocess.Popen[bytes], policy: DecoderPolicy, size_bytes: int
    ) -> None:
        assert child.stdin is not None and child.stdout is not None
        self._in, self._out = child.stdin, child.stdout.fileno()
        self._silence_s, self._limit_s = policy.timeout_s, policy.time_limit_s(size_bytes)
        self._waited_s = 0.0
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN | select.POLLHUP)

    def send(self, job: dict[str, Any]) -> None:
        self._in.write(json.dumps(job).encode() + b"\n")
        self._in.flush()

    def receive(self) -> tuple[bytes, bytearray]:
        """Return the next message; raises _Hang, or EOFError when the child is gone."""
        kind, length = HEADER.unpack(self._read(HEADER.size))
        return kind, self._read(length)

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
            raise _Hang(f"not done after {self._limit_s:.0f} s, the limit for a clip of its size")
        if not ready:
            raise _Hang(f"no sign of life for {self._silence_s:.0f} s")


def _frame(clip: int, payload: bytearray, size: int) -> Frame:
    (token,) = TOKEN.unpack_from(payload)
    rgb = np.frombuffer(payload, dtype=np.uint8, offset=TOKEN.size)
    return Frame(clip, token, rgb.reshape(size, size, 3))


def _spawn(memory_bytes: int, stderr: Any) -> subprocess.Popen[bytes]:
    """Start a decoder process that imports this very copy of the package, wherever we stand."""
    root = str(Path(__file__).resolve().parent.parent)
    code = (
        f"import sys; sys.path[0] = {root!r}; "
        f"from features.decoder_child import main; main({os.getpid()}, {memory_bytes})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
    )
