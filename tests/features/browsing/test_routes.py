"""The views over HTTP: what they answer, and that whatever is wrong is told in words."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from framebank.features.browsing.browse_command import application
from framebank.features.browsing.views import CacheViews
from framebank.features.cache.reader import open_cache
from framebank.features.questions.files import QuestionFiles
from tests.made.made_cache import make_cache


def write_questions(folder: Path) -> tuple[str, str]:
    """Write a file of questions, and answers to them as `score` gives them."""
    rows = [
        {
            "question_id": "q1",
            "video_id": "a0",
            "question": "what?",
            "answer": "x",
            "split": "test",
        },
        {
            "question_id": "q2",
            "video_id": "a1",
            "question": "who?",
            "answer": "y",
            "split": "train",
        },
        {"question_id": "q3", "video_id": "nowhere", "question": "who?", "answer": "y"},
    ]
    questions = folder / "q.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "answers"
    out.mkdir()
    best = {"answer": "z", "probability": 0.7, "number": None}
    answers = [
        {**rows[0], "status": "answered", "answers": [best], "truth": "x", "correct": False},
        {
            **rows[1],
            "status": "failed",
            "reason": "no",
            "answers": [],
            "truth": "y",
            "correct": None,
        },
    ]
    text = "".join(json.dumps(row) + "\n" for row in answers)
    (out / "answers-00000-of-00001.jsonl").write_text(text)
    return str(questions), str(out)


@pytest.fixture(scope="module")
def views(looked_into: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheViews]:
    questions, answers = write_questions(tmp_path_factory.mktemp("asked"))
    views = CacheViews.open(looked_into, questions=QuestionFiles([questions]), answers=answers)
    views.start()
    yield views
    views.close()


@pytest.fixture(scope="module")
def client(views: CacheViews) -> TestClient:
    return TestClient(application(views), base_url="http://127.0.0.1:8001")


def get(client: TestClient, view: str, status: int = 200, **words: Any) -> Any:
    found = client.get(f"/api/cache/{view}", params=words)
    assert found.status_code == status, found.text
    return found.json()


def test_about(client: TestClient, looked_into: str) -> None:
    found = get(client, "about")
    assert found["address"] == looked_into and found["counts"]["done"] == 7
    assert (found["counts"]["quarantined"], found["counts"]["frames"]) == (2, 28)
    assert found["questions"] is True and "label" in found["colours"]
    assert {"questions", "split", "wrong"} <= {one["name"] for one in found["columns"]}
    assert client.get("/api/about").json()["cache"] == {"address": looked_into}
    assert client.get("/").status_code == 200


def test_rows(client: TestClient) -> None:
    found = get(client, "videos", where=["label=odd", "frames>3"], sort="video_id", descending=1)
    assert [row["video_id"] for row in found["rows"]] == ["gone.mp4", "day/a3.mp4", "day/a1.mp4"]
    assert found["total"] == 3 and found["rows"][0]["status"] == "done"
    page = get(client, "videos", offset=7, limit=1)
    assert page["total"] == 9 and [row["video_id"] for row in page["rows"]] == ["gone.mp4"]
    assert get(client, "videos", where="wrong=1")["rows"][0]["video_id"] == "day/a0.mp4"


def test_one_video(client: TestClient) -> None:
    found = get(client, "video", video_id="day/a0.mp4")
    assert found["frames"][1] == {"index": 1, "time_s": 1.0} and len(found["frames"]) == 4
    (question,) = found["questions"]
    assert (question["answer"], question["prediction"], question["correct"]) == ("x", "z", False)
    assert found["has_source"] is True and found["quarantine"] is None
    assert get(client, "video", video_id="day/a1.mp4")["questions"][0]["reason"] == "no"
    assert get(client, "video", video_id="gone.mp4")["has_source"] is False
    bad = get(client, "video", video_id="bad.mp4")["quarantine"]
    assert (bad["class"], bad["stage"]) == ("corrupt", "decode") and bad["last_intact_s"] <= 0.45


def test_pictures(client: TestClient) -> None:
    sheet = client.get("/api/cache/sheet", params={"video_id": "day/a2.mp4"})
    assert sheet.headers["content-type"] == "image/jpeg" and sheet.content[:3] == b"\xff\xd8\xff"
    frame = client.get("/api/cache/frame", params={"video_id": "day/a2.mp4", "index": 3})
    assert frame.status_code == 200 and frame.content != sheet.content
    assert (
        "4 pictures of 4"
        in get(client, "frame", 404, video_id="day/a2.mp4", index=4)["error"]["got"]
    )
    assert (
        "not there any more" in get(client, "sheet", 404, video_id="gone.mp4")["error"]["message"]
    )


def test_comparisons(client: TestClient) -> None:
    found = get(client, "neighbours", video_id="day/a0.mp4", count=3)
    assert found["method"] == "exact" and len(found["neighbours"]) == 3
    assert found["neighbours"][0] == {"video_id": "copy.mp4", "cosine": 1.0}
    pairs = get(client, "duplicates", least=0.9999)
    assert pairs["pairs"] == [{"a": "day/a0.mp4", "b": "copy.mp4", "cosine": 1.0}]
    assert pairs["complete"] is True
    plane = get(client, "map", colour="label")
    assert len(plane["points"]) == len(plane["video_ids"]) == plane["of"] == 7
    assert set(plane["groups"]) == {"odd", "even"} and plane["method"] in ("pca", "umap")
    assert max(max(map(abs, point[:2])) for point in plane["points"]) <= 1


@pytest.mark.parametrize(
    ("view", "words", "status", "told"),
    [
        ("video", {"video_id": "day/a9.mp4"}, 404, "no video"),
        ("video", {"video_id": "../../etc/passwd"}, 404, "no video"),
        ("sheet", {"video_id": "\x00<b>"}, 404, "no video"),
        ("frame", {"video_id": "day/a0.mp4", "index": -1}, 422, "index"),
        ("video", {}, 422, "video_id"),
        ("videos", {"where": "labels=odd"}, 422, "no column"),
        ("videos", {"sort": "nix"}, 422, "no column"),
        ("videos", {"limit": 10**6}, 422, "limit"),
        ("neighbours", {"video_id": "bad.mp4"}, 422, "no features"),
        ("neighbours", {"video_id": "day/a0.mp4", "count": 0}, 422, "count"),
        ("duplicates", {"least": 0.1}, 422, "least"),
        ("duplicates", {"least": "nan"}, 422, "least"),
        ("map", {"colour": "nix"}, 422, "no column"),
    ],
)
def test_what_is_wrong_is_told(
    client: TestClient, view: str, words: dict[str, Any], status: int, told: str
) -> None:
    error = get(client, view, status, **words)["error"]
    assert set(error) == {"class", "message", "got", "expected", "todo"}
    assert told in error["message"]


def test_another_host_is_refused(client: TestClient) -> None:
    found = client.get("/api/cache/about", headers={"host": "evil.example"})
    assert found.status_code == 400


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    views = CacheViews(open_cache(str(tmp_path / "cache")))
    client = TestClient(application(views), base_url="http://localhost")
    for shard in (tmp_path / "cache" / "shards").glob("*.tfrecord"):
        shard.write_bytes(b"x")
    (tmp_path / "cache" / "runs").mkdir()
    (tmp_path / "cache" / "runs" / "r.json").write_text("{")
    found = get(client, "video", video_id="a.mp4")
    assert found["frames"] == [] and "damaged shard" in found["damage"]
    assert "damaged shard" in get(client, "neighbours", 503, video_id="a.mp4")["error"]["message"]
    assert get(client, "about")["runs"][0]["run"] == "r"
    name = urllib.parse.quote("c/ü.mp4")
    assert client.get(f"/api/cache/video?video_id={name}").status_code == 200
    views.close()
