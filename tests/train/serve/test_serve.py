"""`framebank serve`, a real process, asked by real clients: many at once, bad ones among them,
while decoders are killed and the model changes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from framebank.features.asking.command import answer_question, extract_record
from framebank.features.spec import FeatureSpec
from framebank.train.retrain.registry import ROLLED_BACK, Registry
from tests.clips.plain_clips import write_clip
from tests.made import forked
from tests.made.made_cache import make_extracted
from tests.made.served import (
    CACHED,
    VERSIONS,
    WIDTH,
    Served,
    make_registry,
    make_served_cache,
    promote,
    served_spec,
    serving,
)

QUESTIONS = ("what is the man doing?", "which colour is it?")
CLIPS = ("a0.mp4", "a3.mp4")
Told = dict[tuple[str, str, str], list[dict[str, Any]]]  # version, clip, question → answers


@pytest.fixture(scope="module")
def spec() -> FeatureSpec:
    return served_spec()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, spec: FeatureSpec) -> Path:
    folder = tmp_path_factory.mktemp("served")
    make_served_cache(str(folder / "cache"), spec)
    make_registry(folder, spec)
    write_clip(folder / "long.mp4", frames=80)
    return folder


@pytest.fixture(scope="module")
def told(made: Path, spec: FeatureSpec, clips: Path) -> Told:
    """What `ask` says of two clips and of a cached video, by each version."""
    features = {
        name: extract_record(str(clips / name), spec, "random:0").features.astype(np.float32)
        for name in CLIPS
    }
    features[CACHED[0]] = (
        make_extracted(CACHED[0], rows=4, width=WIDTH).features.astype(np.float16)
    ).astype(np.float32)
    return {
        (version, name, question): answer_question(
            str(made / version), its, question, top=5, choices=[]
        )[0]
        for version in VERSIONS
        for name, its in features.items()
        for question in QUESTIONS
    }


@pytest.fixture(scope="module")
def served(made: Path, clips: Path) -> Iterator[Served]:
    words = ["--model", made / "registry", "--cache", made / "cache", "--name", "qa"]
    words += ["--allow", clips, "--max-upload", "1", "--max-clip", "5", "--queue", "24"]
    with serving(*words, "--decoders", "2", "--max-questions", "4", "--rate", "1000") as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address, timeout=90) as one:
        yield one


def same(given: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Return whether answers are equal, but for the last digit, in which batches may differ."""
    return [one["answer"] for one in given] == [one["answer"] for one in expected] and all(
        abs(one["probability"] - other["probability"]) < 3e-6
        for one, other in zip(given, expected, strict=True)
    )


def send(client: httpx.Client, path: Path | bytes, **fields: Any) -> httpx.Response:
    data = path if isinstance(path, bytes) else path.read_bytes()
    return client.post("/v1/ask", files={"clip": ("clip.mp4", data)}, data=fields)


def test_it_answers_as_ask_does(
    client: httpx.Client, made: Path, clips: Path, told: Told, served: Served
) -> None:
    words = ["ask", "--model", made / VERSIONS[0], "--json", clips / CLIPS[0], QUESTIONS[0]]
    asked = json.loads(forked.run("-m", "framebank", *words).stdout)
    assert same(asked["answers"], told[VERSIONS[0], CLIPS[0], QUESTIONS[0]])
    sent = send(client, clips / CLIPS[0], question=list(QUESTIONS)).json()
    named = client.post(
        "/v1/ask", json={"uri": str(clips / CLIPS[0]), "questions": list(QUESTIONS)}
    ).json()
    for body in (sent, named):
        assert body["model"] == {"name": "qa", "version": VERSIONS[0], "random_weights": True}
        assert body["video"]["frames"] == asked["frames"] == 4
        for row, question in zip(body["answers"], QUESTIONS, strict=True):
            assert row["question"] == question
            assert same(row["answers"], told[VERSIONS[0], CLIPS[0], question])
    assert sent["answers"][0]["unknown_words"] == asked["unknown_words"] == []
    cached = client.post("/v1/ask", json={"video_id": "a", "question": QUESTIONS[0]}).json()
    assert cached["video"]["video_id"] == CACHED[0]
    assert same(cached["answers"][0]["answers"], told[VERSIONS[0], CACHED[0], QUESTIONS[0]])
    assert "RANDOM" in "".join(served.log)


def test_rows_frames_neighbours_and_the_page(client: httpx.Client, told: Told) -> None:
    rows = [
        {"video_id": "a.mp4", "question": QUESTIONS[0], "more": 7},
        {"video_id": "nothing", "question": QUESTIONS[0]},
        {"question": QUESTIONS[0]},
    ]
    scored = client.post("/v1/score", json={"rows": rows}).json()["rows"]
    best = told[VERSIONS[0], CACHED[0], QUESTIONS[0]][0]
    assert scored[0] | {"confidence": 0} == rows[0] | {"answer": best["answer"], "confidence": 0}
    assert scored[0]["confidence"] == pytest.approx(best["probability"], abs=3e-6)
    assert scored[1]["error"]["class"] == "no_such_video" and "answer" not in scored[2]
    asked = {"video_id": "long", "question": QUESTIONS[0]}
    explained = client.post("/v1/explain", json=asked).json()
    assert len(explained["frames"]) == len(explained["pictures"]) == 100
    assert any(frame["weight"] for frame in explained["frames"])
    assert set(explained["pictures"]) == {None}  # the source of the made cache is nowhere
    near = client.post("/v1/neighbours", json={"video_id": "a", "count": 2}).json()
    assert [row["video_id"] for row in near["neighbours"]] == sorted(
        CACHED[1:], key=lambda name: -next(
            row["cosine"] for row in near["neighbours"] if row["video_id"] == name
        )
    )  # fmt: skip
    about = client.get("/api/about").json()
    assert about["model"]["answers"] == ["loading", "unloading", "red"] and about["cache"]
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/api/cache/videos").json()["total"] == 3


def test_an_explanation_of_a_clip_has_its_pictures(client: httpx.Client, clips: Path) -> None:
    data = (clips / CLIPS[0]).read_bytes()
    files = {"clip": ("x.mp4", data)}
    body = client.post("/v1/explain", files=files, data={"question": QUESTIONS[0]}).json()
    assert len(body["pictures"]) == len(body["frames"]) == 4
    assert all(one.startswith("data:image/jpeg;base64,/9j/") for one in body["pictures"])
    assert body["frames"][1]["time_s"] > body["frames"][0]["time_s"]


def test_the_open_inference_protocol(client: httpx.Client, told: Told) -> None:
    assert client.get("/v2/health/ready").json() == {"ready": True}
    about = client.get("/v2/models/qa").json()
    assert about["versions"] == [VERSIONS[0]]
    assert [one["name"] for one in about["inputs"]] == ["features", "question"]
    assert client.get(f"/v2/models/qa/versions/{VERSIONS[0]}/ready").json()["ready"]
    features = make_extracted(CACHED[0], rows=4, width=WIDTH).features.astype(np.float16)
    padded = np.concatenate([features, np.zeros((3, WIDTH))])
    inputs = [
        {"name": "features", "shape": [1, 7, WIDTH], "datatype": "FP32", "data": padded.tolist()},
        {"name": "question", "shape": [1], "datatype": "BYTES", "data": [QUESTIONS[0]]},
    ]
    asked = {"id": "7", "inputs": inputs, "outputs": [{"name": "probabilities"}]}
    body = client.post("/v2/models/qa/infer", json=asked).json()
    assert body["id"] == "7" and body["model_version"] == VERSIONS[0]
    (output,) = body["outputs"]
    named = dict(zip(about["parameters"]["answers"], output["data"], strict=True))
    for one in told[VERSIONS[0], CACHED[0], QUESTIONS[0]]:
        assert named[one["answer"]] == pytest.approx(one["probability"], abs=3e-6)
    inputs[0]["shape"] = [1, 6, WIDTH]
    refused = client.post("/v2/models/qa/infer", json={"inputs": inputs})
    assert refused.status_code == 422 and "shape" in refused.json()["error"]
    assert client.get("/v2/models/other").status_code == 404


BAD: list[tuple[str, Callable[[httpx.Client, Path], httpx.Response], int, str]] = [
    ("no video", lambda c, f: send(c, b"no video" * 99, question="x"), 422, "not_a_video"),
    ("empty", lambda c, f: send(c, b"", question="x"), 422, "empty"),
    ("too large", lambda c, f: send(c, bytes(2 << 20), question="x"), 413, "too_large"),
    ("too long", lambda c, f: send(c, f / "long.mp4", question="x"), 413, "too_large"),
    ("no question", lambda c, f: send(c, b"x"), 422, "usage"),
    ("two clips", lambda c, f: send(c, b"x", video_id="a"), 422, "usage"),
    ("many", lambda c, f: c.post("/v1/ask", json={"video_id": "a", "questions": ["x"] * 5}),
     422, "usage"),
    ("no id", lambda c, f: c.post("/v1/ask", json={"video_id": "zz", "question": "x"}),
     404, "no_such_video"),
    ("elsewhere", lambda c, f: c.post("/v1/ask", json={"uri": "/etc/passwd", "question": "x"}),
     403, "not_allowed"),
    ("out of it", lambda c, f: c.post(
        "/v1/ask", json={"uri": str(f / ".." / "clips" / "a0.mp4"), "question": "x"}),
     403, "not_allowed"),
    ("fetched", lambda c, f: c.post(
        "/v1/ask", json={"uri": "http://169.254.169.254/x", "question": "x"}), 403, "not_allowed"),
    ("no JSON", lambda c, f: c.post(
        "/v1/ask", content=b"{", headers={"content-type": "application/json"}), 422, "usage"),
    ("a field", lambda c, f: c.post("/v1/ask", json={"video_id": "a", "wish": 1}), 422, "usage"),
    ("a type", lambda c, f: c.post("/v1/ask", content=b"x"), 415, "content_type"),
    ("asked", lambda c, f: c.post("/v1/classify", json={"video_id": "a"}), 422, "usage"),
    ("a host", lambda c, f: c.get("/api/about", headers={"host": "evil.example"}), 421, "host"),
    ("a page of another site", lambda c, f: c.post(
        "/v1/ask", json={}, headers={"sec-fetch-site": "cross-site"}), 403, "cross_site"),
    ("no route", lambda c, f: c.get("/v1/nothing"), 404, "route"),
    ("a verb", lambda c, f: c.get("/v1/ask"), 405, "route"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "status", "name"), [row[1:] for row in BAD], ids=[r[0] for r in BAD]
)
def test_mistakes_are_told(
    client: httpx.Client,
    made: Path,
    call: Callable[[httpx.Client, Path], httpx.Response],
    status: int,
    name: str,
) -> None:
    response = call(client, made)
    error = response.json()["error"]
    assert (response.status_code, error["class"]) == (status, name), error
    assert error["message"] and set(error) == {"class", "message", "got", "expected", "todo"}
    assert str(made) not in response.text


def slow_request(served: Served) -> int:
    """Send a body of which little comes; return the status of the answer."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as peer:
        peer.sendall(
            b"POST /v1/ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        peer.settimeout(1)
        for _ in range(30):
            with contextlib.suppress(TimeoutError):
                return int(peer.recv(4096).split()[1])
            peer.sendall(b" ")
    return 0


def test_many_at_once_bad_ones_kills_and_a_promotion_among_them(
    served: Served, client: httpx.Client, made: Path, clips: Path, told: Told
) -> None:
    wrong: list[object] = []
    seen: set[tuple[str, int]] = set()

    def good(kind: str, name: str, question: str) -> None:
        if kind == "sent":
            response = send(client, clips / name, question=question)
        else:
            body = {"video_id" if kind == "cached" else "uri": name, "question": question}
            response = client.post("/v1/ask", json=body)
        seen.add((kind, response.status_code))
        if response.status_code in (429, 503):
            if not response.json()["error"]["todo"] or "retry-after" not in response.headers:
                wrong.append(response.text)
        elif response.status_code != 200:
            # Of a clip whose decoder was killed twice that is said.
            if response.json()["error"]["class"] != "crash":
                wrong.append((kind, response.text))
        else:
            body = response.json()
            expected = told[body["model"]["version"], name.rpartition("/")[2], question]
            if not same(body["answers"][0]["answers"], expected):
                wrong.append((kind, body, expected))

    def bad(row: tuple[Any, ...]) -> None:
        status = row[1](client, made).status_code
        seen.add(("bad", status))
        if status not in (row[2], 429):
            wrong.append((row[0], status))

    def slow() -> None:
        seen.add(("slow", status := slow_request(served)))
        if status not in (408, 429):
            wrong.append(("slow", status))

    def disturb() -> None:
        for number in range(4):
            time.sleep(0.4)
            if number == 1:
                promote(Registry(str(made / "registry")), VERSIONS[1])
            for pid in served.decoders()[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    jobs: list[Callable[[], None]] = [slow, slow]
    for number in range(48):
        name, question = CLIPS[number % 2], QUESTIONS[number // 2 % 2]
        jobs.append(lambda n=name, q=question: good("sent", n, q))  # type: ignore[misc]
        if number % 3 == 0:
            jobs.append(lambda q=question: good("cached", CACHED[0], q))  # type: ignore[misc]
            jobs.append(lambda n=name, q=question: good("uri", str(clips / n), q))  # type: ignore[misc]
    jobs += [lambda row=row: bad(row) for row in BAD]  # type: ignore[misc]
    random.Random(0).shuffle(jobs)
    before = served.resident_bytes()
    disturber = threading.Thread(target=disturb)
    disturber.start()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for outcome in [pool.submit(job) for job in jobs]:
            outcome.result()
    disturber.join()
    assert not wrong
    assert {("sent", 200), ("cached", 200), ("uri", 200)} <= seen
    assert served.resident_bytes() - before < 400 << 20
    metrics = client.get("/metrics").text
    assert 'framebank_requests_total{route="/v1/ask",status="200"}' in metrics
    assert not [line for line in metrics.splitlines() if 'status="500"' in line]


def version_in_use(client: httpx.Client, version: str) -> bool:
    """Return whether a version comes into use within some seconds."""
    for _ in range(100):
        if client.get("/api/about").json()["model"]["version"] == version:
            return True
        time.sleep(0.2)
    return False


def test_a_rollback_is_taken_up_and_a_broken_version_is_not(
    client: httpx.Client, served: Served, made: Path, told: Told
) -> None:
    registry = Registry(str(made / "registry"))
    assert version_in_use(client, VERSIONS[1])
    assert registry.move(registry.current(), VERSIONS[0], event=ROLLED_BACK, reason="by hand")
    assert version_in_use(client, VERSIONS[0])
    asked = {"video_id": "a", "question": QUESTIONS[1]}
    body = client.post("/v1/ask", json=asked).json()
    assert same(body["answers"][0]["answers"], told[VERSIONS[0], CACHED[0], QUESTIONS[1]])
    promote(registry, "20260103-000000-cccccc")  # of which there is nothing
    for _ in range(100):
        if "cccccc cannot be taken up" in "".join(served.log):
            break
        time.sleep(0.2)
    assert "cccccc cannot be taken up" in "".join(served.log)
    assert client.post("/v1/ask", json=asked).json()["model"]["version"] == VERSIONS[0]


def test_the_schema_is_kept(served: Served) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import checks, openapi

    schema = openapi.from_url(f"{served.address}/openapi.json")
    schema = schema.include(path_regex=r"^/(v1|v2|healthz|readyz)")
    chosen = [
        checks.not_a_server_error,
        openapi.checks.status_code_conformance,
        openapi.checks.content_type_conformance,
        openapi.checks.response_schema_conformance,
    ]
    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:

        @settings(
            max_examples=4, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=chosen)

        check()


def test_sigterm_lets_requests_end(served: Served, clips: Path) -> None:
    """The last one: it ends the server."""
    data = (clips / CLIPS[0]).read_bytes()
    head = b'--b\r\nContent-Disposition: form-data; name="clip"; filename="x.mp4"\r\n\r\n'
    tail = b'\r\n--b\r\nContent-Disposition: form-data; name="question"\r\n\r\nwhat?\r\n--b--\r\n'
    begun = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield head + data[:100]
        begun.set()
        time.sleep(1.5)
        yield data[100:] + tail

    def ask() -> httpx.Response:
        kind = {"content-type": "multipart/form-data; boundary=b"}
        return httpx.post(f"{served.address}/v1/ask", content=pieces(), headers=kind, timeout=60)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(ask)
        begun.wait(20)
        time.sleep(0.3)
        served.process.terminate()
        time.sleep(0.3)
        assert httpx.get(f"{served.address}/readyz").status_code == 503
        late = httpx.post(f"{served.address}/v1/ask", json={})
        assert late.status_code == 503 and "ending" in late.json()["error"]["message"]
        assert under_way.result().status_code == 200
    assert served.process.wait(30) == 0
