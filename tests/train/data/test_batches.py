"""framebank.batches: the same questions in memory and streamed, padded right, in a seeded order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from framebank.features.cache.reader import open_cache
from framebank.features.questions.question import Question
from framebank.train.data.batches import (
    QuestionTable,
    cached_features,
)
from framebank.train.data.shard_files import Staging, shard_files
from framebank.train.model.heads import OUTSIDE, Head
from tests.made.held_clips import held_features
from tests.made.made_cache import make_cache

LENGTHS = {"a.mp4": 3, "b.mp4": 4, "c/ü.mp4": 3, "d.mp4": 5}


def make_table() -> QuestionTable:
    questions = [
        Question(str(n), list(LENGTHS)[n % 4], "w " * (n % 3 + 1), f"answer {n % 2}")
        for n in range(10)
    ]

    def text(asked):  # type: ignore[no-untyped-def]
        counts = [len(q.split()) for q in asked.numpy()]
        return np.array([[1] * count + [0] * (3 - count) for count in counts])

    return QuestionTable.of(questions, Head(answers=("answer 1",)), text=text)


@pytest.fixture(params=["held", "streamed"])
def features(request, tmp_path: Path):  # type: ignore[no-untyped-def]
    make_cache(str(tmp_path))
    cache = open_cache(str(tmp_path))
    if request.param == "streamed":
        return cached_features(cache, LENGTHS, files=shard_files(cache.path, Staging()))
    return held_features({record.video_id: record.features for record in cache})


def test_every_question_once_with_its_own_features(features, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = make_table()
    assert list(table.answer[:2]) == [OUTSIDE, 0]
    cache = open_cache(str(tmp_path))
    seen = []
    for batch in features.batches(table, batch_size=4):
        real = int((batch["index"] >= 0).numpy().sum())
        assert batch["features"].dtype == np.float16 and len(batch["index"]) == 4
        np.testing.assert_allclose(np.sum(batch["weight"]), 1, rtol=1e-6)
        for row in range(real):
            index = int(batch["index"][row])
            question = table.questions[index]
            clip = cache[question.video_id].features.astype(np.float32)
            got = batch["features"][row].numpy()
            np.testing.assert_array_equal(got[: len(clip)], clip)
            assert not got[len(clip) :].any()
            assert batch["words"][row].numpy().sum() == len(question.question.split())
            assert batch["answer"][row] == table.answer[index]
            seen.append(index)
    assert sorted(seen) == list(range(10)) and table.steps(4) == 3


def test_order_follows_from_seed_and_epoch_and_can_be_entered_anywhere(features) -> None:  # type: ignore[no-untyped-def]
    table = make_table()

    def order(seed: int, epoch: int, skip: int = 0) -> list[int]:
        batches = features.batches(table, batch_size=3, seed=[seed, epoch], skip=skip)
        return [int(i) for batch in batches for i in batch["index"]]

    first = order(1, 0)
    assert first == order(1, 0) and sorted(first) == [-1, -1, *range(10)]
    assert first != order(1, 1) and first != order(2, 0)
    assert order(1, 0, skip=2) == first[6:]


def test_a_batch_is_no_longer_than_its_longest_clip_and_question(tmp_path: Path) -> None:
    table = make_table()
    clips = {video_id: np.ones((count, 8), np.float16) for video_id, count in LENGTHS.items()}
    batch = next(iter(held_features(clips).batches(table, batch_size=1)))
    assert batch["features"].shape == (1, 3, 8) and batch["words"].shape == (1, 1)


def test_vocabulary_ranks_by_count_then_alphabet() -> None:
    questions = [Question("1", "v", "q", answer) for answer in "bbaacd"] + [Question("2", "v", "q")]
    head = Head.of(questions, size=3)
    assert head.answers == ("a", "b", "c")
    assert head.truth([questions[4], questions[5], questions[6]]).tolist() == [2, OUTSIDE, OUTSIDE]


def test_candidates_are_as_long_as_the_longest_of_the_batch() -> None:
    asked = [Question(str(n), "a", "w", choices=("w", "w " * n), right=0) for n in (1, 2, 9)]
    clips = held_features({"a": np.zeros((1, 2), np.float16)})

    def text(texts):  # type: ignore[no-untyped-def]
        counts = [len(q.split()) for q in texts.numpy()]
        return np.array([[1] * count + [0] * (9 - count) for count in counts])

    table = QuestionTable.of(asked, Head("choice"), text=text)
    shapes = [tuple(batch["choices"].shape) for batch in clips.batches(table, batch_size=1)]
    assert sorted(shapes) == [(1, 2, 1), (1, 2, 2), (1, 2, 9)]
