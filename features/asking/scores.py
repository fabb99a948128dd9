"""What answers come to: how many are right, in all and of which type of question; of answers that
several people gave, what each is worth by VQA's rule too."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

from framebank.features.asking.vqa_accuracy import vqa_accuracy
from framebank.features.questions.question import VQA_ACCURACY, Question

Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Score:
    """Counts of judged answers, which can be added; `squares` is the sum of the squared errors of
    counts, None of others. `credit` is the sum of what answers are worth by VQA's rule, None where
    no question has the answers of several people; beside such ones another is worth 1 if right."""

    judged: int = 0
    correct: int = 0
    squares: float | None = None
    credit: float | None = None

    @classmethod
    def of(cls, question: Question, answer: str | None) -> Score:
        """Judge one answer; None is wrong."""
        right, squares = int(is_right(question, answer)), square_error(question, answer)
        return cls(1, right, squares, credit(question, answer))

    def __add__(self, other: Score) -> Score:
        squares = [one for one in (self.squares, other.squares) if one is not None]
        error = sum(squares) if squares else None
        worth = None
        if self.credit is not None or other.credit is not None:
            worth = sum(it.correct if it.credit is None else it.credit for it in (self, other))
        return Score(self.judged + other.judged, self.correct + other.correct, error, worth)

    @property
    def accuracy(self) -> float | None:
        """Return None where nothing could be judged."""
        return self.correct / self.judged if self.judged else None

    def to_json(self) -> dict[str, Any]:
        return {"judged": self.judged, "correct": self.correct, "accuracy": self.accuracy}

    def error_json(self) -> dict[str, Any]:
        """Return the mean square error of counts, nothing of others."""
        return {} if self.squares is None else {"mean_square_error": self.squares / self.judged}

    def credit_json(self) -> dict[str, Any]:
        """Return the VQA accuracy where several people answered, nothing of others."""
        return {} if self.credit is None else {"vqa_accuracy": self.credit / self.judged}

    @property
    def measure(self) -> str:
        """Return the name of what the answers are judged by."""
        if self.squares is not None:
            return "mean square error"
        return "accuracy" if self.credit is None else VQA_ACCURACY


def add_up(scores: Iterable[tuple[Key, Score]]) -> dict[Key, Score]:
    """Return the sum of the scores of each key."""
    found: dict[Key, Score] = {}
    for key, score in scores:
        found[key] = found.get(key, Score()) + score
    return found


def figures(questions: Sequence[Question], answers: Iterable[str | None]) -> dict[str, Any]:
    """Return the accuracy of `answers`, one for each question, in all and by type; of counts the
    mean square error too."""
    pairs = zip(questions, answers, strict=True)
    by_type = add_up((question.kind, Score.of(question, answer)) for question, answer in pairs)
    whole = sum(by_type.values(), Score())
    kinds = {
        kind: one.to_json() | one.error_json() | one.credit_json()
        for kind, one in sorted(by_type.items())
    }
    return {
        "accuracy": whole.accuracy or 0.0,
        **whole.error_json(),
        **whole.credit_json(),
        "by_type": kinds,
    }


def is_right(question: Question, answer: str | None) -> bool:
    """Return whether `answer` is the true one; counts are compared as numbers."""
    if answer is None:
        return False
    if question.number is not None:
        return float(answer) == question.number
    if question.segments:  # the label of a video, of which it may have several
        return any(label == answer for _, _, label in question.segments)
    return answer == question.answer


def credit(question: Question, answer: str | None) -> float | None:
    """Return what an answer is worth in [0, 1] by VQA's rule, None where no people answered."""
    if not question.given:
        return None
    return 0.0 if answer is None else vqa_accuracy(answer, question.given)


def square_error(question: Question, answer: str | None) -> float | None:
    """Return the square error of a count, None of another answer."""
    if question.number is None or answer is None:
        return None
    return (float(answer) - question.number) ** 2
