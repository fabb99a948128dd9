"""`framebank score` on a real cache, a real model and Beam's local runner."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from features import layout
from features.errors import JobError, SpecMismatchError, UsageError
from pipelines.score_command import add_arguments, run
from tests.made_cache import SPEC, make_cache
from tests.made_model import ANSWERS, make_model

QUESTIONS: list[dict[str, Any]] = [
    {"video_id": "a.mp4", "question": "what is the man doing?", "answer": "loading"},
    {"video_id": "gone.mp4", "question": "which colour is it?", "answer": "red"},
    {"video_id": "bad.mp4", "question": "which colour is it?", "answer": "red"},
    {"video_id": "c/ü.mp4", "question": "哪里?", "answer": "nobody learnt this"},
    {
        "video_id": "b",
        "question": "which colour is it?",
        "type": "colour",
        "answer": "red",
        "split": "dev",
    },
    {"video_id": "d.mp4", "question": "what is the man doing?"},
    {"video_id": "a.mp4", "question": "\ud800 zzz qqq", "answer": "unloading"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "model", SPEC, width=8)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    make_cache(str(tmp_path / "cache"))
    return tmp_path / "cache"


def _score(
    model: Path, cache: Path, *more: str, rows: list[dict[str, Any]] = QUESTIONS
) -> tuple[int, Path]:
    questions, out = cache.parent / "questions.jsonl", cache.parent / "answers"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [
        *("--model", str(model), "--cache", str(cache), "--questions", str(questions)),
        *("--out", str(out), *more),
    ]
    return run(parser.parse_args(words), []), out


def _rows(out: Path) -> list[dict[str, Any]]:
    paths = sorted(out.glob("answers-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_every_question_gets_its_row(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = _score(model, cache, "--json", "--top", "2")
    assert status == 0
    rows = _rows(out)
    assert [row["question"] for row in rows] == [row["question"] for row in QUESTIONS]
    states = [row["status"] for row in rows]
    assert states == ["answered", "not_in_cache", "quarantined", *["answered"] * 4]
    assert rows[2]["reason"].startswith("missing at open") and rows[2]["answers"] == []
    assert rows[4]["video_id"] == "b.mp4"
    for row in rows:
        if row["status"] == "answered":
            assert len(row["answers"]) == 2
            assert {one["answer"] for one in row["answers"]} < set(ANSWERS)
    assert rows[3]["correct"] is False  # outside the vocabulary
    assert rows[5]["correct"] is None and rows[5]["truth"] is None
    assert rows[0]["correct"] is (rows[0]["answers"][0]["answer"] == "loading")
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out) == summary
    counts = {name: summary[name] for name in ("questions", "answered", "without_truth", "judged")}
    assert counts == {"questions": 7, "answered": 5, "without_truth": 1, "judged": 4}
    assert summary["by_split"]["val"]["judged"] == 1 and rows[4]["split"] == "val"
    assert summary["random_weights"] is True and summary["by_type"]["colour"]["judged"] == 1
    assert sorted(path.name for path in out.iterdir()) == [
        "answers-00000-of-00001.jsonl", "run.json", "summary.json",
    ]  # fmt: skip


def test_many_files_hold_the_same_rows(model: Path, cache: Path) -> None:
    _, out = _score(model, cache)
    whole = {row["question_id"]: row for row in _rows(out)}
    _, out = _score(model, cache, "--questions-per-file", "1", "--overwrite")
    parts = _rows(out)
    assert len(list(out.glob("answers-*.jsonl"))) > 2
    assert {row["question_id"]: row for row in parts} == whole and len(parts) == len(whole)


def test_a_second_run_does_nothing_and_another_is_refused(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = _score(model, cache)
    (out / "mine.txt").write_text("keep me")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert _score(model, cache)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "nothing was done" in capsys.readouterr().err
    with pytest.raises(UsageError, match="answers of another run"):
        _score(model, cache, rows=QUESTIONS[:3])
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert _score(model, cache, "--overwrite", rows=QUESTIONS[:3])[0] == 0
    assert len(_rows(out)) == 3 and (out / "mine.txt").read_text() == "keep me"


def test_a_killed_run_is_done_again(model: Path, cache: Path) -> None:
    _, out = _score(model, cache)
    (out / "summary.json").unlink()
    assert _score(model, cache)[0] == 0
    assert (out / "summary.json").exists() and len(_rows(out)) == len(QUESTIONS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_and_leaves_nothing_half(
    model: Path, cache: Path, number: signal.Signals
) -> None:
    questions, out = cache.parent / "questions.jsonl", cache.parent / "answers"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    words = ["--model", model, "--cache", cache, "--questions", questions, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "framebank", "score", *map(str, words)],
        cwd=Path(__file__).resolve().parent.parent,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("plan-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)  # the plan is there, and Beam is on its way
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert b"it begins afresh" in said and b"Traceback" not in said
    assert [path.name for path in out.iterdir()] == ["run.json"]


def test_only_questions_about_unknown_videos(model: Path, cache: Path) -> None:
    _, out = _score(model, cache, rows=[QUESTIONS[1], QUESTIONS[2]])
    assert [row["status"] for row in _rows(out)] == ["not_in_cache", "quarantined"]


def test_another_spec_is_refused_with_the_difference(model: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(SPEC, sample="fps=2")
    make_cache(str(tmp_path / "cache"), spec=other)
    with pytest.raises(SpecMismatchError, match=r"\* sample +fps=2 +fps=1"):
        _score(model, tmp_path / "cache")
    assert not (tmp_path / "answers").exists()


def test_a_damaged_record_costs_only_its_own_questions(model: Path, cache: Path) -> None:
    path = Path(layout.tfrecord_path(str(cache), "r1-1"))
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # in the record of c/ü.mp4
    path.write_bytes(bytes(data))
    with pytest.raises(JobError, match="1 questions have no answer"):
        _score(model, cache)
    rows = _rows(cache.parent / "answers")
    assert [row["status"] for row in rows].count("failed") == 1
    assert rows[3]["status"] == "failed" and "record 0" in rows[3]["reason"]
    assert rows[5]["status"] == "answered"  # its neighbour in the shard


def test_a_missing_shard_fails_the_job_with_its_name(model: Path, cache: Path) -> None:
    Path(layout.tfrecord_path(str(cache), "r1-1")).unlink()
    with pytest.raises(Exception, match=r"r1-1\.tfrecord") as caught:
        _score(model, cache)
    assert getattr(caught.value, "exit_status", None) == 1


def test_mistakes_are_told(model: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a trained model"):
        _score(tmp_path, cache)
    with pytest.raises(UsageError, match="no cache"):
        _score(model, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--top"):
        _score(model, cache, "--top", "0")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("vocabulary.json", "lineage.json"):
        (broken / name).write_bytes((model / name).read_bytes())
    (broken / "model.keras").write_bytes(b"this is no model")
    with pytest.raises(UsageError, match=r"model\.keras cannot be used"):
        _score(broken, cache)
