"""A bucket in memory that speaks as much of the Cloud Storage JSON API as the client here uses."""

from __future__ import annotations

import base64
import contextlib
import email
import http.server
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import google_crc32c


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeBucket

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, document: Any, status: int = 200) -> None:
        self._reply(status, json.dumps(document).encode(), Content_Type="application/json")

    def _parse(self) -> tuple[str, dict[str, str]]:
        """Return (object name, query); the name is empty for the bucket itself."""
        url = urllib.parse.urlsplit(self.path)
        name = urllib.parse.unquote(url.path.partition("/o/")[2])
        return name, dict(urllib.parse.parse_qsl(url.query))

    def do_GET(self) -> None:
        name, query = self._parse()
        objects = self.server.objects
        if f"/b/{self.server.bucket}/" not in self.path:
            self._json({"error": {"code": 404, "message": "no such bucket"}}, 404)
        elif not name:
            self._list(query)
        elif name not in objects:
            self._json({"error": {"code": 404, "message": "no such object"}}, 404)
        elif query.get("alt") == "media":
            self._download(objects[name][0])
        else:
            self._json(self.server.describe(name))

    def _list(self, query: dict[str, str]) -> None:
        prefix, after = query.get("prefix", ""), query.get("pageToken", "")
        names = sorted(n for n in self.server.objects if n.startswith(prefix) and n > after)
        page = names[
            : min(int(query.get("maxResults", 3)), 3)
        ]  # small pages, so that paging is used
        more = {"nextPageToken": page[-1]} if len(names) > len(page) else {}
        self._json({"items": [self.server.describe(name) for name in page], **more})

    def _download(self, data: bytes) -> None:
        wanted = self.headers.get("Range", "")
        if not wanted:
            self._reply(200, data)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
        if start >= len(data):
            self._reply(416, b"", Content_Range=f"bytes */{len(data)}")
            return
        where = f"bytes {start}-{end}/{len(data)}"
        self._reply(206, data[start : end + 1], Content_Range=where)

    def do_POST(self) -> None:
        """Take an upload: multipart at once, resumable by handing out an address."""
        _, query = self._parse()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if query["uploadType"] == "resumable":
            query["name"] = json.loads(body)["name"]
            address = f"http://{self.headers['Host']}/upload/b/{self.server.bucket}/?"
            self._reply(200, b"", Location=address + urllib.parse.urlencode(query))
            return
        head = f"Content-Type: {self.headers['Content-Type']}\n\n".encode()
        _, about, media = (
            part.get_payload(decode=True) for part in email.message_from_bytes(head + body).walk()
        )
        assert isinstance(about, bytes) and isinstance(media, bytes)
        self._store(json.loads(about)["name"], media, query)

    def do_PUT(self) -> None:
        _, query = self._parse()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        waiting = self.server.waiting
        waiting[query["name"]] = waiting.get(query["name"], b"") + body
        if self.headers["Content-Range"].endswith("/*") or not self._is_last():
            self._reply(308, b"", Range=f"bytes=0-{len(waiting[query['name']]) - 1}")
            return
        self._store(query["name"], waiting.pop(query["name"]), query)

    def _is_last(self) -> bool:
        span, _, total = self.headers["Content-Range"].removeprefix("bytes ").partition("/")
        return int(span.partition("-")[2]) + 1 == int(total)

    def _store(self, name: str, data: bytes, query: dict[str, str]) -> None:
        if query.get("ifGenerationMatch") == "0" and name in self.server.objects:
            self._json({"error": {"code": 412, "message": "it exists"}}, 412)
            return
        self.server.put(name, data)
        self._json(self.server.describe(name))

    def do_DELETE(self) -> None:
        name, _ = self._parse()
        self._reply(404 if self.server.objects.pop(name, None) is None else 204)


class FakeBucket(http.server.ThreadingHTTPServer):
    """`objects` maps names to (content, generation)."""

    daemon_threads = True

    def __init__(self, bucket: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket = bucket
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.waiting: dict[str, bytes] = {}
        self._generation = 1000

    def put(self, name: str, data: bytes) -> None:
        self._generation += 1
        self.objects[name] = (data, self._generation)

    def describe(self, name: str) -> dict[str, str]:
        data, generation = self.objects[name]
        about = {"kind": "storage#object", "name": name, "bucket": self.bucket}
        crc32c = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
        return about | {"size": str(len(data)), "generation": str(generation), "crc32c": crc32c}


@contextlib.contextmanager
def serve_bucket(bucket: str) -> Iterator[FakeBucket]:
    """Serve gs://BUCKET in this process, and point the client at it."""
    with FakeBucket(bucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        before = os.environ.get("STORAGE_EMULATOR_HOST")
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{server.server_port}"
        try:
            yield server
        finally:
            del os.environ["STORAGE_EMULATOR_HOST"]
            if before is not None:
                os.environ["STORAGE_EMULATOR_HOST"] = before
            server.shutdown()
