"""What a model must beat: answers that need no video, or no order of frames.

Those by majority only count. `question_only` and `order_blind` are trained by the same loop under
the same budget (`TRAINED`, kinds of `train.model.config.ModelConfig`).

What these and the model answered to each judged question a training keeps in `judged.jsonl`: with
it an evaluation trains nothing again. A line per question, in the order of the split:

    {"question_id", "video_id", "question", "truth", "answers": {"model", "order_blind", ...}}
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking import scores
from framebank.features.asking.heads import Head
from framebank.features.questions.question import QUESTION_WORDS, Question
from framebank.features.stores import json_text, storage
from framebank.train.judging.bootstrap import Comparison, paired_bootstrap

TRAINED = ("order_blind", "question_only", "probe_blind", "probe")
JUDGED_FILE = "judged.jsonl"

Said = Sequence[str | None]  # one answer per question; None is an answer that is surely wrong


def leading(
    asked: Sequence[Question], said: Mapping[str, Said], *, seed: int
) -> dict[str, Comparison]:
    """Return the baselines of `said` that are surely better than "model", and by how much: their
    whole interval is on the one side. Of counts it is the mean square error."""
    gains = {name: answer_gains(asked, answers) for name, answers in said.items()}
    groups = [question.source for question in asked]
    found = {
        name: paired_bootstrap(its, gains["model"], groups, seed=seed)
        for name, its in gains.items()
        if name != "model"
    }
    return {name: its for name, its in found.items() if its.low > 0}


def answer_gains(asked: Sequence[Question], said: Said) -> NDArray[np.float64]:
    """Return float64[q], the higher the better: 1 for a right answer, its VQA accuracy where people
    gave several, of a count minus the square of its error."""
    pairs = list(zip(asked, said, strict=True))
    if asked and all(question.head == "count" for question in asked):
        return np.array([-(scores.square_error(*pair) or 0.0) for pair in pairs], np.float64)
    worth = [(scores.credit(*pair), scores.is_right(*pair)) for pair in pairs]
    return np.array([right if its is None else its for its, right in worth], np.float64)


def trained_of(head: Head, *, pictures: bool = False) -> tuple[str, ...]:
    """Return the kinds that are trained to stand beside a model: where nothing is asked nothing
    can be said to a question alone, and of pictures, not features, nothing else is."""
    kinds = ("question_only",) if pictures else TRAINED
    return tuple(kind for kind in kinds if head.asks or kind != "question_only")


def count_answers(train: Sequence[Question], asked: Sequence[Question]) -> dict[str, Said]:
    """Return what the baselines say that only count the answers of `train`.

    They answer as `train` mostly answers anything, questions that open with the same question
    word, or the same question; as it answers anything where it holds no such question. Of labels,
    to which nothing is asked, there is one majority.
    """
    majority: dict[str, Said] = {"majority": _majority_per(lambda question: "", train, asked)}
    if not any(question.question for question in asked):
        return majority
    return majority | {
        "majority_per_word": _majority_per(_word, train, asked),
        "majority_per_question": _majority_per(_plain, train, asked),
    }


class _Majority:
    """Answers as most questions of `train` are; blind to video and question.

    Of equally common answers the first by alphabet; among candidates the one that is commonest as
    a true answer, else the first; a count is the rounded mean, which has the least square error.
    """

    def __init__(self, train: Sequence[Question]) -> None:
        self._counts = collections.Counter(q.answer for q in train if q.answer is not None)
        numbers = [q.number for q in train if q.number is not None]
        self._mean = str(round(sum(numbers) / len(numbers))) if numbers else "0"
        self._commonest = min(self._counts, key=lambda answer: (-self._counts[answer], answer))

    def says(self, question: Question) -> str:
        if question.head == "count":
            return self._mean
        if question.choices:
            return max(question.choices, key=lambda choice: self._counts[choice])
        return self._commonest


def _majority_per(
    part: Callable[[Question], str], train: Sequence[Question], asked: Sequence[Question]
) -> list[str]:
    parts: dict[str, list[Question]] = collections.defaultdict(list)
    for question in train:
        parts[part(question)].append(question)
    counted = {name: _Majority(questions) for name, questions in parts.items()}
    fallback = _Majority(train)
    return [counted.get(part(question), fallback).says(question) for question in asked]


def _plain(question: Question) -> str:
    return " ".join(question.question.casefold().strip("?!. ").split())


def _word(question: Question) -> str:
    word = dataclasses.replace(question, type=None).kind
    return word if word in QUESTION_WORDS else "other"


def judged_text(questions: Sequence[Question], said: Mapping[str, Sequence[Any]]) -> str:
    """Return the lines of judged.jsonl; each of `said` has an answer per question."""
    rows = (
        {
            **_about(question),
            "truth": question.answer,
            "answers": {name: answers[place] for name, answers in said.items()},
        }
        for place, question in enumerate(questions)
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_judged(model_dir: str, asked: Sequence[Question]) -> dict[str, list[Any]]:
    """Return what was answered to `asked`; nothing where other questions, or none, were judged."""
    rows = read_rows(storage.join(model_dir, JUDGED_FILE))
    said: list[Any] = [row.get("answers") for row in rows]
    same = len(rows) == len(asked) and all(
        isinstance(row.get("answers"), dict)
        and all(row.get(name) == value for name, value in _about(question).items())
        for row, question in zip(rows, asked, strict=True)
    )
    names = said[0] if same and said else {}
    return {name: [answers.get(name) for answers in said] for name in names}


def read_rows(path: str) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; none where it is missing or damaged."""
    try:
        return json_text.parse_lines(storage.read_bytes(path))
    except (storage.FileMissingError, ValueError):
        return []


def _about(question: Question) -> dict[str, str]:
    return {name: getattr(question, name) for name in ("question_id", "video_id", "question")}
