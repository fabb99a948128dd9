"""Starts commands as forks of one process that has imported TensorFlow, Keras and Beam already.

`python -m framebank …` spends most of its life, in a test, on imports. What is started here is a
process like that one: its own pid, session, streams, folder, environment, exit status, and signals
reach it. What it has not is a start: a test of start-up itself, of an installed program, or of a
variable that counts while something is imported (PYTHON*, TF_*, KERAS_*) starts a real one.

    process = forked.start("-m", "framebank", "inspect", cache)
    said, log = process.communicate(timeout=60)

The parent, `python -m tests.made.forked FD`, is started by the first call and ends with the tests.
It starts no thread and wakes neither TensorFlow's runtime nor gRPC's: those do not survive a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tests import ROOT

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
_REQUEST_BYTES = 1 << 20
# What commands import while they run, and all that those import in turn.
_HEAVY = (
    "tensorflow", "keras", "h5py", "av", "pyarrow.parquet", "apache_beam",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "google.cloud.storage", "boto3",
)  # fmt: skip


class Forked:
    """A command that was started, used as a `subprocess.Popen` of text is."""

    def __init__(self, words: list[str], pid: int, ended: socket.socket) -> None:
        self.args, self.pid, self.returncode = words, pid, None
        self._ended = ended
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None

    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; raises TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            self._ended.settimeout(None if timeout is None else max(timeout, 0))
            try:
                told = self._ended.recv(_REQUEST_BYTES)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            assert told, "the parent of all forked commands is gone"
            self.returncode = int(told)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both streams to their ends and wait; returns what was said on each."""
        said = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            said[number] = stream.read()

        readers = [
            threading.Thread(target=read, args=(number, stream), daemon=True)
            for number, stream in enumerate((self.stdout, self.stderr))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        self.wait(timeout)
        for reader in readers:  # which go on while a child of it holds the stream open
            reader.join(None if deadline is None else max(deadline - time.monotonic(), 0.1))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    *words: object,
    cwd: Path | str = ROOT,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[Any] = PIPE,
    stderr: int | IO[Any] = PIPE,
) -> Forked:
    """Start `python WORDS`, which are `-m MODULE …` or `-c CODE …`, with nothing on its input."""
    told = [str(word) for word in words]
    with contextlib.ExitStack() as held:
        streams: list[IO[str] | None] = []
        given: list[int] = []
        for wish in (stdout, stderr):
            ours = None
            if wish == PIPE:
                reading, writing = os.pipe()
                held.callback(os.close, writing)
                ours = open(reading, encoding="utf-8", errors="backslashreplace")
            elif wish == DEVNULL:
                writing = held.enter_context(open(os.devnull, "w")).fileno()
            elif wish == STDOUT:
                writing = given[0]
            else:
                writing = wish if isinstance(wish, int) else wish.fileno()
            given.append(writing)
            streams.append(ours)
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held.callback(there.close)
        request = {"words": told, "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
        data = json.dumps(request).encode()
        socket.send_fds(_parent(), [data], [there.fileno(), *given])
    pid = here.recv(_REQUEST_BYTES)
    assert pid, "the parent of all forked commands is gone"
    process = Forked([sys.executable, *told], int(pid), here)
    process.stdout, process.stderr = streams
    return process


def run(*words: object, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` to its end, as `start` takes them."""
    process = start(*words, **options)
    try:
        said, log = process.communicate(timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.wait(), said, log)


def ready() -> None:
    """Return when the parent is there: for who takes the time of what it starts afterwards."""
    run("-c", "")


@functools.lru_cache
def _parent() -> socket.socket:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in (here, there):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES)
    with there:
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(there.fileno())],
            cwd=ROOT,
            pass_fds=[there.fileno()],
            stdin=DEVNULL,
            start_new_session=True,  # Ctrl-C is for the tests
        )
    return here


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request until the tests end; in a child, return what it is to be."""
    running: dict[int, tuple[int, socket.socket]] = {}  # a pidfd → a pid, and who waits for it
    with selectors.DefaultSelector() as ready:
        ready.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is not requests:
                    pid, told = running.pop(key.fd)
                    ready.unregister(key.fd)
                    os.close(key.fd)
                    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with told, contextlib.suppress(OSError):  # nobody need wait for it
                        told.send(str(status).encode())
                    continue
                data, fds, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
                if not data:
                    os._exit(0)  # what still runs is the tests' affair
                told, stdout, stderr = socket.socket(fileno=fds[0]), *fds[1:]
                pid = os.fork()
                if not pid:
                    for _, other in running.values():
                        other.close()
                    for fd in running:
                        os.close(fd)
                    told.close()
                    requests.close()
                    return json.loads(data) | {"streams": (stdout, stderr)}
                os.close(stdout)
                os.close(stderr)
                told.send(str(pid).encode())
                pidfd = os.pidfd_open(pid)
                running[pidfd] = pid, told
                ready.register(pidfd, selectors.EVENT_READ)


def _become(request: dict[str, Any]) -> None:
    """Make this process what a real one would be at the start of its program, and run that."""
    os.setsid()
    for target, fd in enumerate(request["streams"], 1):
        os.dup2(fd, target)
    for fd in request["streams"]:
        os.close(fd)
    sys.stdin = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    # A shell that runs the tests in the background has them ignore it, and so their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    way, what, *words = request["words"]
    sys.argv = [what if way == "-m" else "-c", *words]
    if way == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(what, "<string>", "exec"), main.__dict__)


def _import_all() -> None:
    from framebank import cli
    from framebank.features.tensorflow_import import import_tensorflow, quiet_google

    quiet_google()
    import_tensorflow(wake=lambda: None)
    for name in _HEAVY:
        importlib.import_module(name)
    for command in cli.COMMANDS.values():
        importlib.import_module(f"framebank.{command.module}")


def _main(requests: socket.socket) -> None:
    ended: list[int] = []

    def leave() -> None:
        if ended:  # and taking all of TensorFlow down takes longer than most commands
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended[0])

    atexit.register(leave)  # the first to be registered, so the last to be called
    _import_all()
    gc.freeze()  # or each child copies what its first collection touches
    request = _serve(requests)
    try:
        _become(request)
        ended.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            ended.append(end.code or 0)
        raise


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
