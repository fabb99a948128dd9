"""What a model must beat: answers that need no video, or no order of frames.

`majority` and `majority_per_question` only count. `question_only` and `order_blind` are trained by
the same loop under the same budget (`TRAINED`, kinds of `train.model.config.ModelConfig`).
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

from framebank.features.questions.question import Question

TRAINED = ("order_blind", "question_only")


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
    by_text: dict[str, list[Question]] = collections.defaultdict(list)
    for question in train:
        by_text[_plain(question.question)].append(question)
    counted = {text: Majority(questions) for text, questions in by_text.items()}
    fallback = Majority(train)
    return [counted.get(_plain(q.question), fallback).says(q) for q in asked]


def _plain(text: str) -> str:
    return " ".join(text.casefold().strip("?!. ").split())
