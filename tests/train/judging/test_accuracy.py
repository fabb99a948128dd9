"""framebank.accuracy and framebank.baselines: counts by hand, laws of the score."""

from __future__ import annotations

from framebank.features.questions.question import Question
from framebank.train.judging.accuracy import Score
from framebank.train.judging.baselines import majority, majority_per_question


def ask(text: str, answer: str, kind: str | None = None) -> Question:
    return Question("1", "v", text, answer, None, kind)


TRAIN = [ask("who?", "man"), ask("Who ?", "man"), ask("what?", "cat"), ask("what?", "cat"),
         ask("what?", "cat"), ask("what?", "man")]  # fmt: skip


def test_majorities() -> None:
    asked = [ask("what?", "cat"), ask("WHO?", "man"), ask("why?", "dog")]
    assert majority(TRAIN, asked) == ["cat"] * 3  # of equals the first by alphabet
    assert majority_per_question(TRAIN, asked) == ["cat", "man", "cat"]


def test_score_counts_by_kind_and_merges_to_the_whole() -> None:
    asked = [ask("what?", "cat"), ask("who?", "man"), ask("x", "dog", "T"), ask("what?", "elk")]
    answers = ["cat", "cat", "dog", None]
    whole = Score.of(asked, answers)
    assert whole.by_type == {"what": (2, 1), "who": (1, 0), "T": (1, 1)}
    assert (whole.judged, whole.correct, whole.accuracy) == (4, 2, 0.5)
    parts = Score.of(asked[:2], answers[:2]).merge(Score.of(asked[2:], answers[2:]))
    assert parts == whole == Score().merge(whole)
    assert Score().accuracy == 0
    assert whole.to_json()["by_type"]["what"] == {"judged": 2, "correct": 1, "accuracy": 0.5}
