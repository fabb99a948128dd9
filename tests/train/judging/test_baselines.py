"""train.judging.baselines: counts by hand."""

from __future__ import annotations

from framebank.features.questions.question import Question
from framebank.train.judging.baselines import count_answers


def ask(text: str, answer: str, kind: str | None = None) -> Question:
    return Question("1", "v", text, answer, None, kind)


TRAIN = [ask("who?", "man"), ask("Who ?", "man"), ask("what?", "cat"), ask("what?", "cat"),
         ask("what?", "cat"), ask("what?", "man")]  # fmt: skip


def test_majorities() -> None:
    asked = [ask("what?", "cat"), ask("WHO?", "man"), ask("why?", "dog")]
    said = count_answers(TRAIN, asked)
    assert said["majority"] == ["cat"] * 3  # of equals the first by alphabet
    assert said["majority_per_question"] == ["cat", "man", "cat"]


def test_majority_per_word_counts_by_the_question_word() -> None:
    rows = [("what?", "cat"), ("what?", "cat"), ("Who is it?", "man"), ("who?", "man")]
    train = [Question(str(n), "v", text, answer) for n, (text, answer) in enumerate(rows)]
    asked = [Question(str(n), "w", text) for n, text in enumerate(["who then?", "why?"])]
    assert count_answers(train, asked)["majority_per_word"] == ["man", "cat"]
