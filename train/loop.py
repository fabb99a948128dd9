"""The training loop: one for every strategy, that a kill cannot hurt.

Keras' `fit` does not work under MultiWorkerMirroredStrategy (Keras issue 20585), so the loop is our
own: `strategy.run` of one step, the loss scaled by the global batch (the weights in a batch, see
`train.inputs`), Keras' callbacks through `CallbackList`, and checkpoints at exact steps. With the
same seed a run that was killed and started again makes the same steps as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.errors import JobError
from train.callbacks import BestEpoch, HistoryRows, ProgressLine
from train.checkpoint import RunCheckpoints
from train.config import TrainConfig
from train.inputs import Batch, Features, QuestionTable, steps_per_epoch
from train.stopping import StopRequest
from train.vocabulary import OUTSIDE

_TINY = 1e-7


@dataclasses.dataclass(frozen=True)
class FitData:
    """What one fit sees: the rows it learns from and the rows that choose its best epoch."""

    features: Features
    train: QuestionTable
    val: QuestionTable


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a fit went: a row per epoch, the best epoch (from 1), and the steps of all processes."""

    history: list[dict[str, Any]]
    best_epoch: int
    steps: int


def fit(
    network: keras.Model,
    data: FitData,
    *,
    config: TrainConfig,
    folder: Path,
    stop: StopRequest,
    label: str = "model",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    strategy: tf.distribute.Strategy | None = None,
) -> FitResult:
    """Train `network`, from `folder`'s newest checkpoint if there is one; leave its best weights.

    Raises TrainingStopped after saving when `stop` is set, JobError when it cannot save.
    """
    run = _Run(network, data, config, folder, strategy or tf.distribute.get_strategy(), label)
    run.restore()
    if not run.finished:
        run.train(stop, callbacks)
    run.best.use_best(network)
    return FitResult(run.history.rows, run.best.epoch + 1, run.step)


def make_optimizer(config: TrainConfig, *, steps: int) -> keras.optimizers.Optimizer:
    """Return Adam with decoupled weight decay; `steps` is how many the whole run may make."""
    rate: Any = config.learning_rate
    if config.lr_schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=max(steps, 1), alpha=0.05)
    return keras.optimizers.Adam(
        rate, weight_decay=config.weight_decay or None, global_clipnorm=config.clip_norm
    )


class _Run:
    """One fit and its state: where it is (`epoch`, `place`, `step`), sums, history, best epoch."""

    def __init__(
        self,
        network: keras.Model,
        data: FitData,
        config: TrainConfig,
        folder: Path,
        strategy: tf.distribute.Strategy,
        label: str,
    ) -> None:
        self.network, self.data, self.config = network, data, config
        self.strategy, self.label = strategy, label
        self.steps_per_epoch = steps_per_epoch(data.train, config.batch_size)
        with strategy.scope():
            self.optimizer = make_optimizer(config, steps=config.epochs * self.steps_per_epoch)
            self.optimizer.build(network.trainable_variables)
            network.compile(optimizer=self.optimizer)  # callbacks look for it there
            self.sums = [tf.Variable(0.0, trainable=False) for _ in range(3)]
        self.best = BestEpoch(patience=config.patience)
        self.history = HistoryRows(label)
        self.checkpoints = RunCheckpoints(
            folder, network=network, optimizer=self.optimizer, sums=self.sums
        )
        self.epoch = self.place = self.step = 0
        self.finished = False
        self._saved = time.monotonic()
        self._train_step = self._make_train_step()
        self._judge = Judge(network, data.features, batch_size=config.batch_size)

    def restore(self) -> None:
        restored = self.checkpoints.restore()
        if restored is None:
            return
        state, best_weights = restored
        self.epoch, self.place = state["epoch"], state["place"]
        self.step, self.finished = state["step"], state["finished"]
        self.history.rows = state["history"]
        self.best.restore(state["best"], best_weights)

    def save(self) -> None:
        state = {
            "epoch": self.epoch,
            "place": self.place,
            "step": self.step,
            "finished": self.finished,
            "history": self.history.rows,
            "best": self.best.state(),
        }
        number = self.step * 2 + self.finished  # the finished state follows its last step
        self.checkpoints.save(state, self.best.weights, number=number)
        self._saved = time.monotonic()

    def train(self, stop: StopRequest, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        progress = ProgressLine(
            self.label, epochs=self.config.epochs, steps=self.steps_per_epoch, done=self.step
        )
        # The best epoch and the row come first: others may read them.
        heard = keras.callbacks.CallbackList(
            [self.best, self.history, progress, *callbacks],
            model=self.network,
            epochs=self.config.epochs,
            steps=self.steps_per_epoch,
        )
        self.network.stop_training = self.best.waited >= self.config.patience
        heard.on_train_begin()
        with contextlib.ExitStack() as last:
            last.callback(heard.on_train_end)
            while self.epoch < self.config.epochs and not self.network.stop_training:
                self._train_epoch(heard, stop)
            self.finished = True
            self.save()

    def _train_epoch(self, heard: keras.callbacks.CallbackList, stop: StopRequest) -> None:
        heard.on_epoch_begin(self.epoch)
        batches = self.data.features.training_batches(
            self.data.train,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=self.epoch,
            skip=self.place,
        )
        for batch in self.strategy.experimental_distribute_dataset(batches):
            self._check_stop(stop)
            heard.on_train_batch_begin(self.place)
            loss = self._train_step(batch)
            self.place, self.step = self.place + 1, self.step + 1
            heard.on_train_batch_end(self.place - 1, {"loss": loss})
            if time.monotonic() - self._saved >= self.config.checkpoint_every_s:
                self.save()
        self._check_stop(stop)
        heard.on_epoch_end(self.epoch, self._epoch_logs())
        self.epoch, self.place = self.epoch + 1, 0
        for variable in self.sums:
            variable.assign(0.0)

    def _check_stop(self, stop: StopRequest) -> None:
        if stop.signal_number is not None:
            self.save()
            stop.check()

    def _epoch_logs(self) -> dict[str, float]:
        loss, right, rows = (float(variable.numpy()) for variable in self.sums)
        if not math.isfinite(loss):
            raise JobError(
                f"training diverged in epoch {self.epoch + 1}",
                got=f"loss {loss}",
                todo=f"a --learning-rate below {self.config.learning_rate}, with --overwrite",
            )
        judged = self._judge.predict(self.data.val)
        return {
            "loss": loss / max(rows, 1),
            "accuracy": right / max(rows, 1),
            "val_loss": judged.loss,
            "val_accuracy": judged.accuracy,
            "learning_rate": float(keras.ops.convert_to_numpy(self.optimizer.learning_rate)),
        }

    def _make_train_step(self) -> Any:
        def replica_step(batch: Batch) -> tf.Tensor:
            with tf.GradientTape() as tape:
                answers = self.network(_inputs(batch), training=True)
                losses = self._losses(batch["answer"], answers)
                loss = tf.reduce_sum(losses * batch["weight"])
            gradients = tape.gradient(loss, self.network.trainable_variables)
            self.optimizer.apply(gradients, self.network.trainable_variables)
            real = tf.cast(batch["index"] >= 0, tf.float32)
            chosen = tf.argmax(answers, axis=1, output_type=tf.int32)
            hits = tf.cast(chosen == batch["answer"], tf.float32)
            for variable, value in zip(self.sums, (losses * real, hits * real, real), strict=True):
                variable.assign_add(tf.reduce_sum(value))
            return loss

        @tf.function(reduce_retracing=True)
        def train_step(batch: Batch) -> tf.Tensor:
            losses = self.strategy.run(replica_step, args=(batch,))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

        return train_step

    def _losses(self, truth: tf.Tensor, answers: tf.Tensor) -> tf.Tensor:
        wanted = tf.one_hot(truth, answers.shape[1])
        return keras.losses.categorical_crossentropy(
            wanted, answers, label_smoothing=self.config.label_smoothing
        )


@dataclasses.dataclass(frozen=True)
class Predictions:
    """`chosen` int64[q] is the most probable output of each question; `loss` is over answers that
    are in the vocabulary, `accuracy` over all: an answer outside it is a wrong one."""

    chosen: NDArray[np.int64]
    loss: float
    accuracy: float


class Judge:
    """Asks `network` the questions of a table; its graph is traced once."""

    def __init__(self, network: keras.Model, features: Features, *, batch_size: int) -> None:
        self._features, self._batch_size = features, batch_size

        @tf.function(reduce_retracing=True)
        def answer(inputs: Batch) -> tf.Tensor:
            return network(inputs, training=False)

        self._answer = answer

    def predict(self, table: QuestionTable) -> Predictions:
        """Return what the network says to every question of `table`, in its order."""
        chosen = np.full(len(table), OUTSIDE, np.int64)
        surprise = np.zeros(len(table))
        for batch in self._features.batches(table, batch_size=self._batch_size):
            probabilities = self._answer(_inputs(batch)).numpy()
            real = batch["index"].numpy() >= 0
            index, probabilities = batch["index"].numpy()[real], probabilities[real]
            chosen[index] = probabilities.argmax(axis=1)
            truth = probabilities[np.arange(len(index)), np.maximum(table.answer[index], 0)]
            surprise[index] = -np.log(np.maximum(truth, _TINY))
        known = table.answer != OUTSIDE
        loss = float(surprise[known].mean()) if known.any() else 0.0
        accuracy = float((chosen == table.answer)[known].sum() / max(len(table), 1))
        return Predictions(chosen, loss, accuracy)


def _inputs(batch: Batch) -> Mapping[str, Any]:
    return {"features": batch["features"], "words": batch["words"]}
