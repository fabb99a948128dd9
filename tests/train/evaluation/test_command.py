"""`framebank evaluate` from end to end: figures that can be counted by hand, and each mistake."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.asking.trained_model import NotFiniteError
from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.questions.seen_videos import SEEN, Seen
from framebank.train.evaluation import command
from framebank.train.evaluation.report import summary
from framebank.train.fit import command as train_command
from framebank.train.judging.baselines import JUDGED_FILE
from tests.made.made_cache import make_cache
from tests.made.made_model import spoil_weights
from tests.made.made_questions import make_direction_cache, write_jsonl


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with its questions, and a model that was trained on them, without baselines."""
    folder = tmp_path_factory.mktemp("evaluate")
    rows = make_direction_cache(str(folder / "cache"), pairs=20)
    write_jsonl(folder / "q.jsonl", rows)
    write_jsonl(folder / "test.jsonl", [row for row in rows if row["split"] == "test"])
    write_jsonl(
        folder / "other.jsonl", [row | {"video_id": f"no{n}"} for n, row in enumerate(rows)]
    )
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    words = [
        "--cache", str(folder / "cache"), "--questions", str(folder / "q.jsonl"),
        "--model", str(folder / "model"), "--epochs", "2", "--batch-size", "16",
        "--frame-units", "8", "--question-units", "4", "--dense-units", "8", "--no-baselines",
        "--model-kind", "lstm",
    ]  # fmt: skip
    assert train_command.run(parser.parse_args(words), []) == 0
    return folder


def _evaluate(made: Path, *words: str, model: str = "model", questions: str = "q.jsonl") -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = [
        "--cache", str(made / "cache"), "--questions", str(made / questions),
        "--model", str(made / model), *words,
    ]  # fmt: skip
    return command.run(parser.parse_args(given), [])


def test_figures_are_those_that_training_noted(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "model", tmp_path / "model")
    noted = tmp_path / "model" / JUDGED_FILE
    rows = [json.loads(line) for line in noted.read_text().splitlines()]
    for number, row in enumerate(rows):  # as if the baselines had been trained beside it
        row["answers"] |= {"order_blind": "loading", "question_only": row["truth"][number % 2 :]}
        row["answers"] |= {"probe": row["truth"], "probe_blind": "unloading"}
    noted.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _evaluate(made, "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")) == 0
    printed = capsys.readouterr()
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    metrics = json.loads((made / "model" / "metrics.json").read_text())
    assert figures["judged"] == len(rows) == 8 and figures["split"] == "test"
    assert figures["accuracy"] == metrics["accuracy"]
    for name, score in {"model": figures, **figures["baselines"]}.items():
        if name in rows[0]["answers"]:
            assert score["accuracy"] == np.mean([r["answers"][name] == r["truth"] for r in rows])
            assert score["interval"][0] <= score["accuracy"] <= score["interval"][1]
    assert set(figures["baselines"]) > {"order_blind", "question_only", "probe", "majority"}
    assert "training" not in printed.err and "order blind" in printed.out
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_baselines_that_are_not_there_are_trained(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("framebank.train.judging.baselines.TRAINED", ("question_only",))
    assert _evaluate(made, "--json", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert "training question_only under the model's budget" in printed.err
    figures = json.loads(printed.out)
    assert figures["baselines"]["question_only"]["judged"] == 8
    assert _evaluate(made, "--json", "--out", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out) == figures


def test_test_questions_alone_have_no_baselines(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _evaluate(made, "--out", str(tmp_path), questions="test.jsonl") == 0
    assert "compared with no baseline" in capsys.readouterr().err
    assert json.loads((tmp_path / "evaluation.json").read_text())["baselines"] == {}


def test_mistakes_are_told_in_a_line(made: Path, tmp_path: Path) -> None:
    half = made / "half"
    shutil.copytree(made / "model", half, dirs_exist_ok=True)
    (half / "vocabulary.json").unlink()
    file = tmp_path / "file"
    file.write_text("")
    out = ("--out", str(tmp_path / "out"))
    for kind, words, given, told in (
        (UsageError, out, {"model": "nowhere"}, "is not a trained model"),
        (UsageError, out, {"model": "half"}, "no vocabulary.json"),
        (UsageError, out, {"questions": "other.jsonl"}, "not one question is about a video"),
        (UsageError, out, {"questions": "missing.jsonl"}, "missing.jsonl"),
        (UsageError, (*out, "--split", "val"), {"questions": "test.jsonl"}, "the split val"),
        (UsageError, ("--out", str(file)), {}, "--out is a file"),
        (JobError, ("--out", str(file / "below")), {}, "cannot write to"),
        (UsageError, ("--out", "gs://bucket/report"), {}, "local folder"),
        (UsageError, (*out, "--examples", "-1"), {}, "--examples"),
        (UsageError, (*out, "--max-unmatched-ratio", "2"), {}, "--max-unmatched-ratio"),
        (UsageError, (*out, "--max-unmatched-ratio", "nan"), {}, "--max-unmatched-ratio"),
    ):
        with pytest.raises(FramebankError, match=told) as caught:
            _evaluate(made, *words, **given)
        assert type(caught.value) is kind


def test_a_cache_of_another_making_is_refused(made: Path, tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="features of another making"):
        _evaluate(made, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"))


def test_summary_warns_of_leaks() -> None:
    figures = {
        "accuracy": 0.5, "interval": [0.4, 0.6], "judged": 9, "videos": 3, "split": "test",
        "baselines": {}, "leaks": {"pairs": [{}, {}]}, "flatters": "",
        "correct": 4, "head": "open",
    }  # fmt: skip
    assert summary(figures)[-1].startswith("WARNING: 2 pairs of videos")


def test_a_model_of_a_registry_is_judged_on_what_it_has_not_seen(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the files call test; and a model that knew the questions says so."""
    shutil.copytree(made / "model", tmp_path / "model")
    rows = [json.loads(line) for line in (made / "q.jsonl").read_text().splitlines()]
    videos = sorted({row["video_id"] for row in rows})
    seen = tmp_path / "model" / SEEN
    words = ("--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--no-baselines")
    seen.write_bytes(Seen(frozenset(videos[:-3])).to_bytes())
    assert _evaluate(made, *words) == 0
    said = capsys.readouterr().err
    assert f"judged on 3 of 40 videos, all that it has not seen; it has seen {videos[0]}" in said
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (figures["videos"], figures["split"], figures["flatters"]) == (3, "test", "")
    assert {pair["why"] for pair in figures["leaks"]["pairs"]} <= {"nearly equal features"}

    assert _evaluate(made, *words, "--split", "test") == 0
    said = capsys.readouterr().out
    assert "WARNING: 8 of these 8 questions are about videos" in said and "000-loading.mp4" in said
    assert "Not a fair test." in (tmp_path / "out" / "report.html").read_text()
    seen.write_bytes(Seen(frozenset(videos)).to_bytes())
    with pytest.raises(UsageError, match=r"has seen every video[\s\S]*000-loading.mp4"):
        _evaluate(made, *words)
    seen.unlink()
    for split, told in (("train", "learnt from these"), ("val", "was chosen by these")):
        assert _evaluate(made, *words, "--split", split) == 0
        assert told in capsys.readouterr().out


def test_a_plain_model_names_what_it_was_trained_on(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where another file calls its training videos test; one without the list says so."""
    rows = [json.loads(line) for line in (made / "q.jsonl").read_text().splitlines()]
    learnt = {row["video_id"] for row in rows if row["split"] != "test"}
    out = ("--out", str(tmp_path / "out"), "--no-baselines")

    def figures() -> dict[str, Any]:
        return json.loads((tmp_path / "out" / "evaluation.json").read_text())

    assert _evaluate(made, *out) == 0
    assert "has seen 32 of the 40 videos: 001-loading.mp4" in capsys.readouterr().err
    assert set(figures()["seen_videos"]) == learnt and figures()["judged"] == 8

    renamed = [row | {"split": "test"} for row in rows]
    write_jsonl(made / "renamed.jsonl", renamed)
    write_jsonl(made / "learnt.jsonl", [row for row in renamed if row["video_id"] in learnt])
    assert _evaluate(made, *out, questions="renamed.jsonl") == 0
    assert "judged on 8 of 40 videos" in capsys.readouterr().err and figures()["judged"] == 8
    with pytest.raises(UsageError, match=r"has seen every video[\s\S]*32 videos: 001-loading.mp4"):
        _evaluate(made, *out, questions="learnt.jsonl")
    assert _evaluate(made, *out, "--split", "test", questions="learnt.jsonl") == 0
    said = capsys.readouterr().out
    assert "WARNING: 32 of these 32 questions" in said and "(001-loading.mp4, " in said

    shutil.copytree(made / "model", tmp_path / "old")
    (tmp_path / "old" / SEEN).unlink()
    words = (*out, "--model", str(tmp_path / "old"))
    assert _evaluate(made, *words, questions="renamed.jsonl") == 0
    assert "NOTE: the model keeps no list of the videos" in capsys.readouterr().err
    assert figures()["seen_videos"] is None and figures()["judged"] == 40


def test_a_model_of_nan_is_not_judged(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "model", tmp_path / "model")
    spoil_weights(tmp_path / "model")
    with pytest.raises(NotFiniteError, match="weights that are not finite"):
        _evaluate(made, "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())
