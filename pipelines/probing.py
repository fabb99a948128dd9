"""Probes many clips in processes of their own, with a clock that finds hangs.

A clip that hangs or kills its process costs its own probe and no more, as in extraction. What a
probe is and finds: `pipelines/probe_child.py`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from features import json_text, storage
from features.errors import JobError
from features.temporary import live_folder
from features.video import VideoRef
from pipelines.probe_child import Probe, Question

_CLIP_S = 15.0  # a clip on disk that is silent for so long hangs
_STAGED_BYTES_PER_S = 2**20  # and one in a bucket may take this much longer

_Results = queue.Queue[tuple[VideoRef, Probe] | BaseException | None]


def probe_all(
    refs: Sequence[VideoRef],
    question: Question,
    *,
    deadline_s: float,
    decode_s: Callable[[int], float],
    processes: int = max(1, min(8, os.cpu_count() or 1)),
) -> Iterator[tuple[VideoRef, Probe]]:
    """Yield each clip with its probe as they come, until `deadline_s` (of time.monotonic).

    What is not begun by then is not probed. `decode_s` says for the n-th clip how many seconds of
    decoding it may have. Raises JobError for a fault of this machine.
    """
    results: _Results = queue.Queue()
    waiting = iter(list(enumerate(refs)))
    lock, stop = threading.Lock(), threading.Event()

    def take() -> tuple[int, VideoRef] | None:
        with lock:
            over = stop.is_set() or time.monotonic() > deadline_s
            return None if over else next(waiting, None)

    with live_folder() as staging:
        children = [_Child(question, staging.path) for _ in range(processes)]
        threads = [
            threading.Thread(target=_work, args=(c, take, decode_s, results), daemon=True)
            for c in children
        ]
        for thread in threads:
            thread.start()
        working = len(threads)
        try:
            while working:
                result = results.get()
                if result is None:
                    working -= 1
                elif isinstance(result, BaseException):
                    raise result
                else:
                    yield result
        finally:
            stop.set()
            for child in children:
                child.kill()  # whoever waits for it stops waiting
            for thread in threads:
                thread.join(timeout=5)


def _work(
    child: _Child,
    take: Callable[[], tuple[int, VideoRef] | None],
    decode_s: Callable[[int], float],
    results: _Results,
) -> None:
    """Probe what `take` gives; the kernel ends a child with the thread that made it, so each thread
    keeps its own."""
    try:
        while (taken := take()) is not None:
            number, ref = taken
            results.put((ref, child.ask(ref, decode_s(number))))
    except BaseException as error:  # noqa: BLE001 - handed to whoever reads the results
        results.put(error)
    finally:
        child.end()
        results.put(None)


class _Child:
    """One probing process at a time; a new one after each that had to be ended."""

    def __init__(self, question: Question, staging: str) -> None:
        self._question, self._staging = question, staging
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, ref: VideoRef, decode_s: float) -> Probe:
        """Return the probe of a clip; one that hangs or kills the process is one for quarantine."""
        job = {"uri": ref.uri, "staging": self._staging, "decode_s": decode_s}
        limit_s = _CLIP_S + decode_s
        if not storage.is_local(ref.uri):
            limit_s += max(0, ref.size_bytes) / _STAGED_BYTES_PER_S
        process = self._ready()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            line = _read_line(process.stdout.fileno(), time.monotonic() + limit_s)
        except TimeoutError:
            self.end()
            return Probe(error_class="hang")
        except (EOFError, OSError):
            self.end()
            return Probe(error_class="crash")
        fields = json_text.parse(line)
        if "fault" in fields:
            raise JobError(**fields["fault"])
        return Probe(**fields)

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            root = str(Path(__file__).resolve().parent.parent)
            question = json.dumps(dataclasses.asdict(self._question))
            code = (
                f"import sys; sys.path[0] = {root!r}; "
                f"from pipelines.probe_child import main; main({os.getpid()}, {question!r})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        return self._process

    def kill(self) -> None:
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _read_line(descriptor: int, deadline_s: float) -> bytes:
    """Return what comes up to the end of a line; raises TimeoutError, EOFError."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    data = b""
    while not data.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            raise EOFError
        data += chunk
    return data
