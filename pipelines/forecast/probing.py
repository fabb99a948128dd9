"""Probes many clips in processes of their own, with a clock that finds hangs.

A clip that hangs or kills its process costs its own probe and no more, as in extraction, and the
processes are shut in as decoders are. What a probe is and finds:
`pipelines/forecast/probe_child.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from framebank.features.decoders.launch import ConfinedProcess, OpeningHangs, opened_clip
from framebank.features.errors import ERROR_CLASSES, FramebankError, JobError, VideoRejected
from framebank.features.memory import share_memory
from framebank.features.stores import json_text, storage
from framebank.features.stores.temporary import live_folder
from framebank.features.video import VideoRef
from framebank.pipelines.forecast.probe_child import Probe, Question

_CLIP_S = 15.0  # a clip on disk that is silent for so long hangs
_STAGED_BYTES_PER_S = 2**20  # and one in a bucket may take this much longer
_CHUNK_BYTES = 1 << 20
_ANSWER_BYTES = 1 << 16

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
    if question.memory_bytes is None:
        share = share_memory(processes).decoder_bytes
        question = dataclasses.replace(question, memory_bytes=share)
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
        self._process: ConfinedProcess | None = None

    def ask(self, ref: VideoRef, decode_s: float) -> Probe:
        """Return the probe of a clip; one that hangs or kills the process is one for quarantine."""
        try:
            with (
                self._local(ref) as path,
                opened_clip(path, self._question.limits, timeout_s=_CLIP_S) as clip,
            ):
                process = self._ready()
                process.send({"decode_s": decode_s}, clip)
                return _probe_of(_read_line(process.output, time.monotonic() + _CLIP_S + decode_s))
        except VideoRejected as bad:
            return Probe(error_class=bad.error_class)
        except (TimeoutError, OpeningHangs):
            self.end()
            return Probe(error_class="hang")
        except (EOFError, OSError, ValueError):  # it died, or says what no probe says
            self.end()
            return Probe(error_class="crash")
        except JobError:  # of this machine
            raise
        except storage.FileMissingError:
            return Probe(error_class="missing")
        except FramebankError:
            return Probe(error_class="unreadable")

    @contextlib.contextmanager
    def _local(self, ref: VideoRef) -> Iterator[str]:
        """Yield a local path of a clip; an object of a bucket is copied and removed again.

        Raises TimeoutError for one that takes too long.
        """
        if storage.is_local(ref.uri):
            yield storage.local_path(ref.uri)
            return
        limit_s = time.monotonic() + _CLIP_S + max(0, ref.size_bytes) / _STAGED_BYTES_PER_S
        path = os.path.join(self._staging, f"probe-{threading.get_ident()}")
        try:
            with storage.open_read(ref.uri) as source, open(path, "wb") as copy:
                while chunk := source.read(_CHUNK_BYTES):
                    copy.write(chunk)
                    if time.monotonic() > limit_s:
                        raise TimeoutError
        except TimeoutError:
            raise
        except OSError as error:
            raise storage.storage_error(path, error, "write") from error
        try:
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _ready(self) -> ConfinedProcess:
        if self._process is None:
            question = json.dumps(dataclasses.asdict(self._question))
            self._process = ConfinedProcess(
                "framebank.pipelines.forecast.probe_child",
                f"main({os.getpid()}, {question!r})",
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def kill(self) -> None:
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


def _probe_of(line: bytes) -> Probe:
    """Return the probe that a process answered; raises ValueError for what none of ours says."""
    fields = json_text.parse_object(line)
    if not _is_sound(fields):
        raise ValueError("no probe")
    return Probe(**fields)


def _is_sound(fields: dict[str, Any]) -> bool:
    """Tell whether every field is one of a probe, of its type and not negative."""
    for field in dataclasses.fields(Probe):
        value = fields.get(field.name, field.default)
        if field.type == "str":
            sound = isinstance(value, str) and value.isprintable()
        elif field.type == "bool":
            sound = isinstance(value, bool)
        elif field.type == "int":
            sound = type(value) is int and 0 <= value < 2**63
        else:
            sound = value is None or (isinstance(value, int | float) and 0 <= value < float("inf"))
        if not sound:
            return False
    names = {field.name for field in dataclasses.fields(Probe)}
    return fields.keys() <= names and fields.get("error_class", "") in ("", *ERROR_CLASSES)


def _read_line(descriptor: int, deadline_s: float) -> bytes:
    """Return what comes up to the end of a line; raises TimeoutError, EOFError, ValueError."""
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
        if len(data) > _ANSWER_BYTES:
            raise ValueError("an answer without an end")
    return data
