"""How a model answers: by its vocabulary (open), by choosing a candidate, or with a number (count).

A model has one head, found from its training questions. What differs between heads is here: the
truth as a number, the loss, the answer that an output stands for. Questions for yes or no ride on
the vocabulary and are answered with nothing else.

Dimension letters: b batch, q questions, a answers, c candidates, l words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.questions.question import YES_NO, Question, head_kind
from framebank.features.questions.word_cutting import encode_texts
from framebank.train.model.row_dropout import Rows
from framebank.train.model.vocabulary import OUTSIDE, AnswerVocabulary

OPEN, CHOICE, COUNT = "open", "choice", "count"
_NONE = -1e9  # the score of a candidate that only fills up


@dataclasses.dataclass(frozen=True)
class Head:
    """`vocabulary` is empty but for open answers. Counts are learnt with `mean` and `spread` taken
    off, and answered within `low` and `high`, the range of the training answers.
    """

    kind: str = OPEN
    vocabulary: AnswerVocabulary = AnswerVocabulary(())  # noqa: RUF009 - frozen
    mean: float = 0.0
    spread: float = 1.0
    low: int = 0
    high: int = 0

    @classmethod
    def of(cls, train: Sequence[Question], *, size: int) -> Head:
        """Return the head that `train` asks for, with at most `size` answers.

        Raises UsageError where it asks for several, whose answers have no measure in common, and
        for choices that leave nothing to choose.
        """
        kind = head_kind(train)
        if kind == OPEN:
            return cls(vocabulary=AnswerVocabulary.of(train, size=size))
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

    @property
    def measure(self) -> str:
        """Return the name of the measure that this head is judged by."""
        return "mean square error" if self.kind == COUNT else "accuracy"

    def truth(self, questions: Sequence[Question]) -> NDArray[Any]:
        """Return int32[q]: answer or candidate, OUTSIDE where the head cannot give it.

        Of counts it is float32[q], the number as it stands: fractions count, and -1 is a number.
        """
        if self.kind == COUNT:
            return np.array([question.number for question in questions], np.float32)
        return np.array([self._place(question) for question in questions], np.int32)

    def _place(self, question: Question) -> int:
        if self.kind == OPEN:
            return self.vocabulary.number(question.answer)
        return OUTSIDE if question.right is None else question.right

    def knows(self, truth: NDArray[Any]) -> NDArray[np.bool_]:
        """Return bool[q]: whether the head can give each `truth`; any count can be learnt from."""
        return np.ones(len(truth), np.bool_) if self.kind == COUNT else truth != OUTSIDE

    def choices(self, questions: Sequence[Question], text: Any) -> NDArray[np.int32] | None:
        """Return the words of the candidates int32[q, c, l], padded with 0; None but for choice.

        One that stands again has no words: it counts once, where it stands first. `text` turns
        string[n] into int[n, l].
        """
        if self.kind != CHOICE:
            return None
        flat = encode_texts(choice for question in questions for choice in question.choices)
        words = np.asarray(text(tf.constant(flat, tf.string)))
        most = max(len(question.choices) for question in questions)
        table = np.zeros((len(questions), most, words.shape[1]), np.int32)
        start = 0
        for row, question in zip(table, questions, strict=True):
            for place, choice in enumerate(question.choices):
                if question.choices.index(choice) == place:
                    row[place] = words[start + place]
            start += len(question.choices)
        return table

    def outputs(self, network: Callable[..., Any], batch: Any, *, training: bool) -> tf.Tensor:
        """Return float[b, a] or [b, c] probabilities, or the numbers float[b, 1]."""
        inputs = {"features": tf.cast(batch["features"], tf.float32), "words": batch["words"]}
        if self.kind != CHOICE:
            return network(inputs, training=training)
        choices = batch["choices"]
        size, most = tf.shape(choices)[0], tf.shape(choices)[1]
        each = {name: tf.repeat(value, most, axis=0) for name, value in inputs.items()}
        flat = tf.reshape(choices, (size * most, tf.shape(choices)[2]))
        scores = network(each | {"choice": flat}, training=training)
        scores = tf.reshape(scores, (size, most))
        return tf.nn.softmax(tf.where(tf.reduce_any(choices != 0, axis=2), scores, _NONE))

    def rows(self, rows: Rows, batch: Any) -> Rows:
        """Return the rows of noise that the network sees: the same for all candidates of a row."""
        if self.kind != CHOICE:
            return rows
        places = tf.repeat(rows.places, tf.shape(batch["choices"])[1])
        return rows._replace(places=places)

    def losses(self, truth: tf.Tensor, outputs: tf.Tensor, *, smoothing: float) -> tf.Tensor:
        """Return float[b]; `smoothing` of the labels is for open answers."""
        import keras

        if self.kind == COUNT:
            return tf.square((outputs[:, 0] - tf.cast(truth, outputs.dtype)) / self.spread)
        wanted = tf.one_hot(truth, tf.shape(outputs)[1])
        smoothing = smoothing if self.kind == OPEN else 0.0
        return keras.losses.categorical_crossentropy(wanted, outputs, label_smoothing=smoothing)

    def hits(self, truth: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return bool[b]: whether the answer is right."""
        if self.kind == COUNT:
            number = tf.clip_by_value(tf.round(outputs[:, 0]), self.low, self.high)
            return number == tf.cast(truth, number.dtype)
        return tf.argmax(outputs, axis=1, output_type=tf.int32) == truth

    def chosen(self, outputs: NDArray[Any], questions: Sequence[Question]) -> NDArray[np.int64]:
        """Return int64[b]: the number of the answer, of the candidate, or the count itself."""
        if self.kind == COUNT:
            return np.clip(np.rint(outputs[:, 0]), self.low, self.high).astype(np.int64)
        yes_no = [self.vocabulary.number(answer) for answer in YES_NO]
        if self.kind == OPEN and OUTSIDE not in yes_no:
            asked = np.array([question.head == "yes_no" for question in questions])
            fits = np.isin(np.arange(outputs.shape[1]), yes_no)
            outputs = np.where(asked[:, None] & ~fits, -1.0, outputs)
        return outputs.argmax(axis=1).astype(np.int64)

    def answer(self, question: Question, chosen: int) -> str:
        """Return the text of what `chosen` says to `question`."""
        if self.kind == COUNT:
            return str(chosen)
        texts = question.choices if self.kind == CHOICE else self.vocabulary.answers
        return texts[chosen] if 0 <= chosen < len(texts) else ""

    def to_json(self) -> dict[str, Any]:
        """Return what `features.asking.trained_model` needs to know, for vocabulary.json."""
        fields: dict[str, Any] = {"answers": list(self.vocabulary.answers), "head": self.kind}
        return fields | ({"range": [self.low, self.high]} if self.kind == COUNT else {})


OPEN_HEAD = Head()
