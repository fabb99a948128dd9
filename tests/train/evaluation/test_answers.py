"""Asking a model all questions: in the order of the shards, in bounded batches, each once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from framebank.features.asking.heads import Head
from framebank.features.asking.trained_model import NotFiniteError, TrainedModel
from framebank.features.cache.reader import Cache, check_finite, open_cache
from framebank.features.errors import CacheError
from framebank.features.questions.question import Question
from framebank.features.stop_signals import StopRequest, TrainingStopped
from framebank.train.evaluation.answers import NO_RANK, ask_all, question_batches
from framebank.train.workers.run import Run
from tests.made.made_cache import make_cache, make_extracted


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    make_cache(str(tmp_path / "cache"))
    return open_cache(str(tmp_path / "cache"))


def _questions() -> list[Question]:
    videos = ("d.mp4", "a.mp4", "c/ü.mp4", "a.mp4", "b.mp4")
    return [Question(str(n), video, f"{n}?", "red") for n, video in enumerate(videos)]


def test_batches_follow_the_shards_and_hold_each_question_once(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framebank.train.evaluation.answers.BATCH_QUESTIONS", 2)
    questions = _questions()
    batches = list(question_batches(cache, questions))
    places = [place for batch, _ in batches for place in batch]
    assert places == [1, 3, 2, 0, 4]  # a, a, c, d of the first run's shards, then b
    assert [len(batch) for batch, _ in batches] == [2, 2, 1]
    for batch, features in batches:
        for place, row in zip(batch, features, strict=True):
            clip = cache[questions[place].video_id].features
            np.testing.assert_array_equal(row[: len(clip)], clip)
            assert not row[len(clip) :].any()


def test_batches_are_bounded_in_bytes(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = "framebank.train.evaluation.answers.BATCH_BYTES"
    monkeypatch.setattr(bound, 1)
    sizes = [len(batch) for batch, _ in question_batches(cache, _questions())]
    assert sizes == [1] * 5
    clip = make_extracted("a.mp4").features
    monkeypatch.setattr(bound, 2 * clip.size * 4)
    two = list(question_batches(cache, _questions()))
    assert two[0][0] == [1, 3] and max(padded.nbytes for _, padded in two) <= 5 * 8 * 4 * 2


def _model() -> TrainedModel:
    def predict(features: NDArray[np.float32], questions: list[bytes]) -> NDArray[np.float32]:
        rows = {b"0?": [0.1, 0.9, 0], b"1?": [0.5, 0.5, 0]}
        found = [rows.get(question, [0.2, 0.3, 0.5]) for question in questions]
        return np.array(found, np.float32)

    return TrainedModel(predict, Head(answers=("blue", "red", "cat")))


def test_ranks_and_right_answers(cache: Cache) -> None:
    questions = [*_questions(), Question("5", "a.mp4", "5?", "never heard of")]
    answers = ask_all(_model(), cache, questions)
    assert answers.rank.tolist() == [0, 1, 1, 1, 1, NO_RANK]  # of equals the earlier comes first
    assert answers.right.tolist() == [True] + [False] * 5
    assert answers.chosen() == ["red", "blue", "cat", "cat", "cat", "cat"]
    assert answers.texts(0)[0] == ("red", pytest.approx(0.9))
    assert ask_all(_model(), cache, []).right.tolist() == []


@pytest.mark.parametrize("head", ["open", "choice", "count"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_never_judged(
    cache: Cache, head: str, value: float
) -> None:
    """Nothing is likelier than NaN: a model of NaN would have every answer right."""
    width = {"open": 3}.get(head, 1)

    def predict(features: NDArray[np.float32], *asked: list[bytes]) -> NDArray[np.float32]:
        said = np.full((len(features), width), 0.1, np.float32)
        said[-1, -1] = value
        return said

    about: dict[str, Any] = {
        "choice": {"choices": ("x", "red"), "right": 1},
        "count": {"answer": "2"},
    }
    questions = [
        dataclasses.replace(question, head=head, **about.get(head, {})) for question in _questions()
    ]
    model = TrainedModel(predict, Head(head, ("blue", "red", "cat"), 0, 9))
    with pytest.raises(NotFiniteError, match=r"not finite[\s\S]*1 of \d+ questions"):
        ask_all(model, cache, questions)


def test_features_that_are_not_finite_are_named(cache: Cache) -> None:
    with pytest.raises(CacheError, match=r"'a\.mp4' are not finite\n  got:      1 of 2 rows"):
        check_finite("a.mp4", np.array([[1, 2], [3, np.nan]], np.float16))
    check_finite("a.mp4", cache["a.mp4"].features)


def test_a_stop_is_heard_between_batches(cache: Cache) -> None:
    stop = StopRequest()
    stop.signal_number = 15
    with pytest.raises(TrainingStopped):
        ask_all(_model(), cache, _questions(), run=Run(stop))
