"""features.asking.heads: what outputs stand for, for each kind of head."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.asking.heads import CHOICE, COUNT, Head, choice_shares
from framebank.features.questions.question import Question


def test_best_answers_are_the_likeliest_first() -> None:
    head = Head(answers=("a", "b", "c"))
    best = head.best(np.array([0.2, 0.6, 0.2], np.float32), top=2)
    assert best == [{"answer": "b", "probability": 0.6}, {"answer": "a", "probability": 0.2}]
    assert len(head.best(np.array([0.2, 0.6, 0.2], np.float32), top=9)) == 3


def test_a_head_comes_back_from_its_json() -> None:
    for head in (Head(answers=("a", "b")), Head(CHOICE), Head(COUNT, low=-1, high=4)):
        assert Head.from_json(head.to_json()) == head
    assert Head.from_json({"answers": ["a"]}) == Head(answers=("a",))  # of an older version
    with pytest.raises(ValueError, match="the head 'other'"):
        Head.from_json({"head": "other"})


def test_what_each_head_answers() -> None:
    asked = Question("1", "v", "?", "3", head="count", choices=("x", "3"), right=1)
    fits = {kind: [Head(kind).fits(one) for one in ("open", "yes_no", "choice", "count")]
            for kind in ("open", "choice", "count")}  # fmt: skip
    assert fits == {
        "open": [True, True, False, False],
        "choice": [False, False, True, False],
        "count": [False, False, False, True],
    }
    opened, chooses, counts = Head(answers=("2", "3")), Head(CHOICE), Head(COUNT, low=0, high=2)
    assert [head.number(asked) for head in (opened, chooses, counts)] == [1, 1, 3]
    assert Head(answers=("2",)).number(asked) is None
    assert [opened.answer(asked, 0), chooses.answer(asked, 0), counts.answer(asked, 2)] == [
        "2", "x", "2",
    ]  # fmt: skip
    assert counts.chosen(np.float32([[0.6], [9], [-2]]), [asked] * 3).tolist() == [1, 2, 0]


def test_candidates_share_what_is_their_own_question() -> None:
    shares = choice_shares(np.zeros(5, np.float32), [("a", "b", "a"), ("a", "b")])
    assert shares.tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0]]


def test_an_open_question_with_candidates_is_answered_with_one_of_them() -> None:
    head = Head(answers=("red", "blue", "2"))
    some = Question("1", "v", "what colour?", "blue", choices=("blue", "green", "2", "blue"))
    none = Question("2", "v", "what is it?", choices=("a cat", "a dog"))
    free = Question("3", "v", "what colour?")
    scores = np.float32([[0.6, 0.1, 0.3]] * 3)
    kept = head.restrict(scores, [some, none, free])
    assert kept.tolist() == pytest.approx(np.float32([[0, 0.25, 0.75], [0] * 3, [0.6, 0.1, 0.3]]))
    said = [
        head.answer(q, n)
        for q, n in zip((some, none, free), head.chosen(scores, [some, none, free]), strict=True)
    ]
    assert said == ["2", "a cat", "red"]
    assert head.best(kept[0], top=5, choices=some.choices) == [
        {"answer": "2", "probability": 0.75},
        {"answer": "blue", "probability": 0.25},
        {"answer": "green", "probability": 0.0},
    ]
