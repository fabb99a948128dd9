"""The figures of an evaluation: accuracies with intervals, calibration, confusion, recall.

Everything is judged by question and drawn by video (`train.comparing`); what comes out is plain
JSON, from which the page is written (`train.report_page`).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.questions import QUESTION_WORDS, Question
from train import baselines
from train.comparing import interval
from train.evaluation_answers import Answers

_BINS = 10
_COMMONEST = 8
_RECALL_AT = (1, 5, 10)
_WORD_BANDS = ((5, "up to 5 words"), (8, "6 to 8 words"), (12, "9 to 12 words"))
_SECOND_BANDS = ((5, "under 5 s"), (10, "5 to 10 s"), (30, "10 to 30 s"), (60, "30 to 60 s"))


def share(right: NDArray[np.bool_], groups: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return how many of bool[q] are right, with the interval over videos `groups`."""
    around = interval(right, groups, seed=seed)
    return {
        "judged": len(right),
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "interval": [around.low, around.high],
    }


def judge(
    questions: Sequence[Question],
    answers: Answers,
    *,
    durations_s: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """Return all figures of the model on `questions`, which are not empty."""
    right = answers.rank == 0
    groups = [question.video_id for question in questions]

    def parts(name: Callable[[Question], str]) -> dict[str, Any]:
        return _parts(questions, right, name, seed)

    return {
        **share(right, groups, seed=seed),
        "top5": share(answers.rank < 5, groups, seed=seed),
        "outside_vocabulary": int((answers.rank > len(answers.vocabulary)).sum()),
        "by_type": parts(lambda question: question.kind),
        "by_question_length": parts(lambda q: _band(len(q.question.split()), _WORD_BANDS)),
        "by_video_length": parts(lambda q: _seconds(durations_s.get(q.video_id, 0.0))),
        "recall_among_distractors": _recall(answers),
        "calibration": calibrate(answers.probability[:, 0], right),
        "confusion": confuse(questions, answers.chosen()),
    }


def _parts(
    questions: Sequence[Question],
    right: NDArray[np.bool_],
    name: Callable[[Question], str],
    seed: int,
) -> dict[str, Any]:
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(questions):
        places[name(question)].append(place)
    return {
        part: share(right[its], [questions[place].video_id for place in its], seed=seed)
        for part, its in sorted(places.items(), key=lambda item: (-len(item[1]), item[0]))
    }


def _band(value: float, bands: Sequence[tuple[int, str]]) -> str:
    return next((text for most, text in bands if value <= most), "13 words or more")


def _seconds(duration_s: float) -> str:
    if duration_s <= 0:
        return "not known"
    return next((text for below, text in _SECOND_BANDS if duration_s < below), "60 s or more")


def _recall(answers: Answers) -> dict[str, float]:
    """Return, by k, how often the truth is among the k likeliest of itself and the distractors."""
    return {str(k): float((answers.rank_drawn < k).mean()) for k in _RECALL_AT}


def calibrate(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the expected calibration error and its bins (Guo et al., ICML 2017, section 2)."""
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = [
        {
            "from": place / _BINS,
            "to": (place + 1) / _BINS,
            "judged": int((places == place).sum()),
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
        }
        for place in range(_BINS)
        if (places == place).any()
    ]
    error = sum(abs(one["confidence"] - one["accuracy"]) * one["judged"] for one in bins)
    return {"expected_error": float(error / len(right)), "bins": bins}


def confuse(questions: Sequence[Question], chosen: Sequence[str]) -> dict[str, Any]:
    """Return how often each of the commonest true answers was answered by which."""
    truths = collections.Counter(question.answer or "" for question in questions)
    names = sorted(truths, key=lambda answer: (-truths[answer], answer))[:_COMMONEST]
    pairs = collections.Counter(
        (question.answer, answer if answer in names else None)
        for question, answer in zip(questions, chosen, strict=True)
    )
    rows = [[pairs[(truth, answer)] for answer in (*names, None)] for truth in names]
    return {"answers": names, "rows": rows}  # the last column counts all other answers


def count_baselines(
    train: Sequence[Question], asked: Sequence[Question], *, seed: int
) -> dict[str, Any]:
    """Return the figures of what only counts the training answers."""
    said = {
        "majority": baselines.majority(train, asked),
        "majority_per_word": majority_per_word(train, asked),
        "majority_per_question": baselines.majority_per_question(train, asked),
    }
    groups = [question.video_id for question in asked]
    truths = [question.answer for question in asked]
    return {
        name: share(np.array([a == b for a, b in zip(its, truths, strict=True)]), groups, seed=seed)
        for name, its in said.items()
    }


def majority_per_word(train: Sequence[Question], asked: Sequence[Question]) -> list[str]:
    """Answer with the commonest answer to questions that open with the same question word."""
    by_word: dict[str, list[Question]] = collections.defaultdict(list)
    for question in train:
        by_word[_word(question)].append(question)
    words = {_word(question) for question in asked}
    said = {word: baselines.majority(by_word.get(word) or train, asked[:1])[0] for word in words}
    return [said[_word(question)] for question in asked]


def _word(question: Question) -> str:
    plain = dataclasses.replace(question, type=None)
    return plain.kind if plain.kind in QUESTION_WORDS else "other"
