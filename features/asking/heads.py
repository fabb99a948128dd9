"""How a model answers: by its vocabulary (open, or a label where nothing is asked), by choosing a
candidate, with a number (count), or with what happens in a video, and when (segments).

A model has one head, found from its training questions. Questions for yes or no ride on the
vocabulary and are answered with nothing else, and so are open ones that offer candidates.
`train.model.heads` has what learning needs besides.
Dimension letters: b batch, a answers, c candidates.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.segmenting import SegmentRule
from framebank.features.questions.question import (
    HEADS,
    LABEL,
    SEGMENTS,
    VOCABULARY_HEADS,
    YES_NO,
    Question,
)

KINDS = ("open", "choice", "count", LABEL, SEGMENTS)
OPEN, CHOICE, COUNT = KINDS[:3]
_DIGITS = 6  # of a probability: what is left of it does not depend on the batch


@dataclasses.dataclass(frozen=True)
class Head:
    """`answers` are those of an open head, or the labels, in the order of the model's outputs;
    counts lie within `low` and `high`, the range of the training answers. Of segments the outputs
    have one more, that nothing happens, and `rule` makes segments of what is said of each row."""

    kind: str = OPEN
    answers: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    rule: SegmentRule | None = None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Head:
        """Return the head of a vocabulary.json; raises ValueError."""
        kind, answers, within = fields.get("head", OPEN), fields.get("answers"), fields.get("range")
        if kind not in KINDS:
            raise ValueError(f"the head {kind!r}")
        if kind in (OPEN, LABEL):
            if not isinstance(answers, list) or not answers:
                raise ValueError("no list of answers in it")
            return cls(kind, tuple(map(str, answers)))
        if kind == SEGMENTS:
            if not isinstance(answers, list) or not answers:
                raise ValueError("no list of classes in it")
            rule = SegmentRule.from_json(fields.get("rule"))
            return cls(kind, tuple(map(str, answers)), rule=rule)
        if kind == CHOICE:
            return cls(CHOICE)
        if not isinstance(within, list) or [type(bound) for bound in within] != [int, int]:
            raise ValueError("no range of counts in it")
        return cls(COUNT, low=within[0], high=within[1])

    def to_json(self) -> dict[str, Any]:
        """Return what vocabulary.json holds of it."""
        fields: dict[str, Any] = {"answers": list(self.answers), "head": self.kind}
        if self.rule is not None:
            fields["rule"] = self.rule.to_json()
        return fields | ({"range": [self.low, self.high]} if self.kind == COUNT else {})

    @property
    def asks(self) -> bool:
        """Whether a question is asked; labels and segments are given of the video alone."""
        return self.kind not in (LABEL, SEGMENTS)

    @property
    def width(self) -> int:
        """Return how many numbers a network of this head gives, of segments for each row."""
        return (len(self.answers) or 1) + (self.kind == SEGMENTS)

    @property
    def measure(self) -> str:
        """Return the name of the measure that answers are judged by."""
        return HEADS[self.kind]

    def fits(self, question_head: str) -> bool:
        """Return whether a question of this head is one that the model can answer."""
        return self.kind == (OPEN if question_head in VOCABULARY_HEADS else question_head)

    @functools.cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {answer: number for number, answer in enumerate(self.answers)}

    def number(self, question: Question) -> int | None:
        """Return the number of the true answer, the count itself; None where it is not known or
        the head cannot give it."""
        if self.kind == CHOICE:
            return question.right
        if self.answers:
            return self._numbers.get(question.answer or "")
        number = question.number
        return int(number) if number is not None and number.is_integer() else None

    def texts(self, choices: Sequence[str]) -> Sequence[str]:
        """Return what the outputs stand for, to a question with these candidates."""
        return choices if self.kind == CHOICE else self.answers

    def answer(self, question: Question, number: int) -> str:
        """Return the answer of this number."""
        if self.kind == COUNT:
            return str(number)
        texts = self.texts(question.choices)
        said = texts[number] if 0 <= number < len(texts) else ""
        if self.kind == question.head == OPEN and question.choices and said not in question.choices:
            return question.choices[0]  # the vocabulary has none of them
        return said

    def restrict(
        self, probabilities: NDArray[np.float32], questions: Sequence[Question]
    ) -> NDArray[np.float32]:
        """Return float32[b, a] with yes and no alone for questions of the head yes_no, where the
        vocabulary has both, and with its candidates alone for an open one that offers some."""
        offered = [self._offered(question) for question in questions]
        asked = np.array([places is not None for places in offered])
        if self.kind != OPEN or not asked.any():
            return probabilities
        kept = np.zeros_like(probabilities)
        for row, places in enumerate(offered):
            kept[row, places or []] = probabilities[row, places or []]
        kept /= np.maximum(kept.sum(axis=1, keepdims=True), 1e-30)
        return np.where(asked[:, None], kept, probabilities)

    def _offered(self, question: Question) -> list[int] | None:
        """Return the numbers of the answers that a question leaves, None for all of them."""
        if question.head == "yes_no" and self._numbers.keys() >= set(YES_NO):
            return [self._numbers[answer] for answer in YES_NO]
        if question.choices and question.head == OPEN:
            return [self._numbers[one] for one in question.choices if one in self._numbers]
        return None

    def chosen(
        self, outputs: NDArray[np.float32], questions: Sequence[Question]
    ) -> NDArray[np.int64]:
        """Return int64[b], the number of the answer to each question, of the outputs float32[b, a]:
        of equals the first; a count is rounded, and within the range."""
        if self.kind == COUNT:
            return np.clip(np.rint(outputs[:, 0]), self.low, self.high).astype(np.int64)
        return self.restrict(outputs, questions).argmax(axis=1).astype(np.int64)

    def best(
        self, scores: NDArray[np.float32], *, top: int, choices: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the `top` likeliest answers of one row of scores, the best first, of equals the
        earlier. A count is one answer, with the number it was rounded from; of an open question
        with candidates all are these."""
        if self.kind == COUNT:
            (count,) = self.chosen(scores[None], ()).tolist()
            return [{"answer": str(count), "number": round(float(scores[0]), _DIGITS)}]
        texts = self.texts(choices)
        if self.kind == OPEN and choices:
            texts = list(dict.fromkeys(choices))
            known = [self._numbers.get(text) for text in texts]
            scores = np.array([0 if place is None else scores[place] for place in known])
        order = np.argsort(-scores[: len(texts)], kind="stable")[:top]
        return [
            {"answer": texts[place], "probability": round(float(scores[place]), _DIGITS)}
            for place in order
        ]


OPEN_HEAD = Head()


def counted_once(choices: Sequence[str]) -> list[bool]:
    """Return which candidates count: one that stands again does where it stands first."""
    return [choices.index(choice) == place for place, choice in enumerate(choices)]


def choice_shares(
    scores: NDArray[np.float32], choices: Sequence[Sequence[str]]
) -> NDArray[np.float32]:
    """Return probabilities float32[b, c] of the scores of all candidates, one after the other: a
    softmax over each row's own, 0 beyond them and for one that stands again."""
    counts = [len(row) for row in choices]
    table = np.full((len(counts), max(counts)), -np.inf, np.float32)
    table[np.arange(max(counts)) < np.array(counts)[:, None]] = scores
    for row, texts in zip(table, choices, strict=True):
        row[: len(texts)][~np.array(counted_once(texts))] = -np.inf
    shares = np.exp(table - table.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
