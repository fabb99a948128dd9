"""The figures of an evaluation: accuracies with intervals, calibration, confusion, recall.

Everything is judged by question and drawn by video (`train.judging.bootstrap`); what comes out is
plain JSON, from which the page is written (`train.evaluation.report`).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking import scores
from framebank.features.questions.question import VQA_ACCURACY, Question
from framebank.train.evaluation.answers import DISTRACTORS, NO_RANK, Answers
from framebank.train.judging.baselines import Said, answer_gains
from framebank.train.judging.bootstrap import interval, paired_bootstrap
from framebank.train.judging.calibration import BINS, Confidence

_COMMONEST = 8
_MISTAKES = 10  # of a type of question
_RECALL_AT = (1, 5, 10)
_WORD_BANDS = ((5, "up to 5 words"), (8, "6 to 8 words"), (12, "9 to 12 words"))
_SECOND_BANDS = ((5, "under 5 s"), (10, "5 to 10 s"), (30, "10 to 30 s"), (60, "30 to 60 s"))


def share(right: NDArray[np.bool_], groups: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return how many of bool[q] are right, with the interval over videos `groups`."""
    return {
        "judged": len(right),
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "interval": list(interval(right, groups, seed=seed)),
    }


def judge(answers: Answers, *, durations_s: Mapping[str, float], seed: int) -> dict[str, Any]:
    """Return all figures of the model, of one question at least."""
    questions, right = answers.questions, answers.right
    groups = [question.source for question in questions]
    worth = _credits(answers.chosen(), questions)

    def parts(name: Callable[[Question], str]) -> dict[str, Any]:
        places: dict[str, list[int]] = collections.defaultdict(list)
        for place, question in enumerate(questions):
            places[name(question)].append(place)
        return {
            part: share(right[its], (some := [groups[place] for place in its]), seed=seed)
            | _mean("vqa_accuracy", None if worth is None else worth[its], some, seed)
            for part, its in sorted(places.items(), key=lambda item: (-len(item[1]), item[0]))
        }

    figures = {
        **share(right, groups, seed=seed),
        **_mean("vqa_accuracy", worth, groups, seed),
        "head": answers.head,
        "measure": "mean square error"
        if answers.head == "count"
        else "accuracy"
        if worth is None
        else VQA_ACCURACY,
        "by_type": parts(lambda question: question.kind),
        "by_question_length": parts(_words),
        "by_video_length": parts(lambda q: _seconds(durations_s.get(q.video_id, 0.0))),
        "confusion": confuse(questions, answers.chosen()),
        "mistakes_by_type": mistakes_by_type(questions, answers.chosen(), right),
    }
    if answers.head == "count":
        errors = _square_errors(answers.chosen(), questions)
        return figures | _mean("mean_square_error", errors, groups, seed)
    most = len(answers.vocabulary)
    if answers.head == "choice":
        most = max(len(question.choices) for question in questions)
    return {
        **figures,
        "top5": share(answers.rank < 5, groups, seed=seed),
        "outside_vocabulary": int((answers.rank == NO_RANK).sum()),
        # By k, how often the truth is among the k likeliest of itself and the distractors.
        "recall_among_distractors": {
            str(k): float((answers.rank_drawn < k).mean()) for k in _RECALL_AT
        },
        "distractors": min(DISTRACTORS, most - 1),
        "calibration": calibrate(answers.probability[:, 0], right),
    }


def _square_errors(said: Said, questions: Sequence[Question]) -> NDArray[np.float64] | None:
    """Return the square error of each count, float64[q]; None where not all are counts."""
    pairs = zip(questions, said, strict=True)
    errors = [scores.square_error(question, one) for question, one in pairs]
    return np.array(errors, np.float64) if errors and None not in errors else None


def _credits(said: Said, questions: Sequence[Question]) -> NDArray[np.float64] | None:
    """Return what each answer is worth by VQA's rule, float64[q]; None where no people answered."""
    if not any(question.given for question in questions):
        return None
    return answer_gains(questions, said)


def _mean(
    name: str, values: NDArray[np.float64] | None, groups: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the mean of `values` as `name`, with its interval over videos; nothing of None."""
    if values is None:
        return {}
    between = list(interval(values, groups, seed=seed))
    return {name: float(values.mean()), f"{name}_interval": between}


def beside(said: Mapping[str, Said], answers: Answers, *, seed: int) -> dict[str, Any]:
    """Return the figures of each baseline, and by how much the model is ahead of it.

    "ahead" is the difference of accuracies (where people gave several answers, of VQA accuracies),
    or by how much the model's mean square error is the smaller one, with its interval, by a paired
    bootstrap over videos.
    """
    asked = answers.questions
    groups = [question.source for question in asked]
    ours = _square_errors(answers.chosen(), asked) if answers.head == "count" else None
    our_worth = _credits(answers.chosen(), asked)
    found = {}
    for name, others in said.items():
        its = np.array([scores.is_right(q, one) for one, q in zip(others, asked, strict=True)])
        theirs, worth = _square_errors(others, asked), _credits(others, asked)
        if ours is not None and theirs is not None:
            measure = "mean square error"
            ahead = paired_bootstrap(-ours, -theirs, groups, seed=seed)
        elif our_worth is not None and worth is not None:
            measure, ahead = VQA_ACCURACY, paired_bootstrap(our_worth, worth, groups, seed=seed)
        else:
            measure, ahead = "accuracy", paired_bootstrap(answers.right, its, groups, seed=seed)
        found[name] = {
            **share(its, groups, seed=seed),
            **_mean("vqa_accuracy", worth, groups, seed),
            **_mean("mean_square_error", theirs, groups, seed),
            "ahead": {"measure": measure, **ahead.to_json()},
        }
    return found


def _words(question: Question) -> str:
    count = len(question.question.split())
    return next((text for most, text in _WORD_BANDS if count <= most), "13 words or more")


def _seconds(duration_s: float) -> str:
    if not duration_s > 0:  # nor NaN, of a container that says so
        return "not known"
    return next((text for below, text in _SECOND_BANDS if duration_s < below), "60 s or more")


def calibrate(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the expected calibration error and its bins (Guo et al., ICML 2017, section 2)."""
    sure = Confidence()
    sure.add(confidence, right)
    bins = [
        {
            "from": place / BINS,
            "to": (place + 1) / BINS,
            "judged": int(count),
            "confidence": float(total / count),
            "accuracy": float(hits / count),
        }
        for place, (count, total, hits) in enumerate(sure.bins.T)
        if count
    ]
    return {"expected_error": sure.error, "bins": bins}


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


def mistakes_by_type(
    questions: Sequence[Question], chosen: Sequence[str], right: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return by type of question, the commonest first, which answers are taken for which.

    Each has "judged", "wrong", the "confusion" of its answers, and its commonest "mistakes": the
    "truth", what was "said" and how often ("count").
    """
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(questions):
        places[question.kind].append(place)
    found = {}
    for kind, its in sorted(places.items(), key=lambda item: (-len(item[1]), item[0])):
        wrong = [place for place in its if not right[place]]
        pairs = collections.Counter(
            (questions[place].answer or "", chosen[place]) for place in wrong
        )
        common = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:_MISTAKES]
        found[kind] = {
            "judged": len(its),
            "wrong": len(wrong),
            "confusion": confuse(
                [questions[place] for place in its], [chosen[place] for place in its]
            ),
            "mistakes": [
                {"truth": truth, "said": said, "count": count} for (truth, said), count in common
            ],
        }
    return found
