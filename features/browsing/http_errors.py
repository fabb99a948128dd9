"""Every answer that is a refusal: which status it has, and its words.

`{"error": {"class", "message", "got", "expected", "todo"}}`, under `/v2/` as the open inference
protocol has it, `{"error": "words"}`. A mistake of the client's is 4xx. What another try may mend
is 429 or 503, with Retry-After. 500 is a fault of ours, and is in the log.
"""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Any

import fastapi
import pydantic
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from framebank.features.browsing.missing import NoPicturesError, NotFoundError
from framebank.features.cache.reader import NoSuchVideoError
from framebank.features.errors import (
    CacheError,
    FramebankError,
    JobError,
    SpecMismatchError,
    UsageError,
    VideoRejected,
)
from framebank.features.terminal import printable

_log = logging.getLogger(__name__)
CLIENT_LEFT = "client_left"  # the class of a request that nobody waits for any more
_RETRY_S = 1
_MOST_TEXT = 500  # characters of what a client sent, when it is told
# The first that fits: what is raised → class, status.
_KINDS: tuple[tuple[type[Exception], str, int], ...] = (
    (NoSuchVideoError, "no_such_video", 404),
    (NotFoundError, "not_found", 404),
    (NoPicturesError, "no_pictures", 404),
    (SpecMismatchError, "other_spec", 409),
    (UsageError, "usage", 422),
    (CacheError, "cache", 503),
    (JobError, "job", 503),
    (FramebankError, "job", 503),
    (MemoryError, "memory", 503),
)
# Of a clip whose quarantine class says more than 422.
_CLIP_STATUSES = {"missing": 404, "forbidden": 403, "too_large": 413}


class Refusal(FramebankError):
    """A request that is not done, with its status and class; `retry_s`: try again after that."""

    def __init__(
        self,
        status: int,
        error_class: str,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        todo: str | None = None,
        retry_s: float | None = None,
    ) -> None:
        super().__init__(what, got=got, expected=expected, todo=todo)
        self.status, self.error_class, self.retry_s = status, error_class, retry_s


def unavailable(what: str, *, todo: str = "try again", retry_s: float = _RETRY_S) -> Refusal:
    """Return the refusal of a server that cannot do it now."""
    return Refusal(503, "unavailable", what, todo=todo, retry_s=retry_s)


def bad_request(what: str, *, got: object = None, expected: object = None) -> Refusal:
    """Return the refusal of a body that does not say what it has to."""
    return Refusal(422, "usage", what, got=got, expected=expected, todo="see /openapi.json")


def as_refusal(error: Exception) -> Refusal:
    """Return what is answered where `error` was raised."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, VideoRejected):
        return _of_clip(error)
    if isinstance(error, ClientDisconnect):
        return Refusal(400, CLIENT_LEFT, "the request ends before its end")
    if isinstance(error, pydantic.ValidationError | RequestValidationError):
        return _of_fields(error)
    if isinstance(error, HTTPException):
        phrase = http.HTTPStatus(error.status_code).phrase
        todo = "see /openapi.json"
        return Refusal(error.status_code, "route", f"{phrase}: {error.detail}", todo=todo)
    for kind, name, status in _KINDS:
        if isinstance(error, kind):
            retry_s = _RETRY_S if status == 503 else None
            if not isinstance(error, FramebankError):
                what = "there is no memory for this now"
                return Refusal(status, name, what, todo="try again later", retry_s=retry_s)
            return Refusal(
                status,
                name,
                error.what,
                got=error.got,
                expected=error.expected,
                todo=error.todo,
                retry_s=retry_s,
            )
    _log.error("a fault of the server's own", exc_info=error)
    return Refusal(
        500,
        "internal",
        f"code of Framebank failed: {type(error).__name__}",
        todo="please report it, with what the server's log says",
    )


def _of_clip(error: VideoRejected) -> Refusal:
    """Return the refusal of a clip that cannot be used, whose path is nobody's business."""
    return Refusal(
        _CLIP_STATUSES.get(error.error_class, 422),
        error.error_class,
        f"the clip cannot be used: {error.error_class} (at {error.stage})",
        got=error.message,
        expected="a video or a picture that FFmpeg can decode, within the limits of this server",
        todo="look at what is wrong with it, or send another",
    )


def _of_fields(error: Any) -> Refusal:
    told = []
    for one in error.errors()[:5]:
        place = ".".join(str(part) for part in one["loc"] if part not in ("body", "query"))
        told.append(f"{place}: {one['msg']}" if place else one["msg"])
    given = error.errors()[0].get("input")
    got = repr(given) if isinstance(given, str | int | float) else None
    return bad_request(f"the request does not fit: {'; '.join(told)}", got=got)


def error_body(refusal: Refusal, path: str) -> dict[str, Any]:
    """Return what is answered, as the protocol of `path` has it."""
    words = {
        "class": refusal.error_class,
        "message": _plain(refusal.what),
        "got": _plain(refusal.got),
        "expected": _plain(refusal.expected),
        "todo": _plain(refusal.todo),
    }
    if path.startswith("/v2"):
        return {
            "error": "; ".join(
                f"{value}" for name, value in words.items() if value and name != "class"
            )
        }
    return {"error": words}


def _plain(value: object) -> str | None:
    return None if value is None else printable(str(value)[:_MOST_TEXT])


def headers_of(refusal: Refusal, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the headers of a refusal; the body of the request may not have been read."""
    headers = {"Connection": "close", "Cache-Control": "no-store", **(more or {})}
    if refusal.retry_s is not None:
        headers["Retry-After"] = str(max(1, round(refusal.retry_s)))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def response_of(error: Exception, path: str) -> JSONResponse:
    """Return the answer where `error` was raised on the way to one."""
    refusal = as_refusal(error)
    given = getattr(error, "headers", None)
    body, headers = error_body(refusal, path), headers_of(refusal, given)
    response = JSONResponse(body, refusal.status, headers=headers)
    response.error_class = refusal.error_class  # type: ignore[attr-defined]
    return response


def install(app: fastapi.FastAPI) -> None:
    """Have `app` answer so whatever is raised in it."""

    async def answer(request: fastapi.Request, error: Exception) -> JSONResponse:
        response = response_of(error, request.url.path)
        request.scope["framebank.error"] = response.error_class  # type: ignore[attr-defined]
        return response

    kinds = (
        *(FramebankError, VideoRejected, RequestValidationError, pydantic.ValidationError),
        *(HTTPException, MemoryError, Exception),
    )
    for kind in kinds:
        app.add_exception_handler(kind, answer)
