"""An HTTP proxy that answers a share of the calls badly: 503, a cut connection, a pause.

It stands between a client and an object store. What goes wrong is drawn from a seed, so a test that
fails can be run again.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "accept-encoding"}
FAULTS = ("503", "cut_before", "cut_after", "cut_body", "delay")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        fault = self.server.draw()
        body = self._read_body()
        if body is None:
            return
        if fault == "503":
            self._reply(503, [("Content-Type", "text/plain")], b"try again")
            return
        if fault == "cut_before":  # the call never arrives
            self._cut()
            return
        if fault == "delay":
            time.sleep(0.3)
        status, headers, answer = self._forward(body)
        if fault == "cut_after":  # it was done, and nobody is told
            self._cut()
            return
        if fault == "cut_body" and len(answer) > 1:
            self._reply(status, headers, answer, give=len(answer) // 2)
            self._cut()
            return
        self._reply(status, headers, answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _serve  # noqa: N815

    def _read_body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        target = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            headers = {
                name: text for name, text in self.headers.items() if name.lower() not in _HOP
            }
            headers["Content-Length"] = str(len(body))
            target.request(self.command, self.path, body, headers)
            response = target.getresponse()
            answer = response.read()
            return response.status, self._shown(response.getheaders()), answer
        finally:
            target.close()

    def _shown(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Point addresses in the answer (of a resumable upload) at this proxy."""
        own = f"127.0.0.1:{self.server.server_port}"
        return [(name, text.replace(self.server.target, own)) for name, text in headers]

    def _reply(
        self, status: int, headers: list[tuple[str, str]], body: bytes, give: int | None = None
    ) -> None:
        self.send_response_only(status)
        length = {n.lower(): t for n, t in headers}.get("content-length", str(len(body)))
        for name, text in headers:
            if name.lower() not in _HOP:
                self.send_header(name, text)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:give])

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(2)


class FaultyProxy(http.server.ThreadingHTTPServer):
    """`share` of the calls go wrong in one of `faults`; `drawn` counts which."""

    daemon_threads = True

    def __init__(
        self, target_url: str, *, share: float, seed: int, faults: tuple[str, ...]
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urllib.parse.urlsplit(target_url).netloc
        self.share, self._faults, self._dice = share, faults, random.Random(seed)
        self.drawn: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def draw(self) -> str:
        with self._lock:
            fault = "none"
            if self._dice.random() < self.share:
                fault = self._dice.choice(self._faults)
            self.drawn[fault] += 1
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


@contextlib.contextmanager
def faulty_proxy(
    target_url: str, *, share: float = 0.1, seed: int = 0, faults: tuple[str, ...] = FAULTS
) -> Iterator[FaultyProxy]:
    """Run a proxy before `target_url` in this process."""
    with FaultyProxy(target_url, share=share, seed=seed, faults=faults) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
