"""Figures of what was found: their values, their intervals, and what a baseline says."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.asking.segmenting import SegmentRule
from framebank.features.questions.question import SEGMENTS, Question
from framebank.train.judging.detections import (
    Found,
    commonest,
    compare_found,
    figure_lines,
    judge_found,
    leading,
)


def video(name: str, *segments: tuple[float, float, str], group: str | None = None) -> Question:
    answer = segments[0][2] if segments else ""
    return Question(name, name, "", answer, head=SEGMENTS, segments=segments, group=group)


ASKED = [
    video("a", (0.0, 10.0, "run"), (20.0, 30.0, "jump")),
    video("b", (0.0, 10.0, "run")),
    video("c"),
]
PERFECT = [
    Found(
        tuple((label, start, end, 0.9) for start, end, label in q.segments),
        ((q.answer, 1.0),) if q.answer else (),
        (10, 10, 5, 5, 5),
    )
    for q in ASKED
]
# All of it is found, and in c something that is none.
WORSE = [*PERFECT[:2], Found((("run", 0.0, 4.0, 0.95),), (("run", 1.0),), (10, 8, 10, 8, 8))]


def test_figures_are_those_that_one_works_out() -> None:
    figures = judge_found(ASKED, {"model": WORSE, "other": PERFECT}, seed=0)
    # Of "run" the surest is wrong, then two are right: precisions 0, 1/2, 2/3, interpolated 2/3.
    model, other = figures["model"], figures["other"]
    assert model["average_map"] == pytest.approx((2 / 3 + 1) / 2)
    assert other["average_map"] == 1
    assert list(model["map"].values()) == pytest.approx([5 / 6] * 10)
    assert list(model["map"])[::9] == ["0.50", "0.95"]
    assert model["by_class"]["run"] == {
        "segments": 2, "ap": pytest.approx(2 / 3), "average": pytest.approx(2 / 3)
    }  # fmt: skip
    assert (other["hit_at_1"], other["video_map"]) == (1, 0.5)  # nobody says that a has a jump
    assert model["rows"] == {
        "judged": 30,
        "accuracy": pytest.approx(28 / 30),
        "background_precision": 1,
        "background_recall": pytest.approx(18 / 20),
    }
    low, high = model["interval"]
    assert 0 < low <= model["average_map"] <= high == 1
    assert other["ahead"]["difference"] == pytest.approx(-1 / 6)
    assert len(figure_lines(model | {"split": "test", "baselines": {"other": other}})) == 3


def test_one_source_says_nothing_of_a_lead() -> None:
    one = [video("a", (0.0, 1.0, "run"), group="x"), video("b", (0.0, 1.0, "run"), group="x")]
    nothing = [Found((), ())] * 2
    right = [Found((("run", 0.0, 1.0, 1.0),), ())] * 2
    figures = judge_found(one, {"model": nothing, "other": right}, seed=0)
    assert figures["other"]["ahead"]["interval"] == [-1, -1]
    assert leading(figures) == {}


def test_a_baseline_that_surely_finds_more_leads() -> None:
    labels = ["run", "jump"]
    asked = [video(f"v{n}", (0.0, 10.0, labels[n % 2])) for n in range(20)]
    right = [Found(((q.answer or "", 0.0, 10.0, 0.5),), ()) for q in asked]
    half = [its if n % 4 < 2 else Found((), ()) for n, its in enumerate(right)]
    figures = judge_found(asked, {"model": half, "other": right}, seed=0)
    ((name, (lead, low, high)),) = leading(figures).items()
    assert (name, lead) == ("other", pytest.approx(0.5))
    assert 0 < low < 0.5 < high < 1
    ours, theirs, compared = compare_found(asked, right, half, seed=0)
    assert (ours, theirs, compared.probability_better) == (1, pytest.approx(0.5), 1)


def test_the_commonest_class_over_the_whole_video() -> None:
    train = [video("t", (0.0, 1.0, "run"), (2.0, 3.0, "run"), (4.0, 5.0, "jump"))]
    (said,) = commonest(train, [8.0], PERFECT[:1])
    assert said.segments == (("run", 0.0, 8.0, 2 / 3), ("jump", 0.0, 8.0, 1 / 3))
    assert said.rows == (10, 5, 5, 10, 5)


def test_what_is_found_survives_its_json() -> None:
    shares = np.array([[0.9, 0.05, 0.05], [0.1, 0.1, 0.8]], np.float32)
    edges, classes = np.array([0.0, 1.0, 2.0]), np.array([0, 2], np.int32)
    found = Found.of(shares, edges, ["run", "jump"], SegmentRule(), classes)
    assert found.segments == (("run", 0.0, 1.0, pytest.approx(0.9)),)
    assert found.rows == (2, 2, 1, 1, 1)
    assert Found.from_json(found.to_json()) == found
