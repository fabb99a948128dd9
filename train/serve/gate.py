"""What a request passes before it reaches a route: who may ask, how often, how many at once.

An ASGI application around another one. Requests that work (those of `/v1/` and of the open
inference protocol) take a place in the queue each; beyond its places they are refused at once, for
a client that is told to come again costs less than one that waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from framebank.features.browsing.http_errors import CLIENT_LEFT, Refusal, response_of, unavailable
from framebank.train.serve.limits import Limits, Rates, resident_bytes
from framebank.train.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "framebank_login"
_PAGE = ("/", "/favicon.ico")  # which asks for the token where it needs one
_PROBES = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
_LEFT_STATUS = "499"  # as nginx calls it
_DRAINED_BYTES = 64 * 2**20  # of a refused body that are read, so that its sender hears the answer
_DRAINED_S = 10.0
_COOKIE_S = 30 * 24 * 3600


class Gate:
    """Holds the token, the rates and the queue of one server; `draining`: it takes no more work."""

    def __init__(
        self,
        app: Application,
        limits: Limits,
        metrics: Metrics,
        *,
        token: str | None,
        hosts: frozenset[str] | None,
    ) -> None:
        """`hosts`: the names that the Host header may have, None for any: on loopback a page from
        elsewhere could have its own name lead here."""
        self._app, self._limits, self._metrics = app, limits, metrics
        self._token, self._hosts = token, hosts
        self._rates = Rates(limits.rate)
        self.draining = False
        self.under_way = 0
        metrics.queue.set(limits.queue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, body = time.monotonic(), _Body(receive)
        answer = _Answer(send, body)
        try:
            self._check(scope)
            if scope["path"] == "/login":
                await self._log_in(scope, answer)
            else:
                await self._pass(scope, body, answer)
        except Exception as error:  # whatever it is, it gets its words
            if answer.begun and "framebank.error" in scope:
                return  # it has been told
            if answer.begun:
                raise
            response = response_of(error, scope["path"])
            scope["framebank.error"] = response.error_class  # type: ignore[attr-defined]
            await response(scope, body.receive, answer.send)
        finally:
            self._note(scope, answer, time.monotonic() - start)

    async def _pass(self, scope: Scope, body: _Body, answer: _Answer) -> None:
        if not _is_work(scope):
            await self._app(scope, body.receive, answer.send)
            return
        self._check_room()
        self.under_way += 1
        self._metrics.under_way.set(self.under_way)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                await self._app(scope, body.receive, answer.send)
        except TimeoutError:
            what = f"it was not done within {self._limits.timeout_s:g} s, the limit of this server"
            raise unavailable(what, todo="try again later, or ask for less", retry_s=5) from None
        finally:
            self.under_way -= 1
            self._metrics.under_way.set(self.under_way)

    def _check(self, scope: Scope) -> None:
        """Raise Refusal for who may not ask."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts is not None and _host(headers.get(b"host", "")) not in self._hosts:
            expected = f"http://localhost:{scope['server'][1]}"
            what = "this server is for its own machine"
            raise Refusal(421, "host", what, got=headers.get(b"host"), expected=expected)
        if headers.get(b"sec-fetch-site") == "cross-site" and scope["method"] != "GET":
            raise Refusal(403, "cross_site", "a page of another site may not ask this server")
        if scope["path"] in _PROBES:
            return
        address = scope["client"][0] if scope.get("client") else ""
        if wait_s := self._rates.wait_s(address):
            what = f"more than {self._limits.rate:g} requests a second from one address"
            raise Refusal(429, "rate", what, todo="ask more slowly", retry_s=wait_s)
        path = scope["path"]
        is_open = path == "/login" or path in _PAGE or path.startswith("/static/")
        if self._token is not None and not is_open and not self._knows(headers):
            raise Refusal(
                401,
                "token",
                "this server needs a token",
                expected="the header `Authorization: Bearer TOKEN`",
                todo="open /login?token=TOKEN once to use the page",
            )

    def _knows(self, headers: dict[bytes, str]) -> bool:
        kind, _, given = headers.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip(), self._token or ""):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, _cookie_of(self._token or ""))

    def _check_room(self) -> None:
        if self.draining:
            raise unavailable("the server is ending", todo="ask another one", retry_s=5)
        if self.under_way >= self._limits.queue:
            what = f"{self.under_way} requests are under way, which are all that this server takes"
            raise Refusal(429, "queue", what, todo="try again after a moment", retry_s=1)
        if resident_bytes() > self._limits.memory_bytes:
            raise unavailable("the server has no memory to spare", todo="try again later")

    async def _log_in(self, scope: Scope, answer: _Answer) -> None:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._token is not None and not _same(given, self._token):
            raise Refusal(401, "token", "not the token of this server", todo="see its --token-file")
        cookie = f"{COOKIE}={_cookie_of(self._token or '')}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", b"/"), (b"cache-control", b"no-store")]
        headers.append((b"set-cookie", f"{cookie}; Max-Age={_COOKIE_S}".encode()))
        await answer.send({"type": "http.response.start", "status": 303, "headers": headers})
        await answer.send({"type": "http.response.body", "body": b""})

    def _note(self, scope: Scope, answer: _Answer, took_s: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        has_left = scope.get("framebank.error") == CLIENT_LEFT
        status = _LEFT_STATUS if has_left else answer.status
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(took_s)
        if name := scope.get("framebank.error"):
            self._metrics.errors.labels(name).inc()


class _Answer:
    """What was answered so far. A refusal waits for some of a body that is not read."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send, self._body = send, body
        self.begun, self.status = False, "500"

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                await self._body.drain()
            self.begun, self.status = True, str(message["status"])
        await self._send(message)


class _Body:
    """A request's body, and whether all of it was read."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._is_read = receive, False

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._is_read |= not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read some of what is left: a client that still sends would not see the answer."""
        left = _DRAINED_BYTES
        try:
            async with asyncio.timeout(_DRAINED_S):
                while not self._is_read and left > 0:
                    left -= len((await self.receive()).get("body", b"")) or 1
        except TimeoutError:
            pass


def _is_work(scope: Scope) -> bool:
    path = scope["path"]
    return path.startswith("/v1/") or (path.startswith("/v2/") and path.endswith("/infer"))


def _host(value: str) -> str:
    """Return the name in a Host header, without its port."""
    name = value.partition("]")[0] + "]" if value.startswith("[") else value.partition(":")[0]
    return name.lower()


def own_hosts(host: str) -> frozenset[str] | None:
    """Return the names by which a server on this address is called, None where any may be."""
    if not is_loopback(host):
        return None
    return frozenset(("localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host))


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8", "replace"))


def _cookie_of(token: str) -> str:
    return hashlib.sha256(b"framebank login " + token.encode()).hexdigest()
