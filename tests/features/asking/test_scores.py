"""features.asking.scores: counts by hand, and the laws of a score."""

from __future__ import annotations

from framebank.features.asking.scores import Score
from framebank.features.questions.question import Question


def _ask(text: str, answer: str, kind: str | None = None) -> Question:
    return Question("1", "v", text, answer, None, kind)


def test_score_counts_by_kind_and_merges_to_the_whole() -> None:
    asked = [_ask("what?", "cat"), _ask("who?", "man"), _ask("x", "dog", "T"), _ask("what?", "elk")]
    answers = ["cat", "cat", "dog", None]
    whole = Score.of(asked, answers)
    assert whole.by_type == {"what": (2, 1), "who": (1, 0), "T": (1, 1)}
    assert (whole.judged, whole.correct, whole.accuracy) == (4, 2, 0.5)
    parts = Score.of(asked[:2], answers[:2]) + Score.of(asked[2:], answers[2:])
    assert parts == whole == Score() + whole
    assert Score().accuracy == 0
    assert whole.to_json()["by_type"]["what"] == {"judged": 2, "correct": 1, "accuracy": 0.5}
