"""Dataflow's job service on loopback: jobs.create, jobs.get and messages.list of v1b3, in memory.

Clients name it `http://localhost:PORT`: with that name Beam's client speaks plain HTTP to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_JOBS = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+))?(/messages)?")


@dataclasses.dataclass
class DataflowService:
    """A service whose jobs end as `end` says, with `message` in their error log.

    `jobs` has what was submitted, as JSON. `refusal` is an HTTP status to answer submissions with.
    """

    url: str
    end: str = "JOB_STATE_DONE"
    message: str = ""
    refusal: int | None = None
    jobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    asked: list[str] = dataclasses.field(default_factory=list)

    def create(self, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Take a job, or refuse it as the service does."""
        if self.refusal is not None:
            said = {"code": self.refusal, "message": "the caller lacks dataflow.jobs.create"}
            return self.refusal, {"error": said}
        self.jobs.append(job)
        return 200, self._shown(len(self.jobs) - 1, "JOB_STATE_PENDING")

    def get(self, job_id: str) -> tuple[int, dict[str, Any]]:
        """Return a job, ended."""
        return 200, self._shown(int(job_id.rsplit("-", 1)[1]), self.end)

    def messages(self) -> tuple[int, dict[str, Any]]:
        """Return the error log of every job."""
        if not self.message:
            return 200, {}
        line = {
            "id": "1",
            "time": "2026-01-01T00:00:00Z",
            "messageText": self.message,
            "messageImportance": "JOB_MESSAGE_ERROR",
        }
        return 200, {"jobMessages": [line]}

    def _shown(self, number: int, state: str) -> dict[str, Any]:
        job = self.jobs[number]
        shown = {name: job[name] for name in ("name", "type", "clientRequestId") if name in job}
        return shown | {"id": f"2026-01-01_00_00_00-{number}", "currentState": state}


@contextlib.contextmanager
def serve_dataflow() -> Iterator[DataflowService]:
    """Run a service for a while."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.service = DataflowService(f"http://localhost:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.service  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(json.loads(self.rfile.read(length) or b"{}"))

    def do_GET(self) -> None:
        self._answer(None)

    def _answer(self, job: dict[str, Any] | None) -> None:
        service: DataflowService = self.server.service  # type: ignore[attr-defined]
        path = urlsplit(self.path).path
        service.asked.append(f"{self.command} {path}")
        match = _JOBS.fullmatch(path)
        if match is None:
            status, body = 404, {"error": {"code": 404, "message": path}}
        elif job is not None:
            status, body = service.create(job)
        elif match[4]:
            status, body = service.messages()
        else:
            status, body = service.get(match[3])
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
