"""One extraction engine for each worker process: all its slots take turns, a shard at a time.

Runners have several instances of a DoFn in the threads of one process (Flink: one for each slot).
With an engine each, memory and decoders would be multiplied by the slots, and a worker that dies
would cost a shard for each slot instead of one. One engine keeps all cores busy by itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator

from framebank.features.extraction.engine import Engine


class SharedEngine:
    """An engine that is built when it is first needed and closed when its last user leaves."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._users = 0
        self._engine: Engine | None = None
        self._made_for: Hashable = None

    def join(self) -> None:
        """Count one more user."""
        with self._counting:
            self._users += 1

    def leave(self) -> None:
        """Count one user less; the last one ends the decoder processes."""
        with self._counting:
            self._users -= 1
            if self._users:
                return
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    @contextlib.contextmanager
    def turn(self, job: Hashable, build: Callable[[], Engine]) -> Iterator[Engine]:
        """Yield the engine to one thread at a time; `build` makes it for the first of a job.

        After an exception it is closed: its decoders may still be at the clips of that shard.
        """
        with self._turn:
            if self._made_for != job:
                self._close()
            if self._engine is None:
                self._engine, self._made_for = build(), job
            try:
                yield self._engine
            except BaseException:
                self._close()
                raise
