"""What a model must beat: answers that need no video, or no order of frames.

`majority` and `majority_per_question` only count. `question_only` and `order_blind` are trained by
the same loop under the same budget (`TRAINED`, kinds of `train.config.ModelConfig`).
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

from features.questions import Question

TRAINED = ("order_blind", "question_only")


def majority(train: Sequence[Question], asked: Sequence[Question]) -> list[str]:
    """Answer everything with the commonest answer of `train` (of equals the first by alphabet)."""
    return [_commonest(_counts(train))] * len(asked)


def majority_per_question(train: Sequence[Question], asked: Sequence[Question]) -> list[str]:
    """Answer with the commonest answer that `train` gives to the same question, else to any."""
    by_text: dict[str, list[Question]] = collections.defaultdict(list)
    for question in train:
        by_text[_plain(question.question)].append(question)
    answers = {text: _commonest(_counts(questions)) for text, questions in by_text.items()}
    fallback = _commonest(_counts(train))
    return [answers.get(_plain(question.question), fallback) for question in asked]


def _plain(text: str) -> str:
    return " ".join(text.casefold().strip("?!. ").split())


def _counts(questions: Sequence[Question]) -> collections.Counter[str]:
    return collections.Counter(q.answer for q in questions if q.answer is not None)


def _commonest(counts: collections.Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
