"""A job server beside the submitter: started, waited for, and never left behind.

The kernel ends it when this process dies, however that happens; its output goes to a file, which is
shown when it fails and removed with the folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from framebank.features import processes
from framebank.features.errors import JobError
from framebank.pipelines.jobs.environments import answers

_START_S = 60.0
_STOP_S = 3.0
_TAIL_BYTES = 20_000


class JobServer:
    """A process that takes jobs at `endpoint` until `stop`, or until this process ends."""

    def __init__(self, process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
        self._process, self.endpoint, self._log = process, endpoint, log

    def log_tail(self) -> str:
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="backslashreplace")
        return ""

    def died(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the server, and what it started, at once."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_STOP_S)


def start_server(
    command: Sequence[str], *, port: int, name: str, folder: str, extra_env: dict[str, str]
) -> JobServer:
    """Start a server that will listen on `port`; raises JobError when it does not.

    Call it from the main thread: the kernel ends a child with the thread that started it.
    """
    log = Path(folder, f"{name.lower()}.log")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C in the terminal is for the submitter, which ends the job.
        process = subprocess.Popen(
            [sys.executable, "-SEP", processes.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | extra_env,
            start_new_session=True,
        )
    server = JobServer(process, f"localhost:{port}", log)
    deadline = time.monotonic() + _START_S
    try:
        while not answers("localhost", port, timeout_s=1.0):
            if server.died() or time.monotonic() > deadline:
                lines = [line.strip() for line in server.log_tail().splitlines() if line.strip()]
                raise JobError(
                    f"{name} did not start"
                    + ("" if server.died() else f" within {_START_S:.0f} s"),
                    got="; ".join(lines[-3:])[:600] or "it said nothing",
                    todo="check its installation; nothing was written but the plan of this run",
                )
            time.sleep(0.05)
    except BaseException:
        server.stop()
        raise
    return server


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
