"""Ctrl-C, SIGTERM, SIGHUP: end in seconds, with nothing half done and no process left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator

from pipelines import cache_access, shard

_WAIT_S = 5.0  # for a commit that is under way


@contextlib.contextmanager
def stopping_well(cache: str, run_id: str, *, progress_folder: str) -> Iterator[None]:
    """While inside, the first Ctrl-C, SIGTERM or SIGHUP stops the job and ends this process.

    The status is 130, 143 or 129. The plan files of the run are removed on every way out.
    """

    def on_signal(number: int, frame: object) -> None:
        # In a thread of its own: the main thread may be inside the commit that is waited for.
        args = (number, cache, run_id, progress_folder)
        threading.Thread(target=_stop, args=args, daemon=True).start()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:  # nohup
                continue
            before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        cache_access.remove_plan(cache, run_id)
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, cache: str, run_id: str, progress_folder: str) -> None:
    try:
        print(f"\nframebank: stopping ({signal.Signals(number).name})", file=sys.stderr, flush=True)
        shard.stop(wait_s=_WAIT_S)
        cache_access.remove_plan(cache, run_id)
        shutil.rmtree(progress_folder, ignore_errors=True)
        print(
            "framebank: stopped; what was committed is kept. "
            "Run the same command again to go on from there.",
            file=sys.stderr,
            flush=True,
        )
    finally:
        os._exit(128 + number)
