"""Ctrl-C, SIGTERM, SIGHUP: end in seconds, with nothing half done and no process left.

What works in steps notes the first signal and ends by itself (`stop_on_signals`); what waits for
others, as a job's client does, is ended from beside it (`end_on_signals`).
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_SIGNAL_S = 1.0
_KEPT_ALIVE = contextvars.ContextVar("kept_alive", default=False)


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

    TensorFlow takes SIGTERM for itself while it joins a cluster, and would lose one that came then.
    Only a process with no thread from before is sure of it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextlib.contextmanager
def kept_alive() -> Iterator[None]:
    """While inside, Ctrl-C ends what is being done, and not this process: it is a user's own."""
    token = _KEPT_ALIVE.set(True)
    try:
        yield
    finally:
        _KEPT_ALIVE.reset(token)


@contextlib.contextmanager
def end_on_signals(end: Callable[[], Iterable[str]]) -> Iterator[None]:
    """While inside, the first Ctrl-C, SIGTERM or SIGHUP runs `end`, tells on stderr what it yields
    and ends this process with 130, 143 or 129; another one, a second later or more, at once."""
    if _KEPT_ALIVE.get():
        with _end_on_interrupt(end):
            yield
        return
    # A copy: while TensorFlow is imported, standard error itself is held back.
    told = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    stopping: list[threading.Thread] = []
    impatient_s = math.inf

    def stop(number: int) -> None:
        try:
            print(f"\nframebank: stopping ({signal.Signals(number).name})", file=told, flush=True)
            for text in end():
                print(f"framebank: {text}", file=told, flush=True)
        finally:
            os._exit(128 + number)

    def on_signal(number: int, frame: object) -> None:
        nonlocal impatient_s
        if time.monotonic() > impatient_s:
            os._exit(128 + number)
        if stopping:  # timeout(1) and service managers signal a process and its group, both at once
            return
        impatient_s = time.monotonic() + _SAME_SIGNAL_S
        # In a thread of its own: the main thread may be inside what `end` has to wait for.
        stopping.append(threading.Thread(target=stop, args=(number,), daemon=True))
        stopping[0].start()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (*_SIGNALS, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:  # nohup
                continue
            before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        if stopping:  # what the main thread has met since then comes from the stopping itself
            stopping[0].join()
        for number, handler in before.items():
            signal.signal(number, handler)
        told.close()


@contextlib.contextmanager
def _end_on_interrupt(end: Callable[[], Iterable[str]]) -> Iterator[None]:
    """While inside, Ctrl-C runs `end` and is a KeyboardInterrupt, whatever libraries make of it."""
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, note) if main else None
    try:
        yield
    except BaseException as error:
        if not noted and not isinstance(error, KeyboardInterrupt):
            raise
        for text in end():
            print(f"framebank: {text}", file=sys.stderr, flush=True)
        raise KeyboardInterrupt from error
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
