"""Watches the other workers of a run, so that none waits for one that is dead.

Each worker's TensorFlow listens at the address that the cluster names. A thread greets the others'
every second; one that was there and refuses, or does not answer, again and again is gone. It must
answer, as of a process that hangs or was stopped the kernel still takes connections.
Then this process says so in one line and ends: collectives that wait for a dead worker cannot be
called back, and a checkpoint is never older than --checkpoint-every-s. It stays for a few seconds
first, so that the other survivors find the same one gone and not this one.
"""

from __future__ import annotations

import concurrent.futures
import os
import socket
import sys
import threading
import time
from typing import NoReturn

from framebank.train.workers.cluster import Cluster

EXIT_STATUS = 1
_EVERY_S = 1.0
_ANSWER_S = 10.0
_MISSES = 3
_LINGER_S = 6.0
_BLAME_S = 45.0  # longer than a worker that does not answer takes to be found
_AT_ONCE = 32
# HTTP/2 as gRPC speaks it: the client's preface and empty settings (RFC 9113, 3.4). A server that
# lives answers with its own.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


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
