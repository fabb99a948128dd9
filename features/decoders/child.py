"""The decoder process: takes jobs on stdin, and decodes or probes one clip at a time.

One that never returns, dies or is taken over takes nothing else with it: infra/decisions/0009. Here
no TensorFlow is imported, so that a fresh process is ready in a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders import sandbox
from framebank.features.decoders.wire import HEADER, TOKEN, Message
from framebank.features.decoding import container, decode
from framebank.features.decoding.probe import probe_clip
from framebank.features.errors import VideoRejected, internal_rejection
from framebank.features.processes import end_with_parent
from framebank.features.stores import json_text

BEAT_EVERY_S = 0.5
_JOB_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_DAMAGE = ("corrupt", "truncated", "no_frames", "unsupported_codec", "internal")
_COLLECT_EVERY = 16  # frames that are sent
_NEAR_LIMIT = 0.8  # of its memory: what a decoder that failed had, if that was why


def main(parent_pid: int, memory_bytes: int) -> None:
    """Serve jobs until stdin ends; `parent_pid` is whose death ends this process."""
    # The end of stdin says it too, but nobody reads it in a process that is stopped (SIGSTOP).
    end_with_parent(parent_pid)
    if sys.platform == "linux":
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # short of memory, the kernel takes a decoder, not the job
    if memory_bytes > 0:
        sandbox.lower_limit(resource.RLIMIT_AS, memory_bytes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent acts
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not reach the wire
    memory = _OwnMemory()
    confinement = sandbox.enter()  # before there is a second thread
    _Sender(out).document(Message.CONFINED, confinement.to_json())
    # A frame whose side data was asked for is in a circle with it, which only the collector frees:
    # by its own pace that was two hundred frames.
    gc.freeze()
    gc.set_threshold(64, 2, 2)
    jobs: queue.SimpleQueue[tuple[dict[str, Any], int]] = queue.SimpleQueue()
    threading.Thread(target=_take_jobs, args=(jobs,), daemon=True).start()
    while True:
        job, clip = jobs.get()
        _serve(job, clip, _Sender(out), memory)
        os.close(clip)


class _Sender:
    """Writes messages to the wire; beats are sent at most every BEAT_EVERY_S."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._last_beat = time.monotonic()
        self._last: tuple[NDArray[np.uint8], ...] = ()
        self._frames = 0

    def frame(self, token: int, *pictures: NDArray[np.uint8]) -> None:
        """Send pictures; of the arrays that were sent last only that they are the same."""
        self._frames += 1
        if not self._frames % _COLLECT_EVERY:
            gc.collect()  # frames that waited for the next one are old by the collector's count
        if self._last and all(rgb is last for rgb, last in zip(pictures, self._last, strict=True)):
            self.send(Message.SAME, TOKEN.pack(token))
            return
        self._last = pictures
        data = (np.ascontiguousarray(rgb).data.cast("B") for rgb in pictures)
        self.send(Message.FRAME, TOKEN.pack(token), *data)

    def again(self) -> None:
        """Take back the pictures of this clip, of which all follow anew."""
        self._last = ()
        self.send(Message.AGAIN)

    def beat(self, frames: int = 0) -> None:
        del frames  # what counts is that there is a sign of life
        now = time.monotonic()
        if now - self._last_beat >= BEAT_EVERY_S:
            self._last_beat = now
            self.send(Message.BEAT)

    def document(self, kind: Message, fields: dict[str, Any]) -> None:
        self.send(kind, json.dumps(fields).encode())

    def send(self, kind: Message, *parts: bytes | memoryview) -> None:
        self._out.write(HEADER.pack(kind, sum(len(part) for part in parts)))
        for part in parts:
            self._out.write(part)
        self._out.flush()


def _serve(job: dict[str, Any], clip: int, sender: _Sender, memory: _OwnMemory) -> None:
    """Decode or probe one clip; every way it can end is one closing message.

    `probe_s` of a job are the processor seconds of decoding that a probe may take, `share` (k, n)
    which share of a film to decode, `cut` (n, pixels) into how many it is cut from so many pixels
    to decode on; a film that is `ahead` is planned, for the share of it that will come.
    """
    fields: dict[str, Any] | None = None
    try:
        names = ("probe_s", "share", "cut", "ahead", "limits")
        probe_s, share, cut, ahead, limits = (job.pop(name) for name in names)
        limits = container.DecodeLimits(**limits)
        request = decode.DecodeRequest(path=clip, limits=limits, **job)
        if probe_s is not None:
            probe = probe_clip(request, decode_s=probe_s)
            kind, fields = Message.PROBED, dataclasses.asdict(probe)
        elif ahead:
            decode.plan_film(request, beat=sender.beat)
            kind = Message.PLANNED
        elif share is not None and share[0]:
            decode.decode_share(request, share, emit_frame=sender.frame, beat=sender.beat)
            kind = Message.SHARED
        else:
            kind, fields = Message.DONE, _decode(request, sender, share, cut)
    except decode.Doubt:  # in a film that is cut: the parent gathers it in
        kind = Message.DOUBTED
    except Exception as error:  # noqa: BLE001 - a bad record becomes a quarantined one
        bad = memory.explain(rejection_of(error))
        kind = Message.REJECTED
        fields = {"stage": bad.stage, "error_class": bad.error_class, "message": bad.message}
    if memory.is_short:
        sender.send(Message.WORN)
    if fields is None:
        sender.send(kind)
    else:
        sender.document(kind, fields)


def _decode(
    request: decode.DecodeRequest,
    sender: _Sender,
    share: tuple[int, int] | None,
    most: tuple[int, int],
) -> dict[str, Any]:
    """Decode a clip, or the first share of a film; raises Doubt of a film that is cut."""

    def cut(work_pixels: int) -> int:
        most_shares, least_pixels = most
        if most_shares == 1 or work_pixels < least_pixels:
            return 1
        sender.send(Message.CUT, TOKEN.pack(most_shares))
        return most_shares

    emit, beat = sender.frame, sender.beat
    if share is not None:
        result = decode.decode_share(request, share, emit_frame=emit, beat=beat)
    else:
        result = decode.decode_video(
            request, emit_frame=emit, beat=beat, restart=sender.again, cut=cut
        )
    lists = {name: getattr(result, name).tolist() for name in ("tokens", "frame_index", "pts_ms")}
    digest = hashlib.sha256()
    with container.open_file(request.path, request.limits) as file:
        while chunk := file.read(_CHUNK_BYTES):  # last: a terabyte of no video is not read
            digest.update(chunk)
            sender.beat()
    return dataclasses.asdict(result) | lists | {"sha256": digest.hexdigest()}


def rejection_of(error: Exception) -> VideoRejected:
    """Return the verdict on a clip whose decoding raised `error`."""
    if isinstance(error, VideoRejected):
        return error
    if isinstance(error, MemoryError):
        text = f"decoding needs more memory than a decoder may take ({error or 'out of memory'})"
        return VideoRejected("decode", "too_large", text)
    if isinstance(error, av.FFmpegError):
        return VideoRejected("decode", "corrupt", f"{type(error).__name__}: {error}")
    if isinstance(error, OSError):
        return VideoRejected("decode", "unreadable", f"reading failed: {error}")
    return internal_rejection("decode", error)


class _OwnMemory:
    """How much address space this process had at most; to be made while it may open files.

    That never falls, so whoever came near the limit decodes no other clip: it would be blamed.
    """

    def __init__(self) -> None:
        try:
            self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no such file system here
            self._status = -1

    def explain(self, bad: VideoRejected) -> VideoRejected:
        """Return the verdict, or `too_large` where the decoder may have run out of memory.

        FFmpeg calls a picture that it has no memory for damaged, in one of many ways.
        """
        if bad.error_class not in _DAMAGE or not self.is_short:
            return bad
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        text = (
            f"decoding took {self._peak_bytes() >> 20} of the {limit >> 20} MiB that a decoder may "
            f"take, and then failed: {bad.message}"
        )
        return VideoRejected("decode", "too_large", text)

    @property
    def is_short(self) -> bool:
        """Tell whether this process came near its limit."""
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        return limit != resource.RLIM_INFINITY and self._peak_bytes() >= _NEAR_LIMIT * limit

    def _peak_bytes(self) -> int:
        if self._status < 0:
            return 0
        text = os.pread(self._status, 1 << 14, 0).decode()
        return int(text.partition("VmPeak:")[2].split()[0]) * 1024


def read_jobs() -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each job and the descriptor of its clip as they come; end with the parent's end."""
    channel = socket.socket(fileno=os.dup(0))
    unread, clips = b"", []
    while True:
        text, more_clips, _, _ = socket.recv_fds(channel, _JOB_BYTES, 1)
        clips += more_clips
        unread += text
        while b"\n" in unread:
            line, _, unread = unread.partition(b"\n")
            yield json_text.parse_object(line), clips.pop(0)
        if not text:
            return


def _take_jobs(jobs: queue.SimpleQueue[tuple[dict[str, Any], int]]) -> None:
    """Take jobs as they come; when the parent closes its end, leave at once."""
    for job in read_jobs():
        jobs.put(job)
    os._exit(0)
