"""Who passes the gate of the server, and what the others are told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import fastapi
import httpx
import pytest
import uvicorn

from framebank.features.browsing import http_errors
from framebank.features.errors import JobError, UsageError
from framebank.train.serve import gate as gates
from framebank.train.serve import server
from framebank.train.serve.gate import Gate, own_hosts
from framebank.train.serve.limits import Limits, Rates
from framebank.train.serve.metrics import Metrics

TOKEN = "a-token-of-32-plain-characters-x"


def application() -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    http_errors.install(app)

    @app.post("/v1/wait")
    async def wait(seconds: float) -> dict[str, float]:
        await asyncio.sleep(seconds)
        return {"waited": seconds}

    @app.post("/v1/fail")
    async def fail(kind: str) -> None:
        raise {"job": JobError("no room"), "ours": KeyError("x")}[kind]

    @app.get("/")
    async def page() -> str:
        return "page"

    @app.get("/readyz")
    async def ready() -> str:
        return "ready"

    return app


def gated(*, token: str | None = None, hosts: frozenset[str] | None = None, **limits: Any) -> Gate:
    return Gate(application(), Limits(**limits), Metrics(), token=token, hosts=hosts)


def client_of(gate: Gate) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False, client=("10.0.0.9", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")


def ask(gate: Gate, *words: Any, **more: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        async with client_of(gate) as client:
            return await client.request(*words, **more)

    return asyncio.run(once())


def test_a_token_lets_pass_in_a_header_or_a_cookie() -> None:
    gate = gated(token=TOKEN)
    refused = ask(gate, "POST", "/v1/wait?seconds=0")
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in refused.text and refused.json()["error"]["class"] == "token"
    for header, status in ((f"Bearer {TOKEN}", 200), ("Bearer x", 401), (TOKEN, 401)):
        headers = {"authorization": header}
        assert ask(gate, "POST", "/v1/wait?seconds=0", headers=headers).status_code == status
    assert ask(gate, "GET", "/readyz").status_code == ask(gate, "GET", "/").status_code == 200
    assert ask(gate, "GET", "/login?token=nothing").status_code == 401
    login = ask(gate, "GET", f"/login?token={TOKEN}")
    cookie = login.headers["set-cookie"]
    assert login.status_code == 303 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    for value, status in ((cookie.partition(";")[0], 200), ("framebank_login=x", 401)):
        headers = {"cookie": value}
        assert ask(gate, "POST", "/v1/wait?seconds=0", headers=headers).status_code == status


def test_loopback_is_for_its_own_pages() -> None:
    gate = gated(hosts=own_hosts("127.0.0.1"))
    for host, status in (("localhost:1", 200), ("[::1]:8000", 200), ("evil.example", 421)):
        assert ask(gate, "GET", "/readyz", headers={"host": host}).status_code == status
    cross = {"sec-fetch-site": "cross-site"}
    assert ask(gate, "POST", "/v1/wait?seconds=0", headers=cross).status_code == 403
    assert own_hosts("0.0.0.0") is None and own_hosts("::1") == own_hosts("::1")
    assert ask(gated(), "GET", "/readyz", headers={"host": "any.example"}).status_code == 200


def test_more_than_the_queue_holds_is_told_to_come_again() -> None:
    gate = gated(queue=2)

    async def all_at_once() -> list[httpx.Response]:
        async with client_of(gate) as client:
            calls = [client.post("/v1/wait?seconds=0.3") for _ in range(5)]
            return await asyncio.gather(*calls, client.get("/readyz"))

    *answers, ready = asyncio.run(all_at_once())
    assert sorted(one.status_code for one in answers) == [200, 200, 429, 429, 429]
    assert ready.status_code == 200 and gate.under_way == 0
    (one, *_) = [one for one in answers if one.status_code == 429]
    assert one.headers["retry-after"] == "1" and one.json()["error"]["class"] == "queue"


def test_what_takes_too_long_has_no_memory_or_comes_late_is_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = ask(gated(timeout_s=0.2), "POST", "/v1/wait?seconds=5")
    assert late.status_code == 503 and "0.2 s" in late.json()["error"]["message"]
    gate = gated()
    gate.draining = True
    assert "ending" in ask(gate, "POST", "/v1/wait?seconds=0").json()["error"]["message"]
    monkeypatch.setattr(gates, "resident_bytes", lambda: 2**60)
    full = ask(gated(memory_mib=64), "POST", "/v1/wait?seconds=0")
    assert full.status_code == 503 and "memory" in full.json()["error"]["message"]


def test_errors_have_words_and_faults_of_ours_say_so() -> None:
    gate = gated()
    told = ask(gate, "POST", "/v1/fail?kind=job")
    assert told.status_code == 503 and told.headers["retry-after"]
    assert told.json()["error"] == {
        "class": "job", "message": "no room", "got": None, "expected": None, "todo": None,
    }  # fmt: skip
    ours = ask(gate, "POST", "/v1/fail?kind=ours")
    assert ours.status_code == 500 and ours.json()["error"]["class"] == "internal"
    missing = ask(gate, "POST", "/v1/wait")
    assert missing.status_code == 422 and "seconds" in missing.json()["error"]["message"]


def test_rates_are_of_each_address_and_come_back() -> None:
    now = [0.0]
    rates = Rates(2, clock=lambda: now[0])
    assert [rates.wait_s("a") for _ in range(4)] == [0, 0, 0, 0]
    assert rates.wait_s("a") == pytest.approx(0.5) and rates.wait_s("b") == 0
    now[0] = 0.6
    assert rates.wait_s("a") == 0 < rates.wait_s("a")
    assert ask(gated(rate=0.1), "GET", "/v1/x").status_code == 404
    gate = gated(rate=0.1)
    assert [ask(gate, "GET", "/v1/x").status_code for _ in range(2)] == [404, 429]
    assert ask(gate, "GET", "/readyz").status_code == 200  # a probe is never refused


@pytest.mark.parametrize("name", ["queue", "rate", "timeout_s", "upload_mib", "clip_s"])
def test_a_limit_of_nothing_is_a_mistake(name: str) -> None:
    with pytest.raises(UsageError):
        Limits(**{name: 0})


@contextlib.contextmanager
def listening(app: Any) -> Iterator[int]:
    """Serve an application with the server's own protocol, in a thread."""
    bound = server.bound_socket("127.0.0.1", 0)
    config = uvicorn.Config(app, http=server.Protocol, lifespan="off", log_config=None, ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield int(bound.getsockname()[1])
    finally:
        running.should_exit = True
        thread.join()


def test_who_does_not_finish_a_head_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_S", 0.4)
    with listening(gated()) as port:
        for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
                peer.sendall(sent)
                assert peer.recv(10) == b""
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(2):  # of a kept connection too
                answer = client.post("/v1/wait?seconds=0.9", timeout=20)
                assert answer.status_code == 200
                time.sleep(0.1)


def test_a_port_that_is_taken_is_told() -> None:
    with contextlib.closing(server.bound_socket("127.0.0.1", 0)) as bound:
        assert server.address_of(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(UsageError, match="cannot listen"):
            server.bound_socket("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(UsageError, match="cannot listen"):
        server.bound_socket("no-such-host.invalid", 0)
