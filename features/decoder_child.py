"""The decoder process: reads jobs on stdin, decodes one clip at a time, sends frames on stdout.

Why a process: FFmpeg reads bytes that strangers made. A decoder that never returns or dies takes
its process with it and nothing else; `features/decoder_pool.py` is the other side. Here no
TensorFlow is imported, so that a fresh process is ready in a fraction of a second.

Wire format, from the child: one byte of kind, four bytes of length (little-endian), the payload.
`F` a frame (8 bytes of token, then uint8[size, size, 3]), `B` a beat (nothing), `D` done (JSON),
`R` rejected (JSON). To the child: one JSON document a line. End of input ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from features import container, decode
from features.errors import VideoRejected

HEADER = struct.Struct("<cI")
TOKEN = struct.Struct("<q")
BEAT_EVERY_S = 0.5
_CHUNK_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent_pid: int, memory_bytes: int) -> None:
    """Serve jobs until stdin ends; `parent_pid` is whose death ends this process."""
    die_with_parent(parent_pid)
    limit_memory(memory_bytes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent acts
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a stray print must not reach the wire
    jobs: list[str] = []
    ready = threading.Condition()
    threading.Thread(target=_read_jobs, args=(jobs, ready), daemon=True).start()
    while True:
        with ready:
            ready.wait_for(lambda: bool(jobs))
            job = json.loads(jobs.pop(0))
        _serve(job, _Sender(out))


class _Sender:
    """Writes messages to the wire; beats are sent at most every BEAT_EVERY_S."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._last_beat = time.monotonic()

    def frame(self, token: int, rgb: NDArray[np.uint8]) -> None:
        self._send(b"F", TOKEN.pack(token), np.ascontiguousarray(rgb).data.cast("B"))

    def beat(self, frames: int = 0) -> None:
        del frames  # what counts is that there is a sign of life
        now = time.monotonic()
        if now - self._last_beat >= BEAT_EVERY_S:
            self._last_beat = now
            self._send(b"B")

    def document(self, kind: bytes, fields: dict[str, Any]) -> None:
        self._send(kind, json.dumps(fields).encode())

    def _send(self, kind: bytes, *parts: bytes | memoryview) -> None:
        self._write(HEADER.pack(kind, sum(len(part) for part in parts)))
        for part in parts:
            self._write(part)

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]


def _serve(job: dict[str, Any], sender: _Sender) -> None:
    """Decode one clip; every way it can end is one closing message."""
    limits = container.DecodeLimits(**job.pop("limits"))
    path, size_bytes, generation = job.pop("path"), job.pop("size_bytes"), job.pop("generation")
    try:
        request = decode.DecodeRequest(path=path, limits=limits, **job)
        result = decode.decode_video(request, emit_frame=sender.frame, beat=sender.beat)
        sha256 = _hash(path, limits, sender.beat)  # last: a terabyte of no video is not read
        _check_unchanged(path, size_bytes, generation)
    except VideoRejected as bad:
        sender.document(
            b"R", {"stage": bad.stage, "error_class": bad.error_class, "message": bad.message}
        )
    except MemoryError as error:
        text = f"decoding needs more memory than a decoder may take ({error or 'out of memory'})"
        sender.document(b"R", {"stage": "decode", "error_class": "too_large", "message": text})
    except Exception as error:  # noqa: BLE001 - a bad record becomes a quarantined one
        text = f"{type(error).__name__}: {error}"
        sender.document(b"R", {"stage": "decode", "error_class": "corrupt", "message": text})
    else:
        sender.document(b"D", _result_fields(result, sha256))


def _result_fields(result: decode.DecodeResult, sha256: str) -> dict[str, Any]:
    return {
        "tokens": result.tokens.tolist(),
        "frame_index": result.frame_index.tolist(),
        "pts_ms": result.pts_ms.tolist(),
        "source": dataclasses.asdict(result.source),
        "partial": result.partial,
        "decode_errors": result.decode_errors,
        "capped": result.capped,
        "sha256": sha256,
    }


def _check_unchanged(path: str, size_bytes: int, generation: str) -> None:
    """Raise VideoRejected for a clip that is no longer the one that was listed.

    Its features would stand under the key of bytes that they are not of. Without a generation it
    is a copy of our own.
    """
    if not generation:
        return
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if (status.st_size, str(status.st_mtime_ns)) == (size_bytes, generation):
            return
    message = f"{path} changed or went away while the job ran; the next run takes it afresh"
    raise VideoRejected("open", "unreadable", message)


def _hash(path: str, limits: container.DecodeLimits, beat: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with container.open_file(path, limits) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            beat(0)
    return digest.hexdigest()


def _read_jobs(jobs: list[str], ready: threading.Condition) -> None:
    """Take jobs as they come; when the parent closes its end, leave at once."""
    for line in sys.stdin:
        with ready:
            jobs.append(line)
            ready.notify()
    os._exit(0)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to end this process with its parent, stopped or not.

    The end of stdin says the same, but nobody reads it in a process that is stopped (SIGSTOP).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(0)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # short of memory, the kernel takes a decoder, not the job


def limit_memory(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes > 0:
        _, most = resource.getrlimit(resource.RLIMIT_AS)  # of the worker itself: `ulimit -v`
        bound = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
