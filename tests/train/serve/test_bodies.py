"""Bodies as they come, questions that are asked together, and the parts of an explanation."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import fastapi
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from framebank.features.asking.heads import Head
from framebank.features.asking.one_clip import Asked
from framebank.features.asking.trained_model import TrainedModel
from framebank.features.browsing import http_errors
from framebank.features.browsing.http_errors import Refusal
from framebank.features.errors import JobError
from framebank.features.video import VideoRef
from framebank.train.serve import uploads
from framebank.train.serve.asker import Asker
from framebank.train.serve.clips import allowed_ref
from framebank.train.serve.explaining import stretches

CLIP = bytes(range(256)) * 40 + b"\r\n-b\r\n--a--"


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """Return a form of (name, file name, content) parts."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"' if file is not None else ""
        body += f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + end


def receive(body: bytes, step: int, path: Path, *, most: int = 1 << 20) -> Any:
    """Send a body in chunks of `step` bytes; return the form, with its clip's content."""
    app = fastapi.FastAPI()
    http_errors.install(app)

    @app.post("/")
    async def take(request: fastapi.Request) -> dict[str, Any]:
        _, options = uploads.kind_of(request)
        async with uploads.received_form(request, options, str(path), most_bytes=most) as got:
            data = path.read_bytes().hex() if got.path else None
            return {"fields": got.fields, "name": got.name, "clip": data}

    async def chunks() -> Any:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            kind = {"content-type": "multipart/form-data; boundary=b"}
            return await client.post("/", content=chunks(), headers=kind)

    return asyncio.run(send())


@pytest.mark.parametrize("step", [1, 7, 100, 1 << 20])
def test_a_form_reads_the_same_however_it_is_cut(tmp_path: Path, step: int) -> None:
    clip = CLIP if step > 1 else CLIP[-300:]
    named = ("clip", "C:\\a\\../ü.mp4", clip)
    body = form(("question", None, b"one"), named, ("question", None, "ü".encode()))
    told = receive(body, step, tmp_path / "clip").json()
    assert told == {
        "fields": {"question": ["one", "ü"]}, "name": "ü.mp4", "clip": clip.hex(),
    }  # fmt: skip
    assert not (tmp_path / "clip").exists()  # gone with the request


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (form(("clip", "x", b"1"), end=b""), 422, "ends before"),
        (form(("clip", "x", b"1"), ("clip", "y", b"2")), 422, "several clips"),
        (form(("clip", "x", bytes(3000))), 413, "larger"),
        (form(("question", None, bytes(2 << 20))), 413, "larger"),
        (b"nothing of a form", 422, "cannot be read"),
        (b"", 422, "ends before"),
        (form(*[("q", None, b"")] * 1001), 422, "too many parts"),
        (b"--b\r\nX: " + b"y" * 5000 + b"\r\n\r\n", 422, "form"),
    ],
)
def test_a_form_that_is_none_is_told(tmp_path: Path, body: bytes, status: int, words: str) -> None:
    told = receive(body, 1 << 16, tmp_path / "clip", most=2000)
    assert told.status_code == status and words in told.json()["error"]["message"]
    assert not (tmp_path / "clip").exists()


def model_of(calls: list[int], *, fails: str = "nothing") -> TrainedModel:
    """Return a model that answers with the sum of the features."""

    def call(features: NDArray[np.float32], *asked: list[bytes]) -> NDArray[np.float32]:
        calls.append(len(features))
        if fails.encode() in asked[0]:
            raise RuntimeError("it chokes\non this")
        return np.repeat(features.sum((1, 2))[:, None], 2, axis=1)

    return TrainedModel(call, Head(answers=("a", "b")))


def test_questions_that_wait_are_asked_together_and_a_bad_one_fails_alone() -> None:
    calls: list[int] = []
    model, other = model_of(calls, fails="bad"), model_of(calls)
    noted: list[int] = []
    asker = Asker(noted.append)
    asked = [Asked(np.full((4, 3), n, np.float32), "bad" if n == 5 else "q") for n in range(12)]
    outcomes = asker.ask(model, asked) + asker.ask(other, asked[:2])
    asker.close()
    for number, outcome in enumerate(outcomes[:12]):
        if number == 5:
            with pytest.raises(JobError, match="chokes"):
                outcome.result(0)
        else:
            assert outcome.result(0).tolist() == [12 * number] * 2
    assert [one.result(0)[0] for one in outcomes[12:]] == [0, 12]
    assert noted == calls and max(calls) > 1


def test_each_row_of_a_clip_is_left_out_and_of_a_long_one_stretches() -> None:
    assert stretches(3) == [(0, 1), (1, 2), (2, 3)]
    long = stretches(1000)
    assert len(long) == 64 and long[0][0] == 0 and long[-1][1] == 1000
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(long))


def test_a_uri_leads_below_a_root_or_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    for path in (root / "in" / "a.mp4", tmp_path / "b.mp4", tmp_path / "root2.mp4"):
        path.write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "b.mp4")
    (root / "fine.mp4").symlink_to(root / "in" / "a.mp4")
    roots = (str(root), "gs://bucket/clips")
    found = allowed_ref(str(root / "in" / "a.mp4"), roots)
    assert isinstance(found, VideoRef) and found.size_bytes == 1
    assert allowed_ref(str(root / "fine.mp4"), roots).uri == str(root / "in" / "a.mp4")
    for uri in (
        str(tmp_path / "b.mp4"), str(root / "link.mp4"), str(root / ".." / "b.mp4"), str(root),
        f"{root}2.mp4", "in/a.mp4", "http://10.0.0.1/x", "gs://bucket/other/x",
        "gs://bucket/clips/../x", "gs://bucket/clips2/x", "s3://bucket/clips/x", f"{root}/\0", "",
    ):  # fmt: skip
        with pytest.raises(Refusal) as refused:
            allowed_ref(uri, roots)
        assert refused.value.status == 403 and str(tmp_path) not in str(refused.value)
