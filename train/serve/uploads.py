"""What a request sends: JSON, or a form with a clip, which goes to a file as it comes.

A body is bounded in bytes and in time: one that stalls, or comes at less than a KiB a second, only
holds a place that others wait for. Of a clip nothing is kept in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO

import fastapi
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from framebank.features.browsing.http_errors import Refusal, bad_request
from framebank.features.stores import json_text
from framebank.features.stores.temporary import temporary_error
from framebank.train.serve.limits import (
    FIELDS_BYTES,
    GRACE_S,
    LEAST_BYTES_PER_S,
    MIB,
    STALL_S,
)

JSON, FORM = "application/json", "multipart/form-data"
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_PARTS = 1000
_MOST_HEADERS = 20
_HEADER_BYTES = 4096


@dataclasses.dataclass
class Form:
    """The fields of a form by name, and its clip: where it lies now, and what it is called."""

    fields: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    path: str | None = None
    name: str = ""


def kind_of(request: fastapi.Request) -> tuple[str, dict[bytes, bytes]]:
    """Return a body's type, and its options; raises Refusal for one that is neither of ours."""
    header = request.headers.get("content-type", "")
    kind, options = parse_options_header(header)
    name = kind.decode("latin-1").lower()
    if name not in (JSON, FORM):
        raise Refusal(
            415,
            "content_type",
            "the body is of a type that is not read here",
            got=header or "no Content-Type",
            expected=f"{JSON}, or {FORM} with a clip",
        )
    return name, options


async def chunks(request: fastapi.Request, most_bytes: int) -> AsyncIterator[bytes]:
    """Yield a body as it comes; raises Refusal for one that is too large or too slow."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most_bytes:
        raise _too_large(int(stated), most_bytes)
    start, received = time.monotonic(), 0
    stream = request.stream().__aiter__()
    while True:
        try:
            chunk = await asyncio.wait_for(stream.__anext__(), STALL_S)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _too_slow(f"nothing for {STALL_S:g} s") from None
        received += len(chunk)
        if received > most_bytes:
            raise _too_large(received, most_bytes)
        took_s = time.monotonic() - start
        if took_s > GRACE_S and received < LEAST_BYTES_PER_S * took_s:
            raise _too_slow(f"{received} bytes in {took_s:.0f} s")
        yield chunk


def _too_large(got: int, most_bytes: int) -> Refusal:
    return Refusal(
        413,
        "too_large",
        "the request is larger than this server takes",
        got=f"{got / MIB:.1f} MiB or more",
        expected=f"{most_bytes / MIB:.1f} MiB at most",
        todo="send a smaller or shorter clip",
    )


def _too_slow(got: str) -> Refusal:
    expected = f"{LEAST_BYTES_PER_S} bytes a second at least"
    return Refusal(408, "slow", "the request comes too slowly", got=got, expected=expected)


async def read_json(request: fastapi.Request, most_bytes: int) -> dict[str, Any]:
    """Return a body that is one JSON object; raises Refusal."""
    data = bytearray()
    async for chunk in chunks(request, most_bytes):
        data += chunk
    try:
        return await asyncio.to_thread(_parsed, data)
    except ValueError as err:
        raise bad_request("the body is no JSON object", got=err) from err


def _parsed(data: bytearray) -> dict[str, Any]:
    """Return the fields of a JSON object; raises ValueError, also for text that could not be
    answered with: half a character (JSON can write one)."""
    fields = json_text.parse_object(data)
    if _HALF.search(data):
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    return fields


@contextlib.asynccontextmanager
async def received_form(
    request: fastapi.Request, options: dict[bytes, bytes], path: str, *, most_bytes: int
) -> AsyncIterator[Form]:
    """Yield a form whose clip lies at `path` meanwhile; raises Refusal, JobError (no room)."""
    boundary = options.get(b"boundary")
    if not boundary:
        raise bad_request("the form has no boundary", expected="Content-Type as a client makes it")
    try:
        with _Reader(boundary, path, most_bytes) as reader:
            async for chunk in chunks(request, most_bytes + FIELDS_BYTES):
                reader.write(chunk)
            reader.finish()
        yield reader.form
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


class _Reader:
    """Reads a form, its clip into a file; a context manager that closes it."""

    def __init__(self, boundary: bytes, path: str, most_bytes: int) -> None:
        self.form = Form()
        self._path, self._most_bytes = path, most_bytes
        self._file: BinaryIO | None = None
        self._written = self._fields_bytes = self._parts = 0
        self._name, self._value = "", bytearray()
        self._in_clip = self._is_whole = False
        self._header, self._header_value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        calls: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin_part,
            "on_part_data": self._take_data,
            "on_part_end": self._end_part,
            "on_header_field": self._take_header,
            "on_header_value": self._take_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, calls)  # type: ignore[arg-type]
        except FormParserError as err:
            raise bad_request("the form's boundary cannot be used", got=err) from err

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as err:
            raise bad_request("the form cannot be read", got=err) from err

    def finish(self) -> None:
        if not self._is_whole:
            raise bad_request("the form ends before its last boundary")

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise bad_request("the form has too many parts", expected=f"{_MOST_PARTS} at most")
        self._headers, self._value = {}, bytearray()

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_headers()

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_headers()

    def _check_headers(self) -> None:
        length = len(self._header) + len(self._header_value)
        if length > _HEADER_BYTES or len(self._headers) > _MOST_HEADERS:
            raise bad_request("a part of the form has too long a head")

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._header_value)
        self._header, self._header_value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._in_clip = self._name == "clip"
        if not self._in_clip:
            return
        if self.form.path is not None:
            raise bad_request("the form has several clips", expected="one field `clip`")
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self.form.path, self.form.name = self._path, name.replace("\\", "/").rpartition("/")[2]
        try:
            self._file = open(self._path, "xb", buffering=0)
        except OSError as err:
            raise temporary_error(err) from err

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_clip:
            self._value += data[start:end]
            self._fields_bytes += end - start
            if self._fields_bytes > FIELDS_BYTES:
                raise _too_large(self._fields_bytes, FIELDS_BYTES)
            return
        assert self._file is not None
        self._written += end - start
        if self._written > self._most_bytes:
            raise _too_large(self._written, self._most_bytes)
        try:
            view = memoryview(data)[start:end]
            while view:
                view = view[self._file.write(view) :]
        except OSError as err:
            raise temporary_error(err) from err

    def _end_part(self) -> None:
        if not self._in_clip:
            text = self._value.decode("utf-8", "replace")
            self.form.fields.setdefault(self._name, []).append(text)

    def _end(self) -> None:
        self._is_whole = True
