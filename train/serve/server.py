"""The server's process: its socket, its signals, and the clock of those who never finish a head.

SIGTERM and Ctrl-C drain it: `/readyz` says 503, new work is refused with words, what is under way
ends, and then the process does, with 0. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from framebank.features.errors import UsageError
from framebank.train.serve.gate import Gate
from framebank.train.serve.limits import STALL_S

NOTICE_S = 1.0  # in which whoever balances load sees that it ends
_KEEP_ALIVE_S = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 256
_THREADS = 32  # most of them wait: for a store, a decoder, vectors of the cache
_MORE_CONNECTIONS = 256  # than places in the queue


class Protocol(H11Protocol):
    """HTTP/1.1 that hangs up on who does not send the whole head of a request in time."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        cycle = self.cycle
        super().data_received(data)
        if self.cycle is not cycle:
            self._end_head()
        elif self._head is None and (cycle is None or cycle.response_complete):
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._end_head()
        self._head = self.loop.call_later(STALL_S, self._give_up)

    def _end_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server with a drain of our own."""

    def __init__(self, config: uvicorn.Config, gate: Gate, *, drain_s: float) -> None:
        super().__init__(config)
        self._gate, self._drain_s = gate, drain_s
        self._draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._draining is not None:
            self.should_exit = self.force_exit = True
            return
        self._gate.draining = True
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        start = time.monotonic()
        await asyncio.sleep(NOTICE_S)
        while self._gate.under_way and time.monotonic() - start < self._drain_s:
            await asyncio.sleep(0.05)
        self.should_exit = True


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; raises UsageError where it cannot be had."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, number)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(_BACKLOG)  # now: two that only bind could both have the port
        except OSError:
            bound.close()
            raise
    except OSError as err:
        raise UsageError(
            f"cannot listen at {host}, port {port}",
            got=err.strerror or err,
            todo="give another --port (0 takes a free one), or end what listens there",
        ) from err
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the address at which a browser on this machine finds a socket."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def serve(
    gate: Gate, bound: socket.socket, *, queue: int, drain_s: float, ready: Callable[[], None]
) -> None:
    """Serve until a signal ends it; `ready` is called when the first request may come."""
    config = uvicorn.Config(
        gate,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # anybody can send them
        server_header=False,
        limit_concurrency=queue + _MORE_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    server = Server(config, gate, drain_s=drain_s)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="serve"))
        loop.call_later(0.1, ready)
        await server.serve(sockets=[bound])

    asyncio.run(run())
