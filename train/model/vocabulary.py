"""The answers a model can give: the commonest of the training split, in a stable order."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping

from framebank.features.questions.question import Question

OUTSIDE = -1


@dataclasses.dataclass(frozen=True)
class AnswerVocabulary:
    """`answers` in the order of the model's outputs, the commonest first."""

    answers: tuple[str, ...]

    @classmethod
    def of(cls, questions: Iterable[Question], *, size: int) -> AnswerVocabulary:
        """Return the `size` commonest answers; equally common ones in alphabetical order."""
        counts = collections.Counter(q.answer for q in questions if q.answer is not None)
        ranked = sorted(counts, key=lambda answer: (-counts[answer], answer))
        return cls(tuple(ranked[:size]))

    @functools.cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {answer: number for number, answer in enumerate(self.answers)}

    def number(self, answer: str | None) -> int:
        """Return the output that stands for `answer`, or OUTSIDE."""
        return self._numbers.get(answer, OUTSIDE) if answer is not None else OUTSIDE

    def __len__(self) -> int:
        return len(self.answers)
