"""Puts the page into an application of FastAPI, whatever else that serves.

    application = fastapi.FastAPI(docs_url=None, redoc_url=None)  # those come from elsewhere
    mount_pages(application, lambda: {"title": "Clips", "version": "1", "model": None,
                                      "cache": {"address": "/data/cache"}})

`/` is the page, `/static/` its style and modules, `/api/about` what it finds here. Every answer of
the application gets the headers that keep a page from running, showing or sending anything that
did not come from this server: names and answers come from files that strangers may have made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framebank.features.errors import needing

if TYPE_CHECKING:
    import fastapi
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATIC = Path(__file__).with_name("static")
_SHARED_STYLE = Path(__file__).parent.parent / "pages" / "pages.css"  # the reports' look
# Pictures of frames that an answer looked at come as data: addresses, an uploaded clip is played
# from the browser's own memory (blob:); all else comes from here.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# A newer version is seen at once: the browser asks whether what it kept still holds.
_ASK_AGAIN = {"Cache-Control": "no-cache"}


def mount_pages(app: fastapi.FastAPI, about: Callable[[], Mapping[str, Any]]) -> None:
    """Serve the page from `app`; `about` is asked, in a thread, whenever a browser opens it.

    `about` returns `{"title", "version", "model", "cache"}`: `model` is None or `{"name",
    "version", "head", "kind", "backbone", "sampling", "answers", "asks", "trained_on"}`, `cache`
    None or `{"address"}`. Raises UsageError where FastAPI is not installed.
    """
    with needing("a page in the browser", extra="serve"):
        from fastapi.responses import FileResponse
        from fastapi.staticfiles import StaticFiles

    class PageFiles(StaticFiles):
        def file_response(self, *args: Any, **kwargs: Any) -> Any:
            response = super().file_response(*args, **kwargs)
            response.headers.update(_ASK_AGAIN)
            return response

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False, response_model=None)
    def page() -> Any:
        return FileResponse(_STATIC / "index.html", headers=_ASK_AGAIN)

    @app.get("/static/pages.css", include_in_schema=False, response_model=None)
    def style() -> Any:
        return FileResponse(_SHARED_STYLE, media_type="text/css", headers=_ASK_AGAIN)

    @app.get("/favicon.ico", include_in_schema=False, response_model=None)
    def icon() -> Any:
        return FileResponse(_STATIC / "icon.svg", media_type="image/svg+xml", headers=_ASK_AGAIN)

    @app.get("/api/about", include_in_schema=False)
    def parts() -> dict[str, Any]:
        return dict(about())

    app.mount("/static", PageFiles(directory=_STATIC), name="static")
    app.add_middleware(_SafeHeaders)


class _SafeHeaders:
    """Adds `_HEADERS` to each answer that has none of the same name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [row for row in _HEADERS if row[0] not in names]
            await send(message)

        await self._app(scope, receive, send_safe if scope["type"] == "http" else send)
