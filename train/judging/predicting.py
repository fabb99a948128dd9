"""What a network says to a table of questions, asked by all workers in common."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.asking.trained_model import NotFiniteError
from framebank.train.data.batches import Batch, Features, QuestionTable
from framebank.train.data.prefetch import Prefetched
from framebank.train.data.tracing import traced_once
from framebank.train.judging.calibration import Confidence, Surprise, at_temperature
from framebank.train.model.heads import COUNT, OPEN_HEAD, OUTSIDE, SEGMENTS, Head
from framebank.train.workers.replicas import Workers

_TINY = 1e-7  # below any probability that matters


@dataclasses.dataclass(frozen=True)
class Predictions:
    """`chosen` int64[q] is the answer to each question, as the head numbers them.

    `loss` is over answers that the head can give, `accuracy` over all: another answer is a wrong
    one. For counts `loss` is the mean square error of what is answered.
    """

    chosen: NDArray[np.int64]
    loss: float
    accuracy: float
    confidence: Confidence = dataclasses.field(default_factory=Confidence)


class Judge:
    """Asks `network` the questions of a table; its graph is traced once."""

    def __init__(
        self,
        network: keras.Model,
        features: Features,
        *,
        batch_size: int,
        head: Head = OPEN_HEAD,
        workers: Workers | None = None,
    ) -> None:
        self._features, self._batch_size = features, batch_size
        self._workers, self._head = workers or Workers(), head

        def answer(batch: Batch) -> tf.Tensor:
            return head.outputs(network, batch, training=False)

        self._answer = traced_once(answer)

    def predict(self, table: QuestionTable, *, temperature: float = 1.0) -> Predictions:
        """Return what the network says to every question of `table`, in its order.

        `temperature` divides its logits; `confidence` tells of the probabilities after that.

        Each worker asks about its own videos; all of them get the whole. Raises NotFiniteError, in
        all of them: of answers that are NaN the first would be taken for chosen. Of segments the
        figures are over rows, and nothing is `chosen`.
        """
        if self._head.kind == SEGMENTS:
            return self._judge_rows(table, temperature)
        said = np.zeros((2, len(table)))  # per question: chosen output, surprise at the truth
        sure = Confidence()
        with contextlib.closing(self._outputs(table)) as answers:
            for index, outputs in answers:
                finite = np.isfinite(outputs).all(axis=1)
                said[1, index[~finite]] = np.nan
                index, outputs = index[finite], outputs[finite]
                asked = [table.questions[place] for place in index.tolist()]
                chosen = self._head.chosen(outputs, asked)
                said[0, index] = chosen
                said[1, index] = self._head.surprise(table.answer[index], outputs, chosen)
                if self._head.kind != COUNT:
                    shares = at_temperature(outputs, temperature)[np.arange(len(chosen)), chosen]
                    sure.add(shares, chosen == table.answer[index])
        said = self._workers.sum(said)
        if bad := int(np.isnan(said[1]).sum()):
            raise _not_finite(f"NaN or infinity to {bad} of {len(table)} questions")
        chosen, known = said[0].astype(np.int64), self._head.knows(table.answer)
        loss = float(said[1][known].mean()) if known.any() else 0.0
        accuracy = float((chosen == table.answer)[known].sum() / max(len(table), 1))
        sure.bins[:] = self._workers.sum(sure.bins)
        return Predictions(chosen, loss, accuracy, sure)

    def _judge_rows(self, table: QuestionTable, temperature: float) -> Predictions:
        sums = np.zeros(4)  # of rows: surprise, right ones, how many; and those not finite
        sure = Confidence()
        with contextlib.closing(self._outputs(table)) as answers:
            for index, outputs in answers:
                shares, classes = _known_rows(table.answer[index], outputs)
                bad = ~np.isfinite(shares).all(axis=1)
                sums[2:] += len(classes), bad.sum()
                shares, classes = shares[~bad], classes[~bad]
                each, right = np.arange(len(classes)), shares.argmax(axis=1) == classes
                sums[0] -= np.log(np.maximum(shares[each, classes], _TINY)).sum()
                sums[1] += right.sum()
                sure.add(at_temperature(shares, temperature).max(axis=1), right)
        loss, right, rows, bad = self._workers.sum(sums).tolist()
        sure.bins[:] = self._workers.sum(sure.bins)
        if bad:
            raise _not_finite(f"NaN or infinity at {int(bad)} of {int(rows)} rows")
        none = np.zeros(len(table), np.int64)
        return Predictions(none, loss / max(rows, 1), right / max(rows, 1), sure)

    def temperature(self, table: QuestionTable) -> float:
        """Return the temperature at which the answers to `table` are the least surprise; 1 for
        counts, and where the head knows none of them."""
        surprise = Surprise()
        if self._head.kind == COUNT:
            return 1.0
        known = self._head.knows(table.answer)
        with contextlib.closing(self._outputs(table)) as answers:
            for index, outputs in answers:
                if self._head.kind == SEGMENTS:
                    surprise.add(*_known_rows(table.answer[index], outputs))
                    continue
                its = known[index]
                surprise.add(outputs[its], table.answer[index[its]])
        sums = self._workers.sum([*surprise.sums, surprise.count])
        return Surprise(sums[:-1], float(sums[-1])).temperature

    def _outputs(
        self, table: QuestionTable
    ) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (places of questions int64[b], their outputs float32[b, a]) of this worker."""
        with Prefetched(
            lambda: self._features.batches(table, batch_size=self._batch_size)
        ) as batches:
            for batch in batches:
                index = batch["index"].numpy()
                if (index >= 0).any():
                    outputs = self._answer(network_inputs(batch)).numpy()
                    yield index[index >= 0], outputs[index >= 0]


def _known_rows(
    truth: NDArray[np.int32], outputs: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return of windows int32[b, w] and their outputs float32[b, n, a] the rows that have a class:
    float32[r, a] and int64[r]."""
    truth = truth[:, : outputs.shape[1]]
    real = truth != OUTSIDE
    return outputs[real], truth[real].astype(np.int64)


def _not_finite(got: str) -> NotFiniteError:
    return NotFiniteError(
        "the network gives answers that are not finite",
        got=got,
        todo="train with a lower --learning-rate, and --overwrite",
    )


def network_inputs(batch: Batch) -> Batch:
    """Return of a batch what a network, or a head, looks at."""
    return {name: batch[name] for name in ("features", "words", "choices") if name in batch}
