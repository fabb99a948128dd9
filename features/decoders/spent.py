"""What the decoders of a pool do with their time, summed over them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Spent:
    """Seconds of `decoders` decoders in one run of a pool: at work on clips (`decode_s`), waiting
    until somebody takes the frames they have (`room_s`), waiting for a clip (`fetch_s`)."""

    def __init__(self, decoders: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.decoders = decoders
        self._clock, self._lock = clock, threading.Lock()
        self.start()

    def start(self) -> None:
        """Count from now on, also of what is under way."""
        with self._lock:
            self.decode_s, self.room_s, self.fetch_s = 0.0, 0.0, 0.0
            self._start_s = self._clock()

    def _since(self, begun_s: float) -> float:
        return max(0.0, self._clock() - max(begun_s, self._start_s))

    @contextlib.contextmanager
    def fetching(self) -> Iterator[None]:
        begun_s = self._clock()
        yield
        self._add(fetch_s=self._since(begun_s))

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        begun_s = self._clock()
        try:
            yield
        finally:
            self._add(decode_s=self._since(begun_s))

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A wait for room while `decoding`, which is no work."""
        begun_s = self._clock()
        yield
        waited_s = self._since(begun_s)
        self._add(room_s=waited_s, decode_s=-waited_s)

    def _add(self, *, decode_s: float = 0.0, room_s: float = 0.0, fetch_s: float = 0.0) -> None:
        with self._lock:
            self.decode_s += decode_s
            self.room_s += room_s
            self.fetch_s += fetch_s
