"""Figures of an evaluation against hand-made cases, and the page that shows them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from features import catalog, layout
from features.cache import Cache, open_cache
from features.questions import Question
from tests.made_cache import SPEC, make_extracted, make_shard
from train import evaluation
from train.evaluating import Judged
from train.evaluation_answers import NO_RANK, Answers
from train.evaluation_leaks import find_leaks
from train.report_page import write_report


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """a and b are one file, a and c have the same features, d is another clip."""
    path = str(tmp_path_factory.mktemp("cache") / "cache")
    videos = [make_extracted(name, rows=4) for name in ("a", "b", "c", "d")]
    dice = np.random.default_rng(0)
    shape, dtype = videos[0].features.shape, videos[0].features.dtype
    arrays = [dice.standard_normal(shape).astype(dtype) for _ in range(3)]
    made = [
        dataclasses.replace(video, features=features, content_sha256=digest)
        for video, features, digest in zip(
            videos, (arrays[0], arrays[1], arrays[0], arrays[2]), ("1", "1", "3", "4"), strict=True
        )
    ]
    layout.write_spec(path, SPEC)
    rows = make_shard(path, "s", made, run_id="20261121-0100")
    catalog.write_catalog(path, "20261121-0100", rows)
    return open_cache(path)


def _questions() -> list[Question]:
    rows = [("a", "what <is> it?", "cat"), ("b", "who is it?", "man"), ("c", "what?", "dog")]
    return [Question(str(n), video, text, answer) for n, (video, text, answer) in enumerate(rows)]


def _answers() -> Answers:
    best = np.array([[0, 1], [0, 1], [0, 1]])
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    rank = np.array([0, 1, NO_RANK])
    return Answers(("cat", "man"), best, probability, rank, rank)


def test_figures_are_those_of_hand() -> None:
    durations = {"a": 3.0, "b": 20.0}
    figures = evaluation.judge(_questions(), _answers(), durations_s=durations, seed=0)
    assert figures["accuracy"] == pytest.approx(1 / 3) and figures["outside_vocabulary"] == 1
    assert figures["top5"]["correct"] == 2 and figures["by_type"]["what"]["judged"] == 2
    assert set(figures["by_video_length"]) == {"under 5 s", "10 to 30 s", "not known"}
    assert figures["calibration"]["expected_error"] == pytest.approx((0.1 + 0.8 + 0.6) / 3)
    assert figures["recall_among_distractors"]["5"] == pytest.approx(2 / 3)
    assert figures["confusion"]["rows"][0] == [1, 0, 0, 0]


def test_leaks_are_named_with_their_reason(cache: Cache) -> None:
    sides = {"a": "train", "b": "test", "c": "test", "d": "test"}
    found = {tuple(leak["videos"]): leak["why"] for leak in find_leaks(cache, sides)}
    assert found == {("a", "b"): "the same file", ("a", "c"): "nearly equal features"}
    assert find_leaks(cache, dict.fromkeys(sides, "train")) == []


def test_page_needs_no_network(cache: Cache, tmp_path: Path) -> None:
    questions, answers = _questions(), _answers()
    figures = evaluation.judge(questions, answers, durations_s={}, seed=0)
    more = {"split": "test", "videos": 3, "notes": ["a <note>"], "random_weights": True}
    beside = evaluation.count_baselines(questions, questions, seed=0)
    figures |= more | {"baselines": beside, "leaks": []}
    judged = Judged(figures, questions, answers)
    page = write_report(tmp_path, judged, cache, model_dir=str(tmp_path), examples=2)
    text = page.read_text("utf-8")
    assert "http" not in text and "url(" not in text and "<script" not in text
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)', text))
    assert "<svg" in text and "not there any more" in text and "what &lt;is&gt; it?" in text
