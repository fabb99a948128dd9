"""Questions with their features in, answer rows out.

Questions are sorted by the length of their clips before they are padded, so that little is computed
on padding.
Dimension letters: b batch, n frames, d feature width, a answers.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.trained_model import TrainedModel, pad_clips
from framebank.features.cache.catalog import catalog_text
from framebank.features.stores import json_text
from framebank.pipelines.score.tally import NO_WORDS

_PADDED_BYTES = 2**26  # of one padded batch of features
_LONG_TEXT = 1000  # characters; the longest question of the published sets has 135
_MOST_TEXT = 20_000  # characters; a step for each, in some languages


@dataclasses.dataclass(frozen=True, slots=True)
class AskedQuestion:
    """One line of the question file; `number` is its place there, `video_id` the cache's."""

    number: int
    question_id: str
    video_id: str
    question: str
    kind: str
    truth: str | None
    split: str | None = None
    head: str = "open"
    choices: tuple[str, ...] = ()
    right: int | None = None

    def to_json(self) -> dict[str, Any]:
        # dataclasses.asdict takes six times as long, and there may be millions.
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> AskedQuestion:
        return cls(**fields | {"choices": tuple(fields["choices"])})

    @property
    def characters(self) -> int:
        """Return how long the longest of its texts is."""
        return max(map(len, (self.question, *self.choices)))

    def row(self, status: str, *, reason: str | None = None) -> dict[str, Any]:
        """Return the answer row of this question, without answers."""
        return {
            "video_id": self.video_id,
            "question_id": self.question_id,
            "question": self.question,
            "type": self.kind,
            "split": self.split,
            "status": status,
            "reason": reason,
            "answers": [],
            "truth": self.truth,
            "correct": None,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A question on its way through the model; questions about one clip share one array."""

    output: int
    asked: AskedQuestion
    features: NDArray[Any]  # [n, d]


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerRow:
    """A finished row: the answers file it belongs to and its place in the question file.

    It travels as the bytes that end up in the file: Beam's coders refuse some text that JSON takes.
    """

    output: int
    number: int
    line: bytes

    @classmethod
    def of(cls, output: int, number: int, row: dict[str, Any]) -> AnswerRow:
        """Make one of a row: UTF-8 JSON of Unicode texts."""
        try:
            line = json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair, which strict readers take for damage
            line = json.dumps(_unicode(row), ensure_ascii=False).encode()
        return cls(output, number, line + b"\n")

    @property
    def row(self) -> dict[str, Any]:
        return dict(json_text.parse(self.line))


def _unicode(value: Any) -> Any:
    """Return a JSON value with half of a surrogate pair replaced by the text of its escape."""
    if isinstance(value, str):
        return catalog_text(value)
    if isinstance(value, dict):
        return {name: _unicode(item) for name, item in value.items()}
    return [_unicode(item) for item in value] if isinstance(value, list) else value


def answer_examples(
    examples: Sequence[Example], model: TrainedModel, *, top: int
) -> list[AnswerRow]:
    """Return a row for each example, in their order; a bad one costs only its own row."""
    rows: dict[int, AnswerRow] = {}
    for group in _groups(examples):
        chosen = [examples[place] for place in group]
        rows |= zip(group, _answer(chosen, model, top), strict=True)
    return [rows[place] for place in range(len(examples))]


def _answer(examples: Sequence[Example], model: TrainedModel, top: int) -> list[AnswerRow]:
    try:
        scores = _probabilities(examples, model)
        rows = [
            _row(example, row, model, top) for example, row in zip(examples, scores, strict=True)
        ]
        known = model.knows([example.asked.question for example in examples])
        for row in itertools.compress(rows, (not knows for knows in known)):
            row["reason"] = NO_WORDS
    except Exception as error:  # noqa: BLE001 - one bad question must not fail its batch
        if len(examples) > 1:
            half = len(examples) // 2
            return _answer(examples[:half], model, top) + _answer(examples[half:], model, top)
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        failed = examples[0].asked.row("failed", reason=reason)
        return [AnswerRow.of(examples[0].output, examples[0].asked.number, failed)]
    return [
        AnswerRow.of(example.output, example.asked.number, row)
        for example, row in zip(examples, rows, strict=True)
    ]


def _row(
    example: Example, scores: NDArray[np.float32], model: TrainedModel, top: int
) -> dict[str, Any]:
    asked = example.asked
    scores = model.head.restrict(scores[None], [asked.head])[0]
    answers = model.head.best(scores, top=top, choices=asked.choices)
    row = asked.row("answered") | {"answers": answers}
    if asked.truth is not None:
        # An answer outside the vocabulary is none of these, so it counts as wrong.
        row["correct"] = answers[0]["answer"] == asked.truth
    if asked.truth is not None and asked.head == "count":
        row["correct"] = float(answers[0]["answer"]) == float(asked.truth)
    elif asked.right is not None:
        row["correct"] = int(scores[: len(asked.choices)].argmax()) == asked.right
    return row


def _groups(batch: Sequence[Example]) -> Iterator[list[int]]:
    """Yield places of examples that are answered together; one of long texts stays alone.

    A batch takes memory and time for its longest text as often as it has rows.
    """
    texts = [example.asked.characters for example in batch]
    short = [place for place, length in enumerate(texts) if length <= _LONG_TEXT]
    for group in length_groups([len(batch[place].features) for place in short], _room(batch)):
        yield [short[place] for place in group]
    yield from ([place] for place, length in enumerate(texts) if length > _LONG_TEXT)


def _room(batch: Sequence[Example]) -> int:
    """Return how many frames, padding included, may be in one padded batch."""
    width = max(example.features.shape[-1] for example in batch)
    return max(_PADDED_BYTES // (4 * max(width, 1)), 1)


def length_groups(lengths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield places of clips that are padded together, shortest first.

    Within a group the longest has at most twice the frames of the shortest, and its frames times
    the group's size are at most `room` (unless a single clip is longer).
    """
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    group: list[int] = []
    for place in order:
        length = lengths[place]
        if group and (length > 2 * lengths[group[0]] or length * (len(group) + 1) > room):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _probabilities(examples: Sequence[Example], model: TrainedModel) -> NDArray[np.float32]:
    """Return float32[b, a] as `predict` does; features are padded on the right with zeros.

    Raises ValueError for a text that is too long and for what is no answer, NotFiniteError.
    """
    longest = max(example.asked.characters for example in examples)
    if longest > _MOST_TEXT:
        raise ValueError(f"a text of {longest} characters, where {_MOST_TEXT} are read at most")
    questions = [example.asked.question.encode("utf-8", "replace") for example in examples]
    choices = [example.asked.choices for example in examples]
    features = pad_clips([example.features for example in examples])
    probabilities = model.predict(features, questions, choices)
    if len(probabilities) != len(examples):
        raise ValueError(f"the model gives {probabilities.shape}, not one row for each question")
    return probabilities
