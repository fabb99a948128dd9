"""What answers come to: which are right, and how many of which type of question."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from framebank.features.questions.question import Question


@dataclasses.dataclass(frozen=True)
class Score:
    """`by_type` maps a type of question to (judged, correct), `squares` the types of counting
    questions to the sum of the squared errors.

    Laws: Score() is that of no answers; a + b is that of both together.
    """

    by_type: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    squares: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, questions: Sequence[Question], answers: Iterable[str | None]) -> Score:
        """Judge `answers`, one for each question; an answer of None is wrong."""
        pairs = zip(questions, answers, strict=True)
        return cls.count(
            (one.kind, is_right(one, said), square_error(one, said)) for one, said in pairs
        )

    @classmethod
    def count(cls, judged: Iterable[tuple[str, bool, float | None]]) -> Score:
        """`judged` are (type, whether it is right, the square error of a count) of each answer."""
        by_type: dict[str, tuple[int, int]] = {}
        squares: dict[str, float] = {}
        for kind, right, error in judged:
            count, correct = by_type.get(kind, (0, 0))
            by_type[kind] = (count + 1, correct + right)
            if error is not None:
                squares[kind] = squares.get(kind, 0.0) + error
        return cls(by_type, squares)

    def __add__(self, other: Score) -> Score:
        by_type, squares = dict(self.by_type), dict(self.squares)
        for kind, (judged, correct) in other.by_type.items():
            before = by_type.get(kind, (0, 0))
            by_type[kind] = (before[0] + judged, before[1] + correct)
        for kind, error in other.squares.items():
            squares[kind] = squares.get(kind, 0.0) + error
        return Score(by_type, squares)

    @property
    def judged(self) -> int:
        return sum(judged for judged, _ in self.by_type.values())

    @property
    def correct(self) -> int:
        return sum(correct for _, correct in self.by_type.values())

    @property
    def accuracy(self) -> float:
        return self.correct / self.judged if self.judged else 0.0

    @property
    def mean_square_error(self) -> float | None:
        """Return that of counts, None of other answers."""
        return sum(self.squares.values()) / self.judged if self.squares else None

    def to_json(self) -> dict[str, Any]:
        """Return the figures; those of counts have the mean square error too."""
        whole: dict[str, Any] = {"accuracy": self.accuracy}
        if self.squares:
            whole["mean_square_error"] = self.mean_square_error
        kinds = {}
        for kind, (judged, correct) in sorted(self.by_type.items()):
            kinds[kind] = share(judged, correct)
            if kind in self.squares:
                kinds[kind]["mean_square_error"] = self.squares[kind] / judged
        return whole | {"by_type": kinds}


def share(judged: int, correct: int) -> dict[str, Any]:
    """Return the counts and their ratio, None where nothing could be judged."""
    return {
        "judged": judged,
        "correct": correct,
        "accuracy": correct / judged if judged else None,
    }


def is_right(question: Question, answer: str | None) -> bool:
    """Return whether `answer` is the true one; counts are compared as numbers."""
    if answer is None:
        return False
    if question.number is not None:
        return float(answer) == question.number
    return answer == question.answer


def square_error(question: Question, answer: str | None) -> float | None:
    """Return the square error of a count, None of another answer."""
    if question.number is None or answer is None:
        return None
    return (float(answer) - question.number) ** 2
