"""Starts the processes that read strangers' bytes, and hands them their clips.

Such a process finds no credential in its environment and may open no file
(`features/decoders/sandbox.py`): a clip is opened here and goes to it as a descriptor, over the
socket that is its standard input. What it says comes from its standard output, and is to be
doubted. `features/decoders/pool.py` and `pipelines/forecast/probing.py` keep such processes and
their clocks.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any

from framebank import HOME
from framebank.features.decoders.sandbox import Confinement
from framebank.features.decoding import container
from framebank.features.stores import json_text

# All that a child may know of this process's environment: how to find Python and libraries, how to
# write text, and the mark by which tests find the processes of a job.
ENVIRONMENT = (
    "PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
    "FRAMEBANK_TEST_MARK",
)  # fmt: skip
# One thread each: memory and cores are shared out by process.
_OWN_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_JOB_BYTES = 1 << 16
_LOOK_S = 20.0


class OpeningHangs(Exception):
    """The file system does not answer."""


class ConfinedProcess:
    """A Python process that runs `call` of `module`, this very copy, and takes clips."""

    def __init__(self, module: str, call: str, *, stderr: int | IO[bytes]) -> None:
        """Raises OSError where no process can be started."""
        code = f"import sys; sys.path[0] = {HOME!r}; from {module} import main; {call}"
        self._channel, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    env=child_environment(),
                )
        except BaseException:
            self._channel.close()
            raise
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()

    def send(self, job: dict[str, Any], clip: container.NamelessFile) -> None:
        """Hand over a job with its clip; raises OSError when the process is gone."""
        text = json.dumps(job).encode() + b"\n"
        sent = socket.send_fds(self._channel, [text], [clip.descriptor])
        self._channel.sendall(text[sent:])

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process now, stopped or not; whoever waits for its output stops waiting."""
        self._process.kill()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit status (negative: the signal that ended it), None where it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def end(self) -> None:
        """Kill the process and close what leads to it."""
        self._process.kill()
        self._process.wait()
        self._channel.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


def child_environment() -> dict[str, str]:
    """Return the environment of a process that reads strangers' bytes."""
    known = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return known | _OWN_ENVIRONMENT


class JobReader:
    """The other end, in the child: jobs with their clips, as they come."""

    def __init__(self) -> None:
        self._channel = socket.socket(fileno=os.dup(0))
        self._text = b""
        self._clips: list[int] = []

    def __iter__(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each job and the descriptor of its clip; end with the parent's end."""
        while True:
            text, clips, _, _ = socket.recv_fds(self._channel, _JOB_BYTES, 1)
            self._clips += clips
            self._text += text
            while b"\n" in self._text:
                line, _, self._text = self._text.partition(b"\n")
                yield json_text.parse_object(line), self._clips.pop(0)
            if not text:
                return


@contextlib.contextmanager
def opened_clip(
    path: str, limits: container.DecodeLimits, *, timeout_s: float
) -> Iterator[container.NamelessFile]:
    """Open a clip as `container.open_file` does; raises OpeningHangs after `timeout_s`.

    A file system that does not answer keeps a thread and a clip, and nobody else.
    """
    opening = container.open_file(path, limits)
    outcome: queue.SimpleQueue[container.NamelessFile | BaseException] = queue.SimpleQueue()

    def enter() -> None:
        try:
            outcome.put(opening.__enter__())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            outcome.put(error)

    threading.Thread(target=enter, name="open-clip", daemon=True).start()
    try:
        found = outcome.get(timeout=timeout_s)
    except queue.Empty:
        raise OpeningHangs(f"opening it took more than {timeout_s:.0f} s") from None
    if isinstance(found, BaseException):
        raise found
    try:
        yield found
    finally:
        opening.__exit__(None, None, None)


def confinement_here() -> Confinement:
    """Return what a child of this process cannot do on this machine, as one that was asked says."""
    module = "framebank.features.decoders.sandbox"
    code = f"import sys; sys.path[0] = {HOME!r}; from {module} import report; report()"
    with contextlib.suppress(OSError, ValueError, TypeError, subprocess.SubprocessError):
        asked = subprocess.run(
            [sys.executable, "-c", code],
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LOOK_S,
            check=True,
        )
        return confinement_of(asked.stdout)
    return Confinement()


def confinement_of(text: bytes | bytearray) -> Confinement:
    """Return what a child said of itself; raises ValueError, TypeError."""
    fields = json_text.parse_object(bytes(text))
    return Confinement(**fields | {"by": tuple(map(str, fields["by"]))})
