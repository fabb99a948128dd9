"""Accuracy, overall and by type, of the model and of what stands beside it.

`Score` obeys: the score of no questions is `Score()`, and scores of parts merge to the whole's.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from framebank.features.questions.question import Question


@dataclasses.dataclass(frozen=True)
class Score:
    """`by_type` maps a question's kind to (judged, correct).

    `squares` maps the kinds of counting questions to the sum of the squared errors.
    """

    by_type: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    squares: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, questions: Sequence[Question], answers: Iterable[str | None]) -> Score:
        """Judge `answers`, one for each question; an answer of None is wrong."""
        counts: dict[str, tuple[int, int]] = {}
        squares: dict[str, float] = {}
        for question, answer in zip(questions, answers, strict=True):
            judged, correct = counts.get(question.kind, (0, 0))
            right = answer is not None and is_right(question, answer)
            counts[question.kind] = (judged + 1, correct + right)
            if question.number is not None and answer is not None:
                error = (float(answer) - question.number) ** 2
                squares[question.kind] = squares.get(question.kind, 0.0) + error
        return cls(counts, squares)

    def merge(self, other: Score) -> Score:
        total = collections.Counter({kind: judged for kind, (judged, _) in self.by_type.items()})
        right = collections.Counter({kind: correct for kind, (_, correct) in self.by_type.items()})
        for kind, (judged, correct) in other.by_type.items():
            total[kind] += judged
            right[kind] += correct
        kinds = [*self.squares, *(kind for kind in other.squares if kind not in self.squares)]
        squares = {k: self.squares.get(k, 0.0) + other.squares.get(k, 0.0) for k in kinds}
        return Score({kind: (total[kind], right[kind]) for kind in total}, squares)

    @property
    def judged(self) -> int:
        return sum(judged for judged, _ in self.by_type.values())

    @property
    def correct(self) -> int:
        return sum(correct for _, correct in self.by_type.values())

    @property
    def accuracy(self) -> float:
        return self.correct / self.judged if self.judged else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the figures; those of counts have the mean square error too."""
        whole: dict[str, Any] = {"accuracy": self.accuracy}
        if self.squares:
            whole["mean_square_error"] = sum(self.squares.values()) / self.judged
        kinds = {}
        for kind, (judged, correct) in sorted(self.by_type.items()):
            kinds[kind] = {"judged": judged, "correct": correct, "accuracy": correct / judged}
            if kind in self.squares:
                kinds[kind]["mean_square_error"] = self.squares[kind] / judged
        return whole | {"by_type": kinds}


def is_right(question: Question, answer: str) -> bool:
    """Return whether `answer` is the true one; counts are compared as numbers."""
    if question.number is not None:
        return float(answer) == question.number
    return answer == question.answer
