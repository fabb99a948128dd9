"""Figures of an evaluation against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.questions.question import Question
from framebank.train.evaluation import figures as evaluation
from framebank.train.evaluation.answers import NO_RANK, Answers
from framebank.train.judging import baselines


def _questions() -> list[Question]:
    rows = [("a", "what <is> it?", "cat"), ("b", "who is it?", "man"), ("c", "what?", "dog")]
    return [Question(str(n), video, text, answer) for n, (video, text, answer) in enumerate(rows)]


def _answers() -> Answers:
    best = np.array([[0, 1], [0, 1], [0, 1]])
    probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    rank = np.array([0, 1, NO_RANK])
    return Answers("open", _questions(), ("cat", "man"), best, probability, rank, rank)


def test_figures_are_those_of_hand() -> None:
    durations = {"a": 3.0, "b": 20.0, "c": float("nan")}
    figures = evaluation.judge(_answers(), durations_s=durations, seed=0)
    assert figures["accuracy"] == pytest.approx(1 / 3) and figures["outside_vocabulary"] == 1
    assert figures["top5"]["correct"] == 2 and figures["by_type"]["what"]["judged"] == 2
    assert set(figures["by_video_length"]) == {"under 5 s", "10 to 30 s", "not known"}
    assert figures["calibration"]["expected_error"] == pytest.approx((0.1 + 0.8 + 0.6) / 3)
    assert figures["recall_among_distractors"]["5"] == pytest.approx(2 / 3)
    assert figures["distractors"] == 1 and figures["confusion"]["rows"][0] == [1, 0, 0, 0]


def test_baselines_have_intervals_and_the_lead_over_them() -> None:
    questions = [
        Question(str(n), str(n // 2), "what is it?", "cat" if n % 4 else "dog") for n in range(80)
    ]
    said = baselines.count_answers(questions, questions)
    rank = np.zeros(80, np.int64)  # all are right
    answers = Answers("open", questions, ("cat",), rank[:, None], np.ones((80, 1)), rank, rank)
    found = evaluation.beside(said, answers, seed=0)
    assert set(found) == {"majority", "majority_per_word", "majority_per_question"}
    for score in found.values():
        low, high = score["interval"]
        assert score["accuracy"] == 0.75 and low < 0.75 < high
        assert score["ahead"]["difference"] == 0.25
        assert score["ahead"]["interval"] == pytest.approx([1 - high, 1 - low])
        assert score["ahead"]["probability_better"] == 1.0
