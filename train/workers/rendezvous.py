"""Waits in Python until all workers of a cluster are there.

TensorFlow waits as well, but in C++ with Python's lock held: no signal reaches anyone then, and it
does not say who is missing. Until all have met, a worker listens at its own address in place of the
TensorFlow to come.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

from framebank.features.errors import JobError
from framebank.train.workers.cluster import Cluster
from framebank.train.workers.liveness import address_of

_EVERY_S = 0.1
_CONNECT_S = 2.0
_SAY_EVERY_S = 30.0
_BACKLOG = 1024


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
            time.sleep(_EVERY_S if missing else 0)


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
