"""Kills parts of a running job at moments drawn from a seed, and finds what it left behind.

Every process of a job carries a mark in its environment, whoever started it: the submitter, its
decoders, a runner in Go or Java, SDK workers in a pool.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import ROOT
from tests.made import forked

_MARK = "FRAMEBANK_TEST_MARK"
# Words of a process's command line → what it is; the first that fits counts.
_KINDS = {
    "decoders.child": "decoder",
    "network_process": "network",
    "sdk_worker_main": "sdk_worker",
    "SdkHarness": "sdk_worker",  # as a worker pool starts it
    "worker_pool": "pool",
    "TaskManagerRunner": "runner",
    "SessionClusterEntrypoint": "manager",
    "prism": "runner",
    "framebank": "submitter",
}


class MarkedJob:
    """A family of processes with one mark; `environment` goes to whatever is started in it."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._mark = secrets.token_hex(8)
        self.environment = {**os.environ, **(environment or {}), _MARK: self._mark}
        self._submitters: list[forked.Forked] = []

    def start(
        self, command: Sequence[object], *, log: Path, cwd: Path = ROOT
    ) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to the file `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [str(word) for word in command],
                env=self.environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def framebank(self, *words: object, log: Path) -> forked.Forked:
        """Start the command `framebank` with these words."""
        with log.open("ab") as file:
            given = {"env": self.environment, "stdout": file, "stderr": forked.STDOUT}
            process = forked.start("-m", "framebank", *words, **given)
        self._submitters.append(process)
        return process

    def processes(self) -> dict[int, str]:
        """Return the live processes of this family: pid → kind."""
        needle = f"{_MARK}={self._mark}".encode()
        # A fork keeps the environment that its parent was started with, in the kernel's eyes.
        found = {one.pid: "submitter" for one in self._submitters if one.poll() is None}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if needle not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended meanwhile, or is another user's
                continue
            if words:  # a zombie has none
                found[int(folder.name)] = kind_of(words)
        return found

    def kill_one(self, kinds: Sequence[str], dice: random.Random) -> str | None:
        """SIGKILL one process of a random one of `kinds` that is there; return which kind."""
        there = self.processes()
        victims = sorted(pid for pid, kind in there.items() if kind in kinds)
        if not victims:
            return None
        kind = dice.choice(sorted({there[pid] for pid in victims}))
        victim = dice.choice([pid for pid in victims if there[pid] == kind])
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return kind

    def wait_until_gone(self, timeout_s: float, *, but: Sequence[str] = ()) -> dict[int, str]:
        """Wait for the end of all processes that are not of kind `but`; return who is left."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = {pid: kind for pid, kind in self.processes().items() if kind not in but}
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def kill_all(self) -> None:
        """End everything of this family."""
        for _ in range(3):  # a parent may have started another child meanwhile
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)


def kind_of(command: str) -> str:
    """Return what a process is, by its command line."""
    return next((kind for word, kind in _KINDS.items() if word in command), "other")
