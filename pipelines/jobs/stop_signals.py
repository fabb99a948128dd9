"""Ctrl-C, SIGTERM, SIGHUP: end in seconds, with nothing half done and no process left."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

_SAME_SIGNAL_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stopping_well(end: Callable[[], Iterable[str]]) -> Iterator[None]:
    """While inside, the first Ctrl-C, SIGTERM or SIGHUP runs `end` and ends this process.

    What `end` yields is told on stderr. The status is 130, 143 or 129. Another signal, a second
    after the first or later, ends the process at once.
    """
    # A copy: while TensorFlow is imported, standard error itself is held back.
    told = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    stopping: list[threading.Thread] = []
    impatient_s = math.inf

    def on_signal(number: int, frame: object) -> None:
        nonlocal impatient_s
        if time.monotonic() > impatient_s:
            os._exit(128 + number)
        if stopping:  # timeout(1) and service managers signal a process and its group, both at once
            return
        impatient_s = time.monotonic() + _SAME_SIGNAL_S
        # In a thread of its own: the main thread may be inside what `end` has to wait for.
        stopping.append(threading.Thread(target=_stop, args=(number, end, told), daemon=True))
        stopping[0].start()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
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


def _stop(number: int, end: Callable[[], Iterable[str]], told: TextIO) -> None:
    try:
        print(f"\nframebank: stopping ({signal.Signals(number).name})", file=told, flush=True)
        for text in end():
            print(f"framebank: {text}", file=told, flush=True)
    finally:
        os._exit(128 + number)
