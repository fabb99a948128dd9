"""`framebank ask`: the model's own spec, its weights, its answers, and each mistake."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from framebank.features.asking.command import (
    add_arguments,
    answer_lines,
    find_clip,
    find_weights,
    run,
)
from framebank.features.asking.trained_model import Lineage, NotFiniteError, load_model
from framebank.features.cache import layout
from framebank.features.errors import JobError, SpecMismatchError, UsageError, VideoRejected
from framebank.features.extraction.one_clip import make_spec
from framebank.features.spec import FeatureSpec, SpecChoice
from framebank.features.stores import storage
from framebank.features.stores.disk import file_hash
from framebank.features.video import Extracted
from tests.made.made_cache import make_extracted
from tests.made.made_model import ANSWERS, make_model, spoil_weights

WIDTH = 8


@pytest.fixture(scope="module")
def spec() -> FeatureSpec:
    return make_spec(SpecChoice(sample="uniform=4", weights="random:3"))[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, spec: FeatureSpec) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "model", spec, width=WIDTH)


def _ask(model: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(["--model", str(model), *words]), [])


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[FeatureSpec, str]]:
    """Stand in for the network: four rows of made-up features; returns what was asked of it."""
    calls: list[tuple[FeatureSpec, str]] = []

    def extract(path: str, *, spec: FeatureSpec, weights: str) -> Extracted:
        calls.append((spec, weights))
        if not Path(path).exists():
            raise VideoRejected("open", "missing", "no such file")
        if path.endswith(".bad.mp4"):
            raise VideoRejected("decode", "truncated", "it ends early")
        return make_extracted("clip.mp4", rows=4, width=WIDTH)

    monkeypatch.setattr("framebank.features.extraction.one_clip.extract_features", extract)
    return calls


def test_ask_prints_what_the_model_says(
    model: Path,
    clips: Path,
    spec: FeatureSpec,
    fake_engine: list[tuple[FeatureSpec, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    question = "what is the man doing?"
    assert _ask(model, str(clips / "a0.mp4"), question, "--json", "--top", "2") == 0
    assert fake_engine == [(spec, "random:3")]
    said = capsys.readouterr()
    fields = json.loads(said.out)
    assert fields["random_weights"] is True and fields["frames"] == 4 and "RANDOM" in said.err
    features = make_extracted("clip.mp4", rows=4, width=WIDTH).features
    stored = features.astype(np.float16).astype(np.float32)[None]
    expected = load_model(str(model)).predict(stored, [question.encode()])[0]
    assert len(fields["answers"]) == 2
    for one in fields["answers"]:
        assert one["probability"] == pytest.approx(expected[ANSWERS.index(one["answer"])], abs=1e-6)
    assert _ask(model, str(clips / "a0.mp4"), question) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("%" in line for line in lines)
    assert lines[0].endswith(fields["answers"][0]["answer"])


@pytest.mark.parametrize(
    ("question", "said", "unknown"),
    [
        ("zzz qqq", "none of the words of the question (zzz, qqq)", ["zzz", "qqq"]),
        (
            "what is the zzz?",
            "NOTE: the model does not know these words of the question: zzz",
            ["zzz"],
        ),
        ("WHAT is the man doing", None, []),
        ("???", "none of the words of the question: it answers", []),
    ],
)
def test_words_that_the_model_does_not_know_are_told(
    model: Path,
    clips: Path,
    fake_engine: list[tuple[FeatureSpec, str]],
    capsys: pytest.CaptureFixture[str],
    question: str,
    said: str | None,
    unknown: list[str],
) -> None:
    assert _ask(model, str(clips / "a0.mp4"), question, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["unknown_words"] == unknown
    assert (said or "RANDOM") in printed.err and (said is None) == ("know" not in printed.err)


def test_a_model_of_nan_is_not_asked(
    model: Path, clips: Path, tmp_path: Path, fake_engine: list[tuple[FeatureSpec, str]]
) -> None:
    shutil.copytree(model, tmp_path / "model")
    spoil_weights(tmp_path / "model", float("inf"))
    with pytest.raises(NotFiniteError, match="weights that are not finite"):
        _ask(tmp_path / "model", str(clips / "a0.mp4"), "what?")
    assert not fake_engine  # before the clip is decoded


def test_lines_show_share_and_bar() -> None:
    lines = list(answer_lines([{"answer": "a b", "probability": 0.5}]))
    assert lines == ["  50.0%  " + "█" * 12 + "·" * 12 + "  a b"]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--sample", "fps=2"), r"\* sample +uniform=4 +fps=2"),
        (("--backbone", "vgg16"), r"\* backbone +inception_v3 +vgg16"),
        (("--dtype", "float32"), r"\* dtype +float16 +float32"),
        (("--weights", "random:4"), r"\* weights +random:3 +random:4"),
        (("--max-frames", "9"), r"\* max_frames +None +9"),
    ],
)
def test_another_spec_is_refused_with_the_difference(
    model: Path, clips: Path, option: tuple[str, str], text: str
) -> None:
    with pytest.raises(SpecMismatchError, match=text):
        _ask(model, str(clips / "a0.mp4"), "what?", *option)


def test_the_same_spec_may_be_said(
    model: Path, clips: Path, fake_engine: list[tuple[FeatureSpec, str]]
) -> None:
    same = ("--sample", "uniform=4", "--backbone", "inception_v3", "--weights", "random:3")
    assert _ask(model, str(clips / "a0.mp4"), "what?", *same) == 0


def test_mistakes_are_told(
    model: Path, clips: Path, tmp_path: Path, fake_engine: list[tuple[FeatureSpec, str]]
) -> None:
    clip = str(clips / "a0.mp4")
    with pytest.raises(UsageError, match="not a trained model"):
        _ask(tmp_path, clip, "what?")
    with pytest.raises(UsageError, match="question is empty"):
        _ask(model, clip, "  ")
    with pytest.raises(UsageError, match="--top"):
        _ask(model, clip, "what?", "--top", "0")
    with pytest.raises(UsageError, match="no such clip"):
        _ask(model, str(tmp_path / "nothing.mp4"), "what?")
    (tmp_path / "Truck.mp4").touch()
    with pytest.raises(UsageError, match=r"no such clip[\s\S]*did you mean 'Truck.mp4'\?"):
        _ask(model, str(tmp_path / "truck.mp4"), "what?")
    bad = tmp_path / "x.bad.mp4"
    bad.write_bytes(b"x")
    with pytest.raises(JobError, match="truncated"):
        _ask(model, str(bad), "what?")


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("clip.mp4", "clip"),
        (unicodedata.normalize("NFD", "é/é.mp4"), unicodedata.normalize("NFC", "é/é.mp4")),
        ("Recording at 3.45.12\u202fPM.mov", "Recording at 3.45.12\u202fPM.mov"),
        (" walk_1.5.mp4", " walk_1.5"),
    ],
)
def test_a_clip_is_found_as_the_id_of_a_question_finds_it(
    tmp_path: Path, stored: str, asked: str
) -> None:
    path = tmp_path / stored
    path.parent.mkdir(exist_ok=True)
    for name in (path, tmp_path / "S01E02.mp4", tmp_path / "walk_1.mp4"):
        name.touch()
    assert find_clip(str(tmp_path / asked)) == str(path)
    for other in ("S01E02.Pilot", "walk_1.5", "b/S01E02.mp4", asked + "x"):
        with pytest.raises(UsageError, match="no such clip"):
            find_clip(str(tmp_path / other))
    assert find_clip("gs://bucket/clip") == "gs://bucket/clip"


def _file_lineage(spec: FeatureSpec, cache: Path, weights: Path, *paths: Path) -> Lineage:
    for number, path in enumerate(paths):
        run_path = layout.run_path(str(cache), f"run-{number}")
        storage.write_atomic(run_path, json.dumps({"weights_path": str(path)}).encode())
    digest = file_hash(weights)
    spec = dataclasses.replace(spec, weights="file", weights_sha256=digest)
    return Lineage(spec, False, str(cache), tuple(f"run-{n}" for n in range(len(paths))))


def test_a_weight_file_is_found_where_the_runs_had_it(spec: FeatureSpec, tmp_path: Path) -> None:
    good, other = tmp_path / "good.weights.h5", tmp_path / "other.weights.h5"
    good.write_bytes(b"good")
    other.write_bytes(b"other")
    lineage = _file_lineage(spec, tmp_path / "cache", good, good, other, tmp_path / "gone.h5")
    assert find_weights(lineage, given=None) == str(good)
    moved = good.rename(tmp_path / "moved.h5")
    with pytest.raises(UsageError, match="not found") as caught:
        find_weights(lineage, given=None)
    assert str(good) in str(caught.value) and "--weights PATH" in str(caught.value)
    assert find_weights(lineage, given=str(moved)) == str(moved)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        find_weights(lineage, given=str(other))


def test_published_weights_are_fetched_by_name(spec: FeatureSpec) -> None:
    published = dataclasses.replace(spec, weights="imagenet", weights_sha256="1" * 64)
    assert find_weights(Lineage(published, False, "", ()), given=None) == "imagenet"
