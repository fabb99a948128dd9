"""What a model must beat: answers that need no video, or no order of frames.

Those by majority only count. `question_only` and `order_blind` are trained by the same loop under
the same budget (`TRAINED`, kinds of `train.model.config.ModelConfig`).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

from framebank.features.questions.question import QUESTION_WORDS, Question
from framebank.train.judging.judged_answers import Said

TRAINED = ("order_blind", "question_only", "probe_blind", "probe")


def count_answers(train: Sequence[Question], asked: Sequence[Question]) -> dict[str, Said]:
    """Return what the baselines say that only count the answers of `train`."""
    return {
        "majority": majority(train, asked),
        "majority_per_word": majority_per_word(train, asked),
        "majority_per_question": majority_per_question(train, asked),
    }


class Majority:
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


def majority(train: Sequence[Question], asked: Sequence[Question]) -> list[str]:
    """Answer everything as most questions of `train` are answered."""
    counted = Majority(train)
    return [counted.says(question) for question in asked]


def majority_per_question(train: Sequence[Question], asked: Sequence[Question]) -> list[str]:
    """Answer as `train` mostly answers the same question, else as it answers any."""
    return _majority_per(_plain, train, asked)


def majority_per_word(train: Sequence[Question], asked: Sequence[Question]) -> list[str]:
    """Answer as `train` mostly answers questions that open with the same question word."""
    return _majority_per(_word, train, asked)


def _majority_per(
    part: Callable[[Question], str], train: Sequence[Question], asked: Sequence[Question]
) -> list[str]:
    parts: dict[str, list[Question]] = collections.defaultdict(list)
    for question in train:
        parts[part(question)].append(question)
    counted = {name: Majority(questions) for name, questions in parts.items()}
    fallback = Majority(train)
    return [counted.get(part(question), fallback).says(question) for question in asked]


def _plain(question: Question) -> str:
    return " ".join(question.question.casefold().strip("?!. ").split())


def _word(question: Question) -> str:
    word = dataclasses.replace(question, type=None).kind
    return word if word in QUESTION_WORDS else "other"
