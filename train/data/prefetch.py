"""Makes batches ahead in a thread, and says how long each was waited for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_S = 0.2


class Prefetched(Generic[T]):
    """Iterates over what `make()` yields, made by a thread up to `depth` elements ahead.

    `waited_s` is how long the reader has waited in all. Use it as a context manager, or `close` it:
    leaving it early ends the thread.
    """

    def __init__(self, make: Callable[[], Iterator[T]], *, depth: int = 4) -> None:
        self.waited_s = 0.0
        self._queue: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make,), daemon=True)
        self._thread.start()

    def _work(self, make: Callable[[], Iterator[T]]) -> None:
        try:
            for element in make():
                if not self._put(("element", element)):
                    return
            self._put(("end", None))
        except BaseException as err:  # noqa: BLE001 - it is raised where the batches are read
            self._put(("error", err))

    def _put(self, item: tuple[str, T | BaseException | None]) -> bool:
        while not self._left.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            start = time.perf_counter()
            kind, element = self._queue.get()
            self.waited_s += time.perf_counter() - start
            if kind == "end":
                return
            if isinstance(element, BaseException):
                raise element
            yield element  # type: ignore[misc]

    def __enter__(self) -> Prefetched[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; what it made and nobody read is dropped."""
        self._left.set()
        self._thread.join()
