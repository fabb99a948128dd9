"""`framebank browse CACHE`: look into a cache in the browser.

    framebank browse cache
    framebank browse gs://bucket/cache --questions questions.csv --answers answers --port 9000

Serves a page on this machine alone (127.0.0.1): contact sheets, filters by any column, quarantine,
neighbours, near-duplicates, a map; with --questions what is asked about each clip, with --answers
what a model answered. Opens at once; what is made of the cache is made in the background and kept
beside it (`thumbnails/`, `moments/`), or in ~/.cache/framebank where the cache cannot be written.
Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from framebank.features.errors import UsageError, needing
from framebank.features.questions.command import add_format_arguments
from framebank.features.questions.files import QuestionFiles
from framebank.features.terminal import say

if TYPE_CHECKING:
    import fastapi

    from framebank.features.browsing.views import CacheViews

_HOST = "127.0.0.1"
_DRAIN_S = 2
_SOON_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("cache", metavar="CACHE", help="folder or gs://BUCKET/NAME of a cache")
    add("--port", type=int, default=8001, metavar="N", help="of this machine; 0 takes a free one")
    add("--questions", nargs="+", metavar="FILE", help="question files about its videos")
    add_format_arguments(parser)
    add("--answers", metavar="OUT", help="what `framebank score --out` wrote")
    add("--no-open", action="store_true", help="open no browser")


def next_command(args: argparse.Namespace) -> str:
    return ""  # it lasts until somebody ends it


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; returns 0. Raises UsageError, CacheError."""
    # While the catalog is read, which takes the interpreter little: together they are a second.
    threading.Thread(target=_import_server, daemon=True).start()
    from framebank.features.browsing.views import CacheViews

    questions = None
    if args.questions:
        questions = QuestionFiles(args.questions, args.format, args.mapping)
    with _listening(args.port) as listener:
        views = CacheViews.open(args.cache, questions=questions, answers=args.answers)
        if views.asked is not None and views.asked.strange:
            say(f"{views.asked.strange:,} questions are about no video of the cache")
        soon = threading.Timer(_SOON_S, views.start)  # the first page comes first
        soon.daemon = True
        try:
            with needing("browse", extra="browse"):
                import uvicorn
            config = uvicorn.Config(
                application(views), log_level="warning", access_log=False, lifespan="off",
                timeout_graceful_shutdown=_DRAIN_S, server_header=False,
            )  # fmt: skip
            address = f"http://{_HOST}:{listener.getsockname()[1]}/"
            print(address, flush=True)
            say("Ctrl-C ends this")
            soon.start()
            if not args.no_open and _has_display():
                threading.Thread(target=_open, args=(address,), daemon=True).start()
            server = uvicorn.Server(config)
            with _ending(server):
                server.run(sockets=[listener])
        finally:
            soon.cancel()
            views.close()
    return 0


def _import_server() -> None:
    with contextlib.suppress(ImportError):  # which is told where it is needed
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401


def application(views: CacheViews) -> fastapi.FastAPI:
    """Return the application: the page and what it asks for."""
    import fastapi
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from framebank import __version__
    from framebank.features.browsing import http_errors
    from framebank.features.browsing.routes import cache_router
    from framebank.features.web.application import mount_pages

    app = fastapi.FastAPI(title="Framebank", version=__version__, docs_url=None, redoc_url=None)
    http_errors.install(app)
    app.include_router(cache_router(views))
    title = views.cache.path.rstrip("/").rsplit("/", 1)[-1] or views.cache.path

    def about() -> dict[str, Any]:
        cache = {"address": views.cache.path}
        return {"title": title, "version": __version__, "model": None, "cache": cache}

    mount_pages(app, about)
    # A page of elsewhere whose name was made to mean this machine has another Host.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])
    return app


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens; raises UsageError for a port that cannot be had."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
            listener.listen(128)
        except (OSError, OverflowError) as err:
            raise UsageError(
                f"port {port} cannot be used",
                got=getattr(err, "strerror", None) or err,
                todo="give another --port; 0 takes a free one",
            ) from err
        yield listener


@contextlib.contextmanager
def _ending(server: Any) -> Iterator[None]:
    """Have the first Ctrl-C or SIGTERM end the server, and nothing be said of it."""
    server.capture_signals = contextlib.nullcontext  # its own raise the signal again at the end
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, server.handle_exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_display() -> bool:
    if sys.platform == "darwin":
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open(address: str) -> None:
    import webbrowser

    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(address)
