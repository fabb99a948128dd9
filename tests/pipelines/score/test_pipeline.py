"""The scoring job: the handler's batches, the tally's laws, and what is read from shards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from framebank.features.asking.heads import Head
from framebank.features.asking.one_clip import length_groups
from framebank.features.asking.trained_model import TrainedModel
from framebank.features.questions.question import Question
from framebank.pipelines.score.answering import Example, answer_examples
from framebank.pipelines.score.folder import KINDS, plain, read_answers, write_answers
from framebank.pipelines.score.pipeline import sum_tallies
from framebank.pipelines.score.plan import Asked
from framebank.pipelines.score.tally import NO_WORDS, Tally, with_headline


def _asked(number: int, question: str = "what?", truth: str | None = "b") -> Asked:
    about = Question(str(number), f"{number}.mp4", question, truth, type="what")
    return Asked(number, about)


def _mean_model() -> TrainedModel:
    """A model whose probabilities are the mean of the rows before the padding."""

    def predict(features: NDArray[np.float32], questions: list[bytes]) -> NDArray[np.float32]:
        if b"bad" in questions:
            raise ValueError("this question cannot be answered")
        means = []
        for clip in features:
            rows = int(np.flatnonzero(clip.any(axis=-1)).max()) + 1
            means.append(clip[:rows].mean(axis=0))
        return np.stack(means)

    return TrainedModel(predict, Head(answers=("a", "b", "c")))


def _examples(lengths: list[int]) -> list[Example]:
    random = np.random.default_rng(0)
    return [
        Example(_asked(number), random.random((length, 3)).astype(np.float16) + 0.1)
        for number, length in enumerate(lengths)
    ]


def test_rows_come_in_order_and_padding_changes_nothing() -> None:
    examples = _examples([5, 1, 300, 2, 7, 1, 64])
    together = answer_examples(examples, _mean_model(), top=2)
    alone = [answer_examples([example], _mean_model(), top=2)[0] for example in examples]
    assert together == alone
    assert [number for number, _ in together] == list(range(7))
    first = together[0][1]["answers"]
    assert len(first) == 2 and first[0]["probability"] >= first[1]["probability"]
    means = examples[0].features.astype(np.float32).mean(axis=0)
    assert first[0]["answer"] == "abc"[int(means.argmax())]


def test_one_bad_question_costs_only_its_own_row() -> None:
    examples = _examples([2, 2, 2])
    examples[1] = Example(_asked(1, "bad"), examples[1].features)
    rows = [row for _, row in answer_examples(examples, _mean_model(), top=3)]
    assert [row["status"] for row in rows] == ["answered", "failed", "answered"]
    assert "cannot be answered" in rows[1]["reason"] and rows[1]["correct"] is None


def test_bad_questions_among_many_are_found_by_halves() -> None:
    examples = _examples([2] * 100)
    for place in (0, 57, 99):
        examples[place] = Example(_asked(place, "bad"), examples[place].features)
    calls: list[int] = []
    good = _mean_model()

    def predict(features: NDArray[np.float32], questions: list[bytes]) -> NDArray[np.float32]:
        calls.append(len(questions))
        return good.call(features, questions)

    rows = answer_examples(examples, TrainedModel(predict, good.head), top=3)
    assert [number for number, _ in rows] == list(range(100)) and len(calls) < 50
    failed = [number for number, row in rows if row["status"] == "failed"]
    assert failed == [0, 57, 99]


def test_a_question_of_a_megabyte_weighs_on_no_other() -> None:
    examples = _examples([2] * 8)
    for place, length in ((3, 5000), (5, 10**6)):
        examples[place] = Example(_asked(place, "x" * length), examples[place].features)
    shapes: list[tuple[int, int]] = []

    def predict(features: NDArray[np.float32], questions: list[bytes]) -> NDArray[np.float32]:
        shapes.append((len(questions), max(map(len, questions))))
        return _mean_model().call(features, questions)

    model = TrainedModel(predict, Head(answers=("a", "b", "c")))
    rows = [row for _, row in answer_examples(examples, model, top=3)]
    assert [row["status"] == "failed" for row in rows] == [place == 5 for place in range(8)]
    assert "1000000 characters" in rows[5]["reason"] and sorted(shapes) == [(1, 5000), (6, 5)]


def test_answers_that_are_not_finite_fail_their_row() -> None:
    example = Example(_asked(0), np.array([[1, np.inf, 0]], np.float32))
    ((_, row),) = answer_examples([example], _mean_model(), top=3)
    assert row["status"] == "failed" and "finite" in row["reason"]


def test_a_question_without_a_known_word_says_so_in_its_row() -> None:
    model = _mean_model()
    known = lambda asked: np.array([[1, 2 * (b"what" in text)] for text in asked])  # noqa: E731
    model = dataclasses.replace(model, number=known)
    asked = [_asked(0, "what?"), _asked(1, "zzz qqq")]
    features = np.full((1, 3), 0.5, np.float32)
    rows = answer_examples([Example(one, features) for one in asked], model, top=1)
    assert [row["reason"] for _, row in rows] == [None, NO_WORDS]
    assert {row["status"] for _, row in rows} == {"answered"}


@pytest.mark.parametrize("room", [1, 10, 64, 10**9])
def test_length_groups_hold_each_clip_once_within_room(room: int) -> None:
    lengths = [int(n) for n in np.random.default_rng(1).integers(1, 50, 40)]
    groups = list(length_groups(lengths, room))
    assert sorted(place for group in groups for place in group) == list(range(40))
    for group in groups:
        longest, shortest = max(lengths[p] for p in group), min(lengths[p] for p in group)
        assert len(group) == 1 or (longest <= 2 * shortest and longest * len(group) <= room)


def _row(status: str = "answered", correct: bool | None = None, kind: str = "x") -> dict[str, Any]:
    truth = None if correct is None else "t"
    split = {"x": "train", "y": "test"}[kind]
    return {"status": status, "correct": correct, "truth": truth, "type": kind, "split": split}


def test_tally_of_parts_adds_up_to_the_whole() -> None:
    rows = [_row(correct=True), _row(correct=False), _row(), _row("failed"), _row(correct=True)]
    rows += [_row("not_in_cache"), _row(correct=False, kind="y") | {"reason": NO_WORDS}]
    whole = Tally.of(rows)
    assert whole == Tally.of(rows[:3]) + Tally.of(rows[3:]) == Tally() + whole
    assert sum_tallies(sum_tallies([Tally.of([row])]) for row in rows) == whole
    fields = whole.to_json()
    assert (fields["questions"], fields["answered"], fields["failed"]) == (7, 5, 1)
    assert fields["without_truth"] == 3 and fields["without_known_words"] == 1
    # The headline is about the test rows alone, and so are its types.
    assert (fields["split"], fields["judged"], fields["accuracy"]) == ("test", 1, 0.0)
    assert fields["by_type"] == {"y": {"judged": 1, "correct": 0, "accuracy": 0.0}}
    of_train = {"judged": 3, "correct": 2, "accuracy": 2 / 3}
    assert fields["by_split"]["train"] == {
        **of_train, "measure": "accuracy", "by_type": {"x": of_train},
    }  # fmt: skip
    everything = with_headline(fields, "all")
    assert (everything["judged"], everything["correct"], everything["split"]) == (4, 2, "all")
    assert set(everything["by_type"]) == {"x", "y"} and set(everything) == set(fields)
    assert with_headline(everything, None) == fields == whole.to_json(split="test")
    assert with_headline(fields, "val")["accuracy"] is None


@pytest.mark.parametrize(
    ("splits", "headline"),
    [
        (["train", "val", "test", None], "test"),
        (["train", "val"], "val"),
        (["train"], "train"),
        ([None], "all"),
        (["val", None], "all"),
    ],
)
def test_the_headline_is_about_the_split_that_flatters_least(
    splits: list[str | None], headline: str
) -> None:
    rows = [_row(correct=True) | {"split": split} for split in splits]
    assert Tally.of(rows).to_json()["split"] == headline


def test_squares_are_of_their_split() -> None:
    rows = [
        _row(correct=False)
        | {"split": split, "truth": "3", "answers": [{"answer": said, "number": 1.0}]}
        for split, said in (("train", "3"), ("test", "5"), ("test", "3"))
    ]
    fields = (Tally.of(rows[:2]) + Tally.of(rows[2:])).to_json()
    assert (fields["mean_square_error"], fields["measure"]) == (2.0, "mean square error")
    assert with_headline(fields, "train")["mean_square_error"] == 0
    assert with_headline(fields, "all")["mean_square_error"] == 4 / 3


def test_no_judged_rows_have_no_accuracy() -> None:
    assert Tally().to_json()["accuracy"] is None and Tally().to_json()["questions"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_any_text_become_lines_of_json(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"answers.{kind}"
    asked = _asked(0, "was ist 这 \u2028 \ud800?")
    row = plain(asked.row("failed", reason="\udcff")[1])
    write_answers(str(path), [row], kind=kind)
    assert read_answers(str(path), kind=kind) == [row]
    assert row["question"] == "was ist 这 \u2028 \\ud800?" and row["reason"] == "\\xff"
    if kind == "jsonl":
        line = path.read_bytes()
        assert line.endswith(b"\n") and line.count(b"\n") == 1
        assert json.loads(line) == row and "这".encode() in line
