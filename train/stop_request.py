"""Stopping politely: the first Ctrl-C or SIGTERM is noted, and the loop saves before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingStopped(Exception):
    """The user asked to stop; what was done is saved. `exit_status` is 128 + the signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_status = 128 + signal_number


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals; again after TensorFlow joined a cluster, as it takes SIGTERM then."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        if not self._before:
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def restore(self) -> None:
        """Let signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self.restore()

    def check(self) -> None:
        """Raise TrainingStopped when a stop was asked for."""
        if self.signal_number is not None:
            raise TrainingStopped(self.signal_number)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first signal in the StopRequest; a second one acts as it did before."""
    request = StopRequest()
    request.listen()
    try:
        yield request
    finally:
        request.restore()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let signals wait meanwhile, in this thread and for good in those that are started.

    While TensorFlow joins a cluster it takes SIGTERM for itself, and one that came then would be
    lost. Only a process with no thread from before, as a local worker's, is sure of it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
