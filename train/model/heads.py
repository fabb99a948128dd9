"""The head of a model that learns: its truth as numbers, its loss, and noise and candidates' words
as the network sees them. What its outputs stand for is said in `features.asking.heads`.

Dimension letters: b batch, q questions, a answers, c candidates, l words.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.asking import heads
from framebank.features.asking.heads import CHOICE, COUNT, OPEN, counted_once
from framebank.features.asking.segmenting import SegmentRule
from framebank.features.errors import UsageError
from framebank.features.questions.question import LABEL, SEGMENTS, Question, head_kind
from framebank.features.questions.word_cutting import encode_texts

OUTSIDE = -1  # of an answer that the head cannot give
_NONE = -1e9  # the score of a candidate that only fills up
_TINY = 1e-7


@dataclasses.dataclass(frozen=True)
class Head(heads.Head):
    """Counts are learnt with `mean` and `spread` taken off."""

    mean: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, train: Sequence[Question], *, size: int) -> Head:
        """Return the head that `train` asks for, with the `size` commonest answers at most; equally
        common ones come in alphabetical order.

        Raises UsageError where it asks for several, whose answers have no measure in common, and
        for choices that leave nothing to choose.
        """
        kind = head_kind(train)
        if kind == SEGMENTS:
            labels = collections.Counter(one[2] for q in train for one in q.segments)
            names = sorted(labels, key=lambda label: (-labels[label], label))
            if not names:
                raise UsageError(
                    "nothing happens in the training videos",
                    got=f"{len(train)} videos without a segment",
                    expected="rows with start_s, end_s and label",
                )
            return cls(kind, tuple(names[:size]), rule=SegmentRule())
        if kind in (OPEN, LABEL):
            counts = collections.Counter(q.answer for q in train if q.answer is not None)
            ranked = sorted(counts, key=lambda answer: (-counts[answer], answer))
            return cls(kind, tuple(ranked[:size]))
        if kind == CHOICE:
            if max(len(set(question.choices)) for question in train) < 2:
                first = train[0]
                raise UsageError(
                    "no training question has two candidates to choose from",
                    got=f"{' | '.join(first.choices)} for {first.question!r} of {first.video_id}",
                    expected="two different ones at least",
                )
            return cls(CHOICE)
        numbers = np.array([question.number for question in train])
        spread = float(numbers.std()) or 1.0
        low, high = round(float(numbers.min())), round(float(numbers.max()))
        return cls(COUNT, mean=float(numbers.mean()), spread=spread, low=low, high=high)

    def truth(self, questions: Sequence[Question]) -> NDArray[Any]:
        """Return int32[q]: answer or candidate, OUTSIDE where the head cannot give it.

        Of counts it is float32[q], the number as it stands: fractions count, and -1 is a number. Of
        segments each row of a window has its own (`train.data.windows`), int32[q, w].
        """
        if self.kind == COUNT:
            return np.array([question.number for question in questions], np.float32)
        numbers = (self.number(question) for question in questions)
        return np.array([OUTSIDE if number is None else number for number in numbers], np.int32)

    def knows(self, truth: NDArray[Any]) -> NDArray[np.bool_]:
        """Return bool[q]: whether the head can give each `truth`; any count can be learnt from."""
        every = self.kind in (COUNT, SEGMENTS)
        return np.ones(len(truth), np.bool_) if every else truth != OUTSIDE

    def choices(self, questions: Sequence[Question], text: Any) -> NDArray[np.int32] | None:
        """Return the words of the candidates int32[q, c, l], padded with 0; None but for choice.

        One that does not count has no words. `text` turns string[n] into int[n, l].
        """
        if self.kind != CHOICE:
            return None
        flat = encode_texts(choice for question in questions for choice in question.choices)
        words = np.asarray(text(tf.constant(flat, tf.string)))
        most = max(len(question.choices) for question in questions)
        table = np.zeros((len(questions), most, words.shape[1]), np.int32)
        start = 0
        for row, question in zip(table, questions, strict=True):
            counts, count = counted_once(question.choices), len(question.choices)
            row[:count][counts] = words[start : start + count][counts]
            start += count
        return table

    def outputs(self, network: Callable[..., Any], batch: Any, *, training: bool) -> tf.Tensor:
        """Return float[b, a] or [b, c] probabilities, or the numbers float[b, 1]."""
        inputs = {"features": tf.cast(batch["features"], tf.float32)}
        if self.asks:
            inputs["words"] = batch["words"]
        if self.kind != CHOICE:
            return network(inputs, training=training)
        choices = batch["choices"]
        size, most = tf.shape(choices)[0], tf.shape(choices)[1]
        each = {name: tf.repeat(value, most, axis=0) for name, value in inputs.items()}
        flat = tf.reshape(choices, (size * most, tf.shape(choices)[2]))
        scores = network(each | {"choice": flat}, training=training)
        scores = tf.reshape(scores, (size, most))
        return tf.nn.softmax(tf.where(tf.reduce_any(choices != 0, axis=2), scores, _NONE))

    def places(self, batch: Any) -> tf.Tensor:
        """Return int32 the places in the global batch of the rows that the network sees, by which
        they take their noise: all candidates of a question have its place."""
        if self.kind != CHOICE:
            return batch["place"]
        return tf.repeat(batch["place"], tf.shape(batch["choices"])[1])

    def losses(self, truth: tf.Tensor, outputs: tf.Tensor, *, smoothing: float) -> tf.Tensor:
        """Return float[b]; `smoothing` of the labels is for open answers."""
        if self.kind == COUNT:
            return tf.square((outputs[:, 0] - tf.cast(truth, outputs.dtype)) / self.spread)
        if self.kind == SEGMENTS:
            truth, real = _rows(truth, outputs)
            wanted = tf.one_hot(truth, tf.shape(outputs)[2])
            each = keras.losses.categorical_crossentropy(wanted, outputs, label_smoothing=smoothing)
            return _mean(each, real)
        wanted = tf.one_hot(truth, tf.shape(outputs)[1])
        smoothing = smoothing if self.answers else 0.0
        return keras.losses.categorical_crossentropy(wanted, outputs, label_smoothing=smoothing)

    def hits(self, truth: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return bool[b]: whether the answer is right; of segments the share of rows, float[b]."""
        if self.kind == SEGMENTS:
            truth, real = _rows(truth, outputs)
            right = tf.argmax(outputs, axis=2, output_type=tf.int32) == truth
            return _mean(tf.cast(right, outputs.dtype), real)
        if self.kind == COUNT:
            number = tf.clip_by_value(tf.round(outputs[:, 0]), self.low, self.high)
            return number == tf.cast(truth, number.dtype)
        return tf.argmax(outputs, axis=1, output_type=tf.int32) == truth

    def surprise(
        self, truth: NDArray[Any], outputs: NDArray[Any], chosen: NDArray[np.int64]
    ) -> NDArray[Any]:
        """Return float[b], the loss of what is answered: of counts the square error."""
        if self.kind == COUNT:
            return np.square(chosen - truth)
        share = outputs[np.arange(len(truth)), np.maximum(truth, 0)]
        return -np.log(np.maximum(share, _TINY))


def _rows(truth: tf.Tensor, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return of truth int32[b, w] that of the rows of `outputs` float[b, n, a], and which of them
    count: none that fills up a window, or whose class the head does not know."""
    truth = truth[:, : tf.shape(outputs)[1]]
    return truth, tf.cast(truth != OUTSIDE, outputs.dtype)


def _mean(values: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * real, axis=1) / tf.maximum(tf.reduce_sum(real, axis=1), 1)


OPEN_HEAD = Head()


def reluctance(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what logits that are multiplied with `times` cost, as surprise at answers does: their
    logarithm is thought to be normal, with a variance of a half."""
    return np.log(times) ** 2
