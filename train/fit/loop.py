"""The training loop: one for every strategy, that a kill cannot hurt.

Why it is not Keras' own: infra/decisions/0003. With the same seed a run that was killed and started
again makes the same steps as one that was not, and several workers make the same steps as one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from framebank.features.asking.trained_model import NotFiniteError
from framebank.features.errors import JobError
from framebank.features.stop_signals import StopRequest, TrainingStopped
from framebank.train.data.batches import Batch, Features, QuestionTable
from framebank.train.data.prefetch import Prefetched
from framebank.train.data.tracing import traced_once
from framebank.train.fit.callbacks import BestEpoch, PlateauRate, ProgressLine
from framebank.train.fit.checkpoint import RunCheckpoints, finite
from framebank.train.judging.predicting import Judge, Predictions, network_inputs
from framebank.train.model.config import TrainConfig
from framebank.train.model.heads import COUNT, OPEN_HEAD, SEGMENTS, Head
from framebank.train.model.row_dropout import Rows, noise_of, use_row_noise
from framebank.train.workers.replicas import Workers

_LAST_SHARE = 0.05  # of the rate that the cosine ends at
_PLACE = ("epoch", "place", "step", "finished")


@dataclasses.dataclass(frozen=True)
class FitData:
    """What one fit sees: the rows it learns from and the rows that choose its best epoch."""

    features: Features
    train: QuestionTable
    val: QuestionTable
    head: Head = OPEN_HEAD


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a fit went: a row per epoch, the best epoch (from 1), the steps of all processes, and
    what asks the fitted network."""

    history: list[dict[str, Any]]
    best_epoch: int
    steps: int
    judge: Judge = dataclasses.field(compare=False)


def fit(
    network: keras.Model,
    data: FitData,
    *,
    config: TrainConfig,
    folder: Path,
    stop: StopRequest,
    label: str = "model",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_judged: Callable[[int, Predictions], None] | None = None,
    workers: Workers | None = None,
    optimizer: Callable[[], keras.optimizers.Optimizer] | None = None,
    best: BestEpoch | None = None,
) -> FitResult:
    """Train `network`, from `folder`'s newest checkpoint if there is one; leave its best weights.

    `optimizer` makes another one than `make_optimizer` does; `best` chooses the epoch otherwise
    than by validation accuracy, of numbers and segments loss.
    Raises TrainingStopped after saving when `stop` is set, JobError when it cannot save.
    """
    workers = workers or Workers()
    by_loss = data.head.kind in (COUNT, SEGMENTS)
    best = best or BestEpoch(patience=config.patience, by_loss=by_loss)
    run = _Run(network, data, config, folder, stop, label, on_judged, workers, best, optimizer)
    run.restore()
    if not run.finished:
        run.train(callbacks)
    if run.best.weights is not None:
        network.set_weights(run.best.weights)
    return FitResult(run.history, run.best.epoch + 1, run.step, run.judge)


@dataclasses.dataclass(eq=False)
class _Run:
    """One fit and where it is (`epoch`, `place`, `step`)."""

    network: keras.Model
    data: FitData
    config: TrainConfig
    folder: Path
    stop: StopRequest
    label: str
    on_judged: Callable[[int, Predictions], None] | None
    workers: Workers
    best: BestEpoch
    make: Callable[[], keras.optimizers.Optimizer] | None = None  # another optimizer

    def __post_init__(self) -> None:
        network, data, config = self.network, self.data, self.config
        folder, workers = self.folder, self.workers
        self.steps_per_epoch = data.train.steps(config.batch_size)
        use_row_noise(network)
        with workers.strategy.scope():
            steps = self.steps_per_epoch
            self.optimizer = (
                self.make or functools.partial(make_optimizer, config, steps_per_epoch=steps)
            )()
            self.optimizer.build(network.trainable_variables)
            network.compile(optimizer=self.optimizer)  # callbacks look for it there
        # Of the epoch so far, over all replicas: loss, right answers, rows.
        self.sums = tf.Variable(tf.zeros(3, tf.float64), trainable=False)
        self.plateau = PlateauRate(config)
        self.history: list[dict[str, Any]] = []
        self.checkpoints = RunCheckpoints(
            folder, network=network, optimizer=self.optimizer, sums=[self.sums], workers=workers
        )
        self.epoch = self.place = self.step = 0
        self.finished = False
        self._saved = time.monotonic()
        self._ahead: Prefetched[list[Batch]] | None = None  # the next epoch's batches
        self._train_step = self._make_train_step()
        self.judge = Judge(
            network, data.features, batch_size=config.batch_size, head=data.head, workers=workers
        )

    def restore(self) -> None:
        restored = self.checkpoints.restore()
        if restored is None:
            return
        state, best_weights = restored
        for name in _PLACE:
            setattr(self, name, state[name])
        self.history = state["history"]
        self.best.restore(state["best"])
        self.best.weights = best_weights
        self.plateau.restore(state["plateau"])

    def save(self) -> None:
        """Write a checkpoint; only the chief does, and no other worker is needed for it.

        Raises JobError instead where the run is not sound: it would go on from there for good.
        """
        self._saved = time.monotonic()
        if not self.workers.is_chief:
            return
        self._check_sound()
        state = {
            **{name: getattr(self, name) for name in _PLACE},
            "history": self.history,
            "best": self.best.state(),
            "plateau": self.plateau.state(),
        }
        number = self.step * 2 + self.finished  # the finished state follows its last step
        self.checkpoints.save(state, self.best.weights, number=number)
        self._saved = time.monotonic()

    def train(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        # The best epoch comes first: others may read it.
        heard: list[keras.callbacks.Callback] = [self.best, self.plateau]
        if self.workers.is_chief:
            progress = ProgressLine(
                self.label, epochs=self.config.epochs, steps=self.steps_per_epoch, done=self.step
            )
            heard += [progress, *callbacks]
        listeners = keras.callbacks.CallbackList(
            heard, model=self.network, epochs=self.config.epochs, steps=self.steps_per_epoch
        )
        self.network.stop_training = self.best.waited >= self.config.patience
        listeners.on_train_begin()
        with contextlib.ExitStack() as last:
            last.callback(listeners.on_train_end)
            last.callback(self._drop_ahead)
            while self.epoch < self.config.epochs and not self.network.stop_training:
                self._train_epoch(listeners)
            self.finished = True
            self.save()

    def _train_epoch(self, heard: keras.callbacks.CallbackList) -> None:
        heard.on_epoch_begin(self.epoch)
        started, before, stops = time.perf_counter(), self.place, None
        with self._ahead or Prefetched(
            functools.partial(self._steps, self.epoch, self.place)
        ) as steps:
            self._ahead = None
            for batches in steps:
                self._check_stop(stops)
                heard.on_train_batch_begin(self.place)
                asked = tf.constant(float(self.stop.signal_number is not None))
                loss, stops = self._train_step(
                    self.workers.per_replica(batches), tf.constant(self.step), asked
                )
                self.place, self.step = self.place + 1, self.step + 1
                heard.on_train_batch_end(self.place - 1, {"loss": loss})
                if time.monotonic() - self._saved >= self.config.checkpoint_every_s:
                    self.save()
            self._check_stop(stops)
            times = self._times(started, steps.waited_s, self.place - before)
        if self.epoch + 1 < self.config.epochs:  # read on while this epoch is judged
            self._ahead = Prefetched(functools.partial(self._steps, self.epoch + 1, 0))
        logs = self._epoch_logs()
        # Without times: a repeated run has others, and equal rows otherwise.
        row = {"model": self.label, "epoch": self.epoch + 1, **dict(sorted(logs.items()))}
        self.history.append(row)
        heard.on_epoch_end(self.epoch, logs | times)
        self.epoch, self.place = self.epoch + 1, 0
        self.sums.assign(tf.zeros_like(self.sums))

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.close()

    def _steps(self, epoch: int, skip: int) -> Iterator[list[Batch]]:
        """Yield the batches of each step that is left of an epoch, one per local replica."""
        size, seed = self.config.batch_size, (self.config.seed, epoch)
        batches = self.data.features.batches(self.data.train, batch_size=size, seed=seed, skip=skip)
        for first in batches:
            yield [first, *(next(batches) for _ in range(self.workers.local_replicas - 1))]

    def _times(self, started: float, waited_s: float, steps: int) -> dict[str, float]:
        self.sums.numpy()  # waits for the device
        spent_s = time.perf_counter() - started
        return {
            "step_ms": 1000 * spent_s / max(steps, 1),
            "input_wait_ms": 1000 * waited_s / max(steps, 1),
        }

    def _check_stop(self, stops: tf.Tensor | None) -> None:
        """Save and stop when this process was asked to, or, at the same step, any other was."""
        if self.workers.count > 1:
            if stops is None or not float(stops):
                return
        elif self.stop.signal_number is None:
            return
        self.save()
        self.workers.sum(0.0)  # the chief has saved
        raise TrainingStopped(self.stop.signal_number or signal.SIGTERM)

    def _epoch_logs(self) -> dict[str, float]:
        loss, right, rows = self.sums.numpy().tolist()
        self._check_sound()
        try:
            judged = self.judge.predict(self.data.val)
        except NotFiniteError as err:
            raise self._diverged(f"{err.what}: {err.got}") from err
        if self.on_judged is not None and self.workers.is_chief:
            self.on_judged(self.epoch, judged)
        error = {"val_mean_square_error": judged.loss} if self.data.head.kind == COUNT else {}
        return error | {
            "loss": loss / max(rows, 1),
            "accuracy": right / max(rows, 1),
            "val_loss": judged.loss,
            "val_accuracy": judged.accuracy,
            "learning_rate": float(keras.ops.convert_to_numpy(self.optimizer.learning_rate)),
        }

    def _check_sound(self) -> None:
        """Raise JobError where the loss or a weight is not finite. Adam never comes back of it."""
        loss = float(self.sums.numpy()[0])
        got = "" if math.isfinite(loss) else f"loss {loss}"
        if not finite(self.network.get_weights()):
            got = (f"{got} and " if got else "") + "weights that are NaN or infinite"
        if got:
            raise self._diverged(got)

    def _diverged(self, got: str) -> JobError:
        return JobError(
            f"training of {self.label} diverged in epoch {self.epoch + 1}",
            got=got,
            todo=f"a --learning-rate below {self.config.learning_rate}, with --overwrite",
        )

    def _make_train_step(self) -> Any:
        size, seed, head = self.config.batch_size, self.config.seed, self.data.head
        smoothing = self.config.label_smoothing

        def replica_step(batch: Batch, step: tf.Tensor, asked: tf.Tensor) -> tf.Tensor:
            rows = Rows(seed, step, head.places(batch), size)
            with noise_of(rows), tf.GradientTape() as tape:
                answers = head.outputs(self.network, network_inputs(batch), training=True)
                losses = head.losses(batch["answer"], answers, smoothing=smoothing)
                loss = tf.reduce_sum(losses * batch["weight"])
            gradients = tape.gradient(loss, self.network.trainable_variables)
            self.optimizer.apply(gradients, self.network.trainable_variables)
            real = tf.cast(batch["index"] >= 0, tf.float32)
            hits = tf.cast(head.hits(batch["answer"], answers), tf.float32)
            sums = [tf.reduce_sum(value * real) for value in (losses, hits, tf.ones_like(real))]
            return tf.stack([*sums, loss, asked])

        def train_step(
            batch: Batch, step: tf.Tensor, asked: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            parts = self.workers.strategy.run(replica_step, args=(batch, step, asked))
            total = self.workers.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)
            self.sums.assign_add(tf.cast(total[:3], tf.float64))
            return total[3], total[4]

        return traced_once(train_step)


def make_optimizer(config: TrainConfig, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return Adam with decoupled weight decay and the schedule of `config`."""
    rate: Any = config.learning_rate
    if config.lr_schedule == "cosine":
        steps = max(config.epochs * steps_per_epoch, 1)
        warm = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warm else rate,
            decay_steps=max(steps - warm, 1),
            alpha=_LAST_SHARE,
            warmup_target=rate if warm else None,
            warmup_steps=warm,
        )
    optimizer = keras.optimizers.Adam(rate, weight_decay=config.weight_decay or None)
    return clip_sum(optimizer, config.clip_norm)


def clip_sum(optimizer: keras.optimizers.Optimizer, norm: float) -> keras.optimizers.Optimizer:
    """Make `optimizer` clip the norm of the gradients' sum over replicas, and return it.

    Keras' own `global_clipnorm` acts on each replica's part, so what it does would depend on their
    number. What Keras calls to sum (keras/src/backend/tensorflow/optimizer.py) is replaced in the
    instance, so the saved model still names Keras' own class.
    """
    add_up = optimizer._all_reduce_sum_gradients

    def add_up_and_clip(grads_and_vars: Any) -> Any:
        # Sparse gradients (of embeddings) are made dense: they are summed in one packed message.
        dense = [(tf.convert_to_tensor(gradient), to) for gradient, to in grads_and_vars]
        summed = add_up(dense)
        clipped, _ = tf.clip_by_global_norm([gradient for gradient, _ in summed], norm)
        return list(zip(clipped, [to for _, to in summed], strict=True))

    optimizer._all_reduce_sum_gradients = add_up_and_clip
    return optimizer
