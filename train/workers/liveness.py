"""Meets the other workers of a run and watches them, so that none waits for one that is dead.

Until all have met, a worker listens at its own address in place of the TensorFlow to come. Then a
thread greets the others' every second; one that was there and refuses, or does not answer, again
and again is gone. This process says so in one line and ends: collectives that wait for a dead
worker cannot be called back. It stays for a few seconds first, so that the other survivors find the
same one gone and not this one (infra/decisions/0003-training-loop.md)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from framebank.features.errors import JobError
from framebank.train.workers.cluster import Cluster

EXIT_STATUS = 1
_LOOK_S = 0.1
_CONNECT_S = 2.0
_SAY_EVERY_S = 30.0
_BACKLOG = 1024
_EVERY_S = 1.0
_ANSWER_S = 10.0
_MISSES = 3
_LINGER_S = 6.0
_BLAME_S = 45.0  # longer than a worker that does not answer takes to be found
_AT_ONCE = 32
# HTTP/2 as gRPC speaks it: the client's preface and empty settings (RFC 9113, 3.4). A server that
# lives answers with its own.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def meet(cluster: Cluster, *, check: Callable[[], None], say: Callable[[str], None]) -> None:
    """Return once every other worker's address has taken a connection.

    `check` is called ten times a second and may raise. Raises JobError when this worker's own port
    is taken.
    """
    own = cluster.members[cluster.index]
    missing = [member for member in cluster.members if member != own]
    if not missing:
        return
    started = said = time.monotonic()
    with _listening(own[1]) as take:
        while missing:
            check()
            take()
            missing = [member for member in missing if not _listens(address_of(member[1]))]
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                names = ", ".join(f"{name} at {host}" for name, host in missing)
                say(f"after {said - started:.0f} s still missing: {names}")
            time.sleep(_LOOK_S if missing else 0)


@contextlib.contextmanager
def _listening(host: str) -> Iterator[Callable[[], None]]:
    """Listen at the port of `host`; yield what takes the connections that came."""
    try:
        server = socket.create_server(("", address_of(host)[1]), backlog=_BACKLOG)
    except OSError as err:
        todo = "free the port, or name another in the cluster"
        raise JobError(f"this worker cannot listen at {host}", got=err.strerror, todo=todo) from err
    server.setblocking(False)

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    with server:
        yield take


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


class PeerWatch:
    """Watches the members of `cluster` other than this one, until `stop`."""

    def __init__(self, cluster: Cluster) -> None:
        self._peers = {
            name: address_of(host)
            for number, (name, host) in enumerate(cluster.members)
            if number != cluster.index
        }
        self._misses = dict.fromkeys(self._peers, 0)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin; all must have been reachable once (TensorFlow waits for that when it starts)."""
        if self._peers:
            self._thread.start()

    def stop(self) -> None:
        """The work in common is done: from now on the others may leave."""
        self._stopped.set()

    def blame(self, error: BaseException) -> None:
        """After a failed collective: end as for a dead peer if one is found in good time."""
        if not self._peers:
            return
        end = time.monotonic() + _BLAME_S
        while time.monotonic() < end and not isinstance(error, KeyboardInterrupt):
            time.sleep(_EVERY_S)  # the watching thread ends the process

    def _work(self) -> None:
        # Several at once, or a machine with many that hang would take many times as long.
        with concurrent.futures.ThreadPoolExecutor(min(len(self._peers), _AT_ONCE)) as pool:
            while not self._stopped.wait(_EVERY_S):
                there = pool.map(answers, self._peers.values())
                for name, alive in zip(self._peers, there, strict=True):
                    self._misses[name] = 0 if alive else self._misses[name] + 1
                gone = [name for name, misses in self._misses.items() if misses >= _MISSES]
                if gone and not self._stopped.is_set():
                    self._end(gone)

    def _end(self, gone: list[str]) -> NoReturn:
        names = " and ".join(f"{name} ({':'.join(map(str, self._peers[name]))})" for name in gone)
        sys.stdout.flush()
        text = (
            f"framebank: {names} is gone, so training stops here; start all workers again with "
            "the same command and it goes on from the last checkpoint"
        )
        print(text, file=sys.stderr, flush=True)
        time.sleep(_LINGER_S)
        os._exit(EXIT_STATUS)  # threads of TensorFlow hang in the collective


def answers(address: tuple[str, int]) -> bool:
    """Return whether a gRPC server lives there."""
    try:
        with socket.create_connection(address, timeout=_ANSWER_S) as connection:
            connection.sendall(_GREETING)
            return bool(connection.recv(1))
    except OSError:
        return False


def address_of(host: str) -> tuple[str, int]:
    """Return (name, port) of "name:port"."""
    name, _, port = host.rpartition(":")
    return name.strip("[]"), int(port)
