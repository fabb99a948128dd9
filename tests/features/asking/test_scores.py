"""features.asking.scores: counts by hand, and the laws of a score."""

from __future__ import annotations

import pytest

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


def test_answers_of_several_people_are_worth_by_their_rule() -> None:
    given = tuple(["two"] * 2 + ["three"] * 8)
    asked = [
        Question("1", "p", "how many?", "3", type="number", given=given),
        Question("2", "p", "how many?", "3", type="number", given=given),
        Question("3", "p", "is it?", "yes", type="yes/no", given=("yes",) * 10),
        _ask("what?", "cat", "other"),  # beside them one with a single truth
    ]
    found = figures(asked, ["3", "two", None, "cat"])
    # 3 is as three: 1; two of ten: (2 · 1/3 + 8 · 2/3) / 10 = 0.6; none: 0; right: 1
    assert (found["accuracy"], found["vqa_accuracy"]) == (0.5, pytest.approx(0.65))
    assert found["by_type"]["number"]["vqa_accuracy"] == pytest.approx(0.8)
    assert found["by_type"]["yes/no"]["vqa_accuracy"] == 0
    assert "vqa_accuracy" not in found["by_type"]["other"]
    assert Score.of(asked[2], "yes").measure == "VQA accuracy"
