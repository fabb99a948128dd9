"""features.asking.scores: counts by hand, and the laws of a score."""

from __future__ import annotations

from framebank.features.asking.scores import Score, add_up, figures
from framebank.features.questions.question import Question


def _ask(text: str, answer: str, kind: str | None = None) -> Question:
    return Question("1", "v", text, answer, None, kind)


def test_score_counts_by_kind_and_merges_to_the_whole() -> None:
    asked = [_ask("what?", "cat"), _ask("who?", "man"), _ask("x", "dog", "T"), _ask("what?", "elk")]
    answers = ["cat", "cat", "dog", None]
    scores = [(one.kind, Score.of(one, said)) for one, said in zip(asked, answers, strict=True)]
    by_type = add_up(scores)
    assert by_type == {"what": Score(2, 1), "who": Score(1, 0), "T": Score(1, 1)}
    whole = sum(by_type.values(), Score())
    assert (whole.judged, whole.correct, whole.accuracy) == (4, 2, 0.5)
    parts = add_up([*add_up(scores[:2]).items(), *add_up(scores[2:]).items()])
    assert parts == by_type and whole == Score() + whole
    assert figures([], [])["accuracy"] == 0 and Score().accuracy is None
    found = figures(asked, answers)
    assert found["accuracy"] == 0.5
    assert found["by_type"]["what"] == {"judged": 2, "correct": 1, "accuracy": 0.5}


def test_counts_have_a_mean_square_error() -> None:
    asked = [Question(str(n), "v", "how many?", str(n), head="count") for n in range(3)]
    found = figures(asked, ["0", "3", "2.0"])
    assert (found["accuracy"], found["mean_square_error"]) == (2 / 3, 4 / 3)
    assert found["by_type"]["how"]["mean_square_error"] == 4 / 3
    assert sum((Score.of(one, one.answer) for one in asked), Score()) == Score(3, 3, 0.0)
