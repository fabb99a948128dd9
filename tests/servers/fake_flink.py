"""A Flink REST API with nothing behind it: says what a test has it say, and notes what is asked."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

EMPTY_JAR = b"PK\5\6" + bytes(18)  # the least that is a zip


@dataclasses.dataclass
class FakeFlink:
    """The state of a cluster; `cancelled` jobs turn CANCELED after `lag` more questions."""

    hosts: tuple[str, ...] = ("localhost",)
    slots: int = 4
    free_slots: int = 4
    version: str = "1.20.5"
    jobs: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # id: (name, state)
    lag: int = 1
    cancelled: list[str] = dataclasses.field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def answer(self, method: str, path: str) -> Any:
        """Return what Flink 1.20 answers, None for what it does not know."""
        parts = path.partition("?")[0].strip("/").split("/")[1:]
        if method == "PATCH":
            self.cancelled.append(parts[1])
            return {}
        if parts == ["overview"]:
            return {
                "taskmanagers": len(self.hosts),
                "slots-total": self.slots,
                "slots-available": self.free_slots,
                "flink-version": self.version,
            }
        if parts == ["taskmanagers"]:
            path = "pekko.tcp://flink@{}:40000/user/rpc/taskmanager_0"
            return {"taskmanagers": [{"path": path.format(host)} for host in self.hosts]}
        if parts == ["jobs", "overview"]:
            return {
                "jobs": [
                    {"jid": jid, "name": name, "state": state, "start-time": number}
                    for number, (jid, (name, state)) in enumerate(self.jobs.items())
                ]
            }
        if len(parts) == 2 and parts[0] == "jobs":
            self.lag -= parts[1] in self.cancelled
            ended = parts[1] in self.cancelled and self.lag < 0
            return {"state": "CANCELED" if ended else self.jobs[parts[1]][1]}
        return None


@contextlib.contextmanager
def serving(answer: Any) -> Iterator[int]:
    """Serve `answer(method, path)` as JSON on a free port of loopback; None is 404, n is status n.

    Yields the port.
    """

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = answer(self.command, self.path)
            status = 404 if found is None else found if isinstance(found, int) else 200
            data = json.dumps(found if status == 200 else {"error": {"code": status}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def fake_flink(**state: Any) -> Iterator[FakeFlink]:
    """Run one on a free port of loopback."""
    cluster = FakeFlink(**state)
    with serving(cluster.answer) as port:
        cluster.port = port
        yield cluster
