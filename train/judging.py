"""Accuracy, overall and by type, of the model and of what stands beside it.

`Score` obeys: the score of no questions is `Score()`, and scores of parts merge to the whole's.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from features.questions import Question


@dataclasses.dataclass(frozen=True)
class Score:
    """`by_type` maps a question's kind to (judged, correct)."""

    by_type: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, questions: Sequence[Question], answers: Iterable[str | None]) -> Score:
        """Judge `answers`, one for each question; an answer of None is wrong."""
        counts: dict[str, tuple[int, int]] = {}
        for question, answer in zip(questions, answers, strict=True):
            judged, correct = counts.get(question.kind, (0, 0))
            right = answer is not None and answer == question.answer
            counts[question.kind] = (judged + 1, correct + right)
        return cls(counts)

    def merge(self, other: Score) -> Score:
        total = collections.Counter({kind: judged for kind, (judged, _) in self.by_type.items()})
        right = collections.Counter({kind: correct for kind, (_, correct) in self.by_type.items()})
        for kind, (judged, correct) in other.by_type.items():
            total[kind] += judged
            right[kind] += correct
        return Score({kind: (total[kind], right[kind]) for kind in total})

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
        return {
            "accuracy": self.accuracy,
            "by_type": {
                kind: {"judged": judged, "correct": correct, "accuracy": correct / judged}
                for kind, (judged, correct) in sorted(self.by_type.items())
            },
        }
