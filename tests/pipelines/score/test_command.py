"""`framebank score` on a real cache, a real model and Beam's local runner."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import framebank
from framebank.features.asking.trained_model import NotFiniteError, TrainedModel, load_model
from framebank.features.cache import catalog, layout
from framebank.features.errors import JobError, SpecMismatchError, UsageError
from framebank.features.questions.seen_videos import SEEN, Seen
from framebank.features.stores import locks
from framebank.pipelines.score.command import add_arguments, run
from tests.attackers.killing import MarkedJob
from tests.made import built, forked
from tests.made.made_cache import SPEC, make_cache, make_extracted, make_shard
from tests.made.made_model import ANSWERS, make_model, spoil_weights

KILLS = int(os.environ.get("FRAMEBANK_SCORE_KILLS", "1"))  # of a run; each costs ten seconds
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
TEXTS = [str(row["question"]).replace("\ud800", "\\ud800") for row in QUESTIONS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "model", SPEC, width=8)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    make_cache(str(tmp_path / "cache"))
    return tmp_path / "cache"


def _score(
    model: Path, cache: Path, *more: str, rows: list[dict[str, Any]] | str = QUESTIONS
) -> tuple[int, Path]:
    questions, out = cache.parent / "questions.jsonl", cache.parent / "answers"
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    questions.write_text(text)
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
    assert [row["question"] for row in rows] == TEXTS
    states = [row["status"] for row in rows]
    assert states == ["answered", "not_in_cache", "quarantined", *["answered"] * 4]
    assert rows[2]["reason"].startswith("missing at open") and rows[2]["answers"] == []
    assert rows[4]["video_id"] == "b.mp4"
    unknown = [row["question"] for row in rows if "none of the words" in (row["reason"] or "")]
    assert unknown == [TEXTS[3], TEXTS[6]]  # answered all the same
    for row in rows:
        if row["status"] == "answered":
            assert len(row["answers"]) == 2
            assert {one["answer"] for one in row["answers"]} < set(ANSWERS)
    assert rows[3]["correct"] is False  # outside the vocabulary
    assert rows[5]["correct"] is None and rows[5]["truth"] is None
    assert rows[0]["correct"] is (rows[0]["answers"][0]["answer"] == "loading")
    summary = json.loads((out / "_summary.json").read_text())
    assert json.loads(capsys.readouterr().out) == summary
    counts = {name: summary[name] for name in ("questions", "answered", "without_truth", "judged")}
    assert counts == {"questions": 7, "answered": 5, "without_truth": 1, "judged": 4}
    assert summary["by_split"]["val"]["judged"] == 1 and rows[4]["split"] == "val"
    assert summary["random_weights"] is True and summary["by_type"]["colour"]["judged"] == 1
    assert summary["without_known_words"] == 2
    assert sorted(path.name for path in out.iterdir()) == [
        "_run.json", "_summary.json", "answers-00000-of-00001.jsonl",
    ]  # fmt: skip


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = cache.parent / "questions.jsonl", cache.parent / "answers"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    words = ["score", "--model", model, "--cache", cache, "--questions", questions, "--out", out]
    assert framebank.main([*map(str, words), "--dry_run=true"]) == 0
    told = capsys.readouterr()
    assert "answering 5 of 7 questions" in told.err and told.out == ""
    assert "nothing was submitted and nothing written" in told.err
    assert not out.exists()


def test_a_row_that_is_no_question_costs_only_itself(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps(QUESTIONS[0])
    bad = [
        '{"video_id": "a.mp4", "question": }',
        "[1]",
        '{"video_id": "a.mp4", "question_id": "q7"}',
        '{"video_id": {}, "question": "who?"}',
        '{"video_id": "a.mp4", "question": "?", "split": "x"}',
    ]
    status, out = _score(model, cache, rows="\n".join([good, *bad, good, ""]))
    rows, said = _rows(out), capsys.readouterr()
    assert status == 0 and "5 of 7 rows are no questions; the first: " in said.err
    assert "2 answered" in said.out and "5 in rows that are no questions" in said.out
    assert [row["question_id"] for row in rows if row["answers"]] == ["1", "7"]
    faulty = {row["question_id"]: row for row in rows if row["status"] == "not_a_question"}
    assert list(faulty) == ["2", "3", "q7", "5", "6"]
    assert all(f"{place}" in faulty[str(place)]["reason"] for place in (2, 3, 5, 6))
    assert "a row without a question: line 4" in faulty["q7"]["reason"]
    assert (faulty["5"]["video_id"], faulty["5"]["question"]) == ("", "who?")

    with pytest.raises(UsageError, match=r"without a question[\s\S]*2 rows cannot be used"):
        _score(model, cache, rows=[{"video_id": "a.mp4", "question": ""}] * 2)
    with pytest.raises(UsageError, match=r"not valid JSON[\s\S]*line 2"):  # it was cut short
        _score(model, cache, rows=f'{good}\n{{"video_id": "a.mp4", "que')


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


def test_two_runs_at_once_do_not_write_into_one_folder(model: Path, cache: Path) -> None:
    _, out = _score(model, cache)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with (
        locks.held(str(out), what="writing answers"),
        pytest.raises(UsageError, match="another run is writing answers to"),
    ):
        _score(model, cache, "--overwrite", rows=QUESTIONS[:3])
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_killed_run_is_done_again(model: Path, cache: Path) -> None:
    _, out = _score(model, cache)
    (out / "_summary.json").unlink()
    assert _score(model, cache)[0] == 0
    assert (out / "_summary.json").exists() and len(_rows(out)) == len(QUESTIONS)


def test_parquet_holds_the_same_rows(model: Path, cache: Path) -> None:
    import pyarrow.dataset as ds

    _, out = _score(model, cache, "--questions-per-file", "2")
    lines = _rows(out)
    status, out = _score(
        model, cache, "--questions-per-file", "2", "--output-format", "parquet", "--overwrite"
    )
    assert status == 0 and not list(out.glob("*.jsonl"))
    summary = json.loads((out / "_summary.json").read_text())
    assert summary["files"] == [path.name for path in sorted(out.glob("*.parquet"))]
    rows = ds.dataset(out, format="parquet").to_table().to_pylist()  # the folder as it stands
    assert len(rows) == summary["questions"] == len(QUESTIONS)
    for answer in (answer for line in lines for answer in line["answers"]):
        answer["number"] = None  # of counts alone
    assert rows == lines


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_files_of_answers_that_are_there_are_kept(
    model: Path, cache: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--questions-per-file", "1", "--output-format", kind]
    _, out = _score(model, cache, *words)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    files = sorted(name for name in before if name.startswith("answers"))
    assert len(files) > 3
    (out / "_summary.json").unlink()  # as a kill would leave it
    (out / files[0]).unlink()
    (out / files[1]).write_bytes(before[files[2]])  # whole, and not what belongs there
    (out / files[3]).write_bytes(before[files[3]][:-9])
    (out / "_plan-00000.json").write_text("of the run that was killed")
    assert _score(model, cache, *words)[0] == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    made = {name for name in files if (out / name).stat().st_mtime_ns != stamps[name]}
    assert made == {files[0], files[1], files[3]}
    said = capsys.readouterr().err
    assert f"{len(files) - 3} of {len(files)} files of answers are there already" in said

    (out / "_summary.json").unlink()  # nothing but the summary is missing
    assert _score(model, cache, *words)[0] == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_model_is_loaded_once_in_a_process(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from framebank.pipelines.score import pipeline

    loads: list[str] = []

    def load(model_dir: str, **how: bool) -> TrainedModel:
        loads.append(model_dir)
        return load_model(model_dir, **how)

    monkeypatch.setattr(pipeline, "load_model", load)
    rows = [dict(QUESTIONS[0], question=f"what is {number}?") for number in range(300)]
    rows += [dict(QUESTIONS[4], question=f"what is {number}?") for number in range(300)]
    _, out = _score(model, cache, "--questions-per-file", "1", rows=rows)
    assert len(_rows(out)) == 600 and loads == [str(model)]


def test_a_file_is_written_before_the_next_is_answered(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from framebank.pipelines.score import pipeline

    there: list[int] = []
    answer = pipeline.answer_examples

    def counted(*words: Any, **options: Any) -> Any:
        there.append(len(list((cache.parent / "answers").glob("answers-*"))))
        return answer(*words, **options)

    monkeypatch.setattr(pipeline, "answer_examples", counted)
    _score(model, cache, "--questions-per-file", "1")
    assert len(there) == 4 and there == sorted(set(there))


@pytest.mark.parametrize("runner", ["direct", "prism"])
def test_a_run_that_was_killed_loses_nothing_and_goes_on(
    model: Path, tmp_path: Path, runner: str
) -> None:
    cache, questions, out = tmp_path / "cache", tmp_path / "questions.jsonl", tmp_path / "answers"
    ids = write_many_shards(str(cache))
    asked = [{"video_id": name, "question": "what is it?", "answer": "red"} for name in ids]
    questions.write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = ["--model", model, "--cache", cache, "--questions", questions, "--out", out]
    words += ["--questions-per-file", "1"]
    if runner == "prism":
        words += ["--runner", "PrismRunner", f"--prism_location={built.prism()}"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # a pool starts `python`
    marked = MarkedJob({"PATH": path})
    kept: dict[str, int] = {}
    wanted_files = [1 + kill * len(ids) // KILLS for kill in range(KILLS)]
    dice = random.Random(0)
    try:
        for wanted in wanted_files:
            process = marked.framebank("score", *words, log=tmp_path / "log")
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if len(list(out.glob("answers-*"))) >= wanted:
                    break
                time.sleep(0.01 * dice.random())
            marked.kill_all()  # SIGKILL for each process of the job
            process.wait()
            there = {path.name: path.stat().st_mtime_ns for path in out.glob("answers-*")}
            assert not (out / "_summary.json").exists(), "the kill came after the end"
            assert {name: there[name] for name in kept} == kept
            kept = there
        process = marked.framebank("score", *words, log=tmp_path / "log")
        assert process.wait(120) == 0, (tmp_path / "log").read_text()
    finally:
        marked.kill_all()
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("answers-*")}
    assert kept and {name: stamps[name] for name in kept} == kept
    assert sorted(row["video_id"] for row in _rows(out)) == ids
    summary = json.loads((out / "_summary.json").read_text())
    assert summary["questions"] == summary["answered"] == summary["judged"] == len(ids)
    assert summary["correct"] == sum(row["correct"] for row in _rows(out))
    assert {path.name for path in out.iterdir()} == {*stamps, "_run.json", "_summary.json"}


def write_many_shards(cache: str, *, shards: int = 40) -> list[str]:
    """Write a cache of one clip to a shard; return the ids of its videos."""
    layout.write_spec(cache, SPEC)
    ids = [f"{number:03d}.mp4" for number in range(shards)]
    rows = []
    for number, name in enumerate(ids):
        rows += make_shard(cache, f"r1-{number:03d}", [make_extracted(name)], run_id="r1")
    catalog.write_catalog(cache, "r1", rows)
    return ids


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_and_leaves_nothing_half(
    model: Path, cache: Path, number: signal.Signals
) -> None:
    questions, out = cache.parent / "questions.jsonl", cache.parent / "answers"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    words = ["--model", model, "--cache", cache, "--questions", questions, "--out", out]
    process = forked.start("-m", "framebank", "score", *words)
    deadline = time.monotonic() + 60
    while not list(out.glob("_plan-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)  # the plan is there, and Beam is on its way
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "it goes on with" in said and "Traceback" not in said
    assert [path.name for path in out.iterdir()] == ["_run.json"]


def test_only_questions_about_unknown_videos(model: Path, cache: Path) -> None:
    _, out = _score(model, cache, rows=[QUESTIONS[1], QUESTIONS[2]])
    assert [row["status"] for row in _rows(out)] == ["not_in_cache", "quarantined"]


def test_a_file_none_of_whose_ids_match_gets_its_rows_and_both_sides_are_named(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"video_id": name, "question": "what?"} for name in ("clips/a.mp4", "x.mp4", "bad/b")]
    status, out = _score(model, cache, rows=rows)
    assert status == 0
    assert [(row["status"], row["video_id"]) for row in _rows(out)] == [
        ("not_in_cache", row["video_id"]) for row in rows
    ]
    said = capsys.readouterr()
    assert "not one question is about a video of the cache" in said.err
    assert "clips/a.mp4 (did you mean 'a.mp4'?), x.mp4, bad/b" in said.err
    assert "the cache has for example a.mp4, " in said.err
    assert _rows(out)[0]["reason"] == "no such video in the cache; did you mean 'a.mp4'?"
    assert "3 about videos not in the cache" in said.out
    summary = json.loads((out / "_summary.json").read_text())
    assert summary["accuracy"] is None and summary["not_in_cache"] == 3


def test_rows_are_answered_by_their_place_whatever_their_ids(model: Path, cache: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question_id": "2", "video_id": "a.mp4", "question": "what?"},
        {"question_id": "", "video_id": "bad.mp4", "question": "what?"},  # the second row
        {"question_id": "2", "video_id": "d.mp4", "question": "what?"},
        {"question_id": " ", "video_id": "gone.mp4", "question": "what?"},
    ]
    _, out = _score(model, cache, rows=rows)
    found = [(row["question_id"], row["video_id"], row["status"]) for row in _rows(out)]
    assert found == [
        ("a.mp4:2", "a.mp4", "answered"),
        ("#2", "bad.mp4", "quarantined"),
        ("d.mp4:2", "d.mp4", "answered"),
        ("4", "gone.mp4", "not_in_cache"),
    ]


def test_the_headline_is_about_what_the_model_has_not_seen(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    knows = tmp_path / "model"
    shutil.copytree(model, knows)
    (knows / SEEN).write_bytes(Seen(frozenset(["a.mp4", "c/ü.mp4"])).to_bytes())
    asked = {"question": "which colour is it?", "answer": "red"}
    rows = [asked | {"video_id": name, "type": name[0]} for name in ("a", "b", "d", "c/ü", "bad")]
    _, out = _score(knows, cache, rows=rows)
    assert [row["split"] for row in _rows(out)] == ["train", "test", "test", "train", None]
    said = capsys.readouterr().out
    summary = json.loads((out / "_summary.json").read_text())
    assert (summary["split"], summary["judged"], summary["all"]["judged"]) == ("test", 2, 4)
    assert set(summary["by_type"]) == {"b", "d"} and "right in the split test: " in said
    assert set(summary["by_split"]["train"]["by_type"]) == {"a", "c"} and "split train: " in said
    # Another split of the same answers: nothing is done again.
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    _score(knows, cache, "--split", "train", "--json", rows=rows)
    told = json.loads(capsys.readouterr().out)
    assert (told["split"], told["judged"]) == ("train", 2)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    # Whatever the file calls test.
    _, out = _score(knows, cache, "--overwrite", rows=[row | {"split": "test"} for row in rows])
    assert [row["split"] for row in _rows(out)] == ["train", "test", "test", "train", "test"]
    assert "NOTE: the model has seen what the files call test" in capsys.readouterr().out


def test_files_named_for_splits_give_them(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a training file beside them, too."""
    paths = [cache.parent / "val_q.csv", cache.parent / "test_q.csv"]
    for path, video in zip(paths, ("a", "d"), strict=True):
        path.write_text(f"video_id,question,answer\n{video},what?,red\n")
    words = ["--model", str(model), "--cache", str(cache), "--out", str(cache.parent / "answers")]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words += ["--questions", *map(str, paths)]
    assert run(parser.parse_args(words), []) == 0
    assert [row["split"] for row in _rows(cache.parent / "answers")] == ["val", "test"]
    assert "right in the split test: " in capsys.readouterr().out


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


@pytest.mark.parametrize("left", [None, 0, 100])
def test_a_shard_that_is_missing_or_cut_short_costs_only_its_own_questions(
    model: Path, cache: Path, left: int | None
) -> None:
    path = Path(layout.tfrecord_path(str(cache), "r1-1"))
    data = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(data[:left])
    with pytest.raises(JobError, match="2 questions have no answer") as caught:
        _score(model, cache)
    assert caught.value.exit_status == 1
    rows = _rows(cache.parent / "answers")
    assert [row["question"] for row in rows] == TEXTS
    states = ["answered", "not_in_cache", "quarantined", "failed", "answered", "failed", "answered"]
    assert [row["status"] for row in rows] == states
    assert all(str(path) in rows[place]["reason"] for place in (3, 5))


def test_files_with_rows_that_failed_are_tried_again_and_no_others(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--questions-per-file", "1", "--output-format", "parquet"]
    shard, out = Path(layout.tfrecord_path(str(cache), "r1-1")), cache.parent / "answers"
    data = shard.read_bytes()
    shard.unlink()
    with pytest.raises(JobError, match="2 questions have no answer"):
        _score(model, cache, *words)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("answers-*")}
    assert json.loads((out / "_summary.json").read_text())["failed"] == 2
    shard.write_bytes(data)
    assert _score(model, cache, *words)[0] == 0
    said = capsys.readouterr().err
    assert f"2 of {len(stamps)} files of answers hold rows that failed" in said
    summary = json.loads((out / "_summary.json").read_text())
    assert (summary["questions"], summary["answered"], summary["failed"]) == (7, 5, 0)
    again = {name for name in stamps if (out / name).stat().st_mtime_ns != stamps[name]}
    assert len(again) == 2
    assert _score(model, cache, *words)[0] == 0
    assert "nothing was done" in capsys.readouterr().err


def test_a_model_of_nan_answers_nothing(model: Path, cache: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled"
    shutil.copytree(model, spoiled)
    spoil_weights(spoiled)
    with pytest.raises(NotFiniteError, match="weights that are not finite"):
        _score(spoiled, cache)
    assert not (tmp_path / "answers").exists()


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
