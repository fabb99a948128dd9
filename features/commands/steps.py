"""Commands that are made of other commands: each step is the very command that one would type.

The floors of the house do not import each other, so what needs an extraction and a training runs
both as processes, shows what they say, and passes on the signals that end it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from framebank.features import processes, terminal
from framebank.features.commands import ending
from framebank.features.errors import JobError
from framebank.features.stores import json_text


class Steps:
    """Runs the commands one after another, showing what each says, and keeps their times."""

    def __init__(self, who: str) -> None:
        """`who` is the command that they are steps of."""
        self._who, self._say = who, functools.partial(terminal.say, who=who)
        self.seconds: dict[str, float] = {}
        self.typed: list[str] = []

    def run(self, name: str, words: list[str]) -> dict[str, Any]:
        """Run `framebank WORDS` and return the JSON that it prints.

        Raises JobError with its exit status when it fails; its own message is on stderr by then.
        """
        typed = "framebank " + shlex.join(word for word in words if word != "--json")
        self.typed.append(typed)
        self._say(f"$ {typed}")
        started = time.monotonic()
        # Killed, this process must not leave one that goes on writing: the next run meets its lock.
        program = [sys.executable, "-SEP", processes.__file__, str(os.getpid())]
        command = [*program, sys.executable, "-m", "framebank", *words]
        with (
            subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env=os.environ | {ending.STEP: "1"}
            ) as process,
            _passing_on_sigterm(process),
        ):
            try:
                printed, _ = process.communicate()
            except KeyboardInterrupt:
                # The terminal has told the child too; it saves what it has.
                process.wait()
                raise
        self.seconds[name] = time.monotonic() - started
        if process.returncode != 0:
            status = process.returncode
            failed = JobError(
                f"the {self._who} ended in its step {name!r}, whose message is above",
                got=f"`{typed}` ended with {status}",
                todo="fix that and give the same command again: it goes on from there",
            )
            failed.exit_status = status if status > 0 else 128 - status
            raise failed
        try:
            return dict(json_text.parse(printed))
        except ValueError as err:
            raise JobError(f"`{typed}` printed no JSON", got=printed[:300]) from err


@contextlib.contextmanager
def _passing_on_sigterm(process: subprocess.Popen[str]) -> Iterator[None]:
    """Tell the child when this process is told to end; its exit status then ends this one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
