"""One engine for whoever asks: clips come at any time, from any thread, and are mixed in batches.

A server has many clips in hand at a time. With a run of the engine for each they would wait for one
another, and every last batch would be computed half empty; here all of them are one run that does
not end, whose batches have frames of whichever clips are there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from framebank.features.errors import FramebankError, JobError
from framebank.features.extraction.engine import Engine, Result
from framebank.features.video import VideoRef

Results = list[Result | None]  # by number of the network, None where it was not asked


@dataclasses.dataclass
class _Wish:
    """What was asked of a clip, and what has come of it."""

    refs: Sequence[VideoRef | None]
    found: Results
    outcome: Future[Results]
    name: str

    @property
    def is_whole(self) -> bool:
        pairs = zip(self.refs, self.found, strict=True)
        return all((ref is None) == (result is None) for ref, result in pairs)


_Queue = queue.SimpleQueue[_Wish | None]


class LiveEngine:
    """An engine in a thread of its own. One that fails fails what it has in hand, and the next clip
    gets another; any thread may submit clips."""

    def __init__(self, build: Callable[[], Engine]) -> None:
        """`build` makes the engine, whose networks stay the same; raises what that raises."""
        self._build = build
        self._engine = build()
        self._todo: _Queue = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._in_hand: dict[str, _Wish] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="live-engine", daemon=True)
        self._thread.start()

    def submit(self, ref: VideoRef, networks: Sequence[bool]) -> Future[Results]:
        """Have the networks that `networks` marks look at a clip; its outcome has a result for each
        of them, or the JobError that this machine is the reason of. Cancelled in time, the clip is
        not begun. The results have an id of this engine's instead of the clip's."""
        named = dataclasses.replace(ref, video_id=str(next(self._numbers)))
        refs = [named if is_asked else None for is_asked in networks]
        wish = _Wish(refs, [None] * len(refs), Future(), named.video_id)
        with self._lock:
            if self._closed:
                raise JobError("this engine is closed")
            self._todo.put(wish)
        return wish.outcome

    def close(self) -> None:
        """End the decoder processes; what is in hand fails."""
        with self._lock:
            self._closed = True
            self._todo.put(None)
        self._engine.close()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            error: Exception = JobError("the engine was closed")
            try:
                for number, result in self._engine.run_all(self._refs(self._todo), hurried=True):
                    self._deliver(number, result)
            except Exception as failure:  # noqa: BLE001 - told to whoever waits
                error = failure
            self._engine.close()
            is_closed = self._leave_run()
            self._fail(error)
            if is_closed:
                break
            self._engine = self._build_again()
        with contextlib.suppress(queue.Empty):
            while wish := self._todo.get_nowait():
                if wish.outcome.set_running_or_notify_cancel():
                    wish.outcome.set_exception(error)

    def _leave_run(self) -> bool:
        """End the clips of a run that has ended, and keep those that it had not taken for the next
        one; return whether there is none."""
        with self._lock:
            ended, self._todo = self._todo, queue.SimpleQueue()
            with contextlib.suppress(queue.Empty):
                while wish := ended.get_nowait():
                    self._todo.put(wish)
            ended.put(None)  # a thread of that run may be waiting for its next clip
            return self._closed

    def _build_again(self) -> Engine:
        """Return another engine for the next clip, which waits for it."""
        while True:
            with contextlib.suppress(FramebankError, OSError, MemoryError):
                return self._build()
            time.sleep(1.0)

    def _refs(self, todo: _Queue) -> Iterator[Sequence[VideoRef | None]]:
        """Yield what is submitted, until the run of `todo` is over."""
        for wish in iter(todo.get, None):
            with self._lock:
                if todo is not self._todo:  # taken by a run that has failed meanwhile
                    self._todo.put(wish)
                    return
                if not wish.outcome.set_running_or_notify_cancel():
                    continue
                self._in_hand[wish.name] = wish
            yield wish.refs

    def _deliver(self, number: int, result: Result) -> None:
        name = result.ref.video_id
        with self._lock:
            wish = self._in_hand[name]
            wish.found[number] = result
            is_whole = wish.is_whole
            if is_whole:
                del self._in_hand[name]
        if is_whole:
            wish.outcome.set_result(wish.found)

    def _fail(self, error: Exception) -> None:
        with self._lock:
            wishes, self._in_hand = list(self._in_hand.values()), {}
        for wish in wishes:
            wish.outcome.set_exception(error)
