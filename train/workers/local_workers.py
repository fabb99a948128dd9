"""`framebank train --local-workers N`: N real workers on this machine, looked after by one parent.

The parent gives each a port and its TF_CONFIG, puts its name before every line it says, hands on
Ctrl-C and SIGTERM, and ends all when one dies. A worker whose parent is gone ends too.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from framebank import HOME
from framebank.features.errors import JobError, UsageError
from framebank.features.processes import end_with_parent
from framebank.features.stop_signals import signals_held
from framebank.train.workers.cluster import local_cluster

_MOST = 64
_LOOK_S = 0.1
_LEAVE_S = 30.0
# TensorFlow's C++ side, whose log level does not hold once a cluster is up; what matters we say.
_CHATTER = re.compile(
    rb"[IWE]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\]"
    # The further lines of such a message.
    rb"|\s*$|/job:worker|RPC: /tensorflow|The tasks have crashed|The error could be from"
    rb"|Additional GRPC error|:UNKNOWN:"
)


def run_local_workers(command: Sequence[str], count: int, *, quiet: bool = False) -> int:
    """Run `count` workers by `command`; return the exit status. Raises JobError.

    The chief prints the figures on stdout, with `quiet` nobody does.
    """
    if not 1 <= count <= _MOST:
        raise UsageError("--local-workers", got=count, expected=f"1 to {_MOST}")
    ports = _free_ports(count)
    workers: list[subprocess.Popen[bytes]] = []
    joined: list[threading.Thread] = []
    stopped: list[int] = []

    def hand_on(number: int, frame: object) -> None:
        for worker in workers:
            worker.send_signal(signal.SIGKILL if stopped else signal.SIGTERM)
        stopped.append(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for index in range(count):
            config = local_cluster(ports, index).config
            with signals_held():  # in the worker too, until it listens for them
                worker = _start(command, config, prints=index == 0 and not quiet)
            workers.append(worker)
            thread = threading.Thread(target=_join_log, args=(worker.stderr, f"worker {index}"))
            thread.start()
            joined.append(thread)
        return _look_after(workers, stopped)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for thread in joined:
            thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(command: Sequence[str], tf_config: str, *, prints: bool) -> subprocess.Popen[bytes]:
    environment = os.environ | {"TF_CONFIG": tf_config}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (HOME, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=None if prints else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the parent alone, which hands it on
    )


def _join_log(stream: IO[bytes] | None, name: str) -> None:
    for line in stream or ():
        if _CHATTER.match(line):
            continue
        sys.stderr.write(f"[{name}] {line.decode(errors='replace')}")
        sys.stderr.flush()


def _look_after(workers: list[subprocess.Popen[bytes]], stopped: list[int]) -> int:
    """Wait for all; raises JobError as soon as one dies while others are at work.

    Once they were asked to stop all leave at the same step, so the first is waited for, and the
    others only for a while.
    """
    status = 0
    first_ended: float | None = None
    while True:
        ended = [worker.poll() for worker in workers]
        if stopped and not status:
            status = 128 + stopped[0]
        failed = next(((number, its) for number, its in enumerate(ended) if its), None)
        if failed and not status:
            number, status = failed
            if status < 0:
                name = signal.Signals(-status).name
                raise JobError(
                    f"worker {number} was killed by {name}; all workers were ended",
                    todo="give the same command again: it goes on from the last checkpoint",
                )
            if status <= 128:  # what was wrong it has said itself
                return status
            # It got a signal of its own, saved, and the others did as well.
        if None not in ended:
            return status
        if status and any(its is not None for its in ended):
            first_ended = first_ended or time.monotonic()
            if time.monotonic() - first_ended > _LEAVE_S:
                return status
        time.sleep(_LOOK_S)


def end_with_input() -> None:
    """End this process when standard input, a pipe that only the parent holds, is closed.

    Linux is asked to do so as well: this thread waits where TensorFlow holds Python's lock.
    """
    end_with_parent(os.getppid())
    while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
        continue
    os._exit(1)
