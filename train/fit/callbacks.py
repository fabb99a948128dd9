"""Keras callbacks of the training loop: the best epoch, and the progress line.

`PlateauRate` and `AnswerSample` serve --lr-schedule plateau and TensorBoard. All hang on Keras'
`CallbackList` beside TensorBoard's and any other.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import keras
import numpy as np

from framebank.features import terminal
from framebank.features.questions.question import Question
from framebank.train.model.config import TrainConfig

if TYPE_CHECKING:
    from framebank.train.judging.predicting import Predictions
    from framebank.train.model.heads import Head

_BAR_EVERY_S = 0.2
_LINE_EVERY_S = 5.0
_BAR_WIDTH = 20
_TIMES = ("step_ms", "input_wait_ms")  # a repeated run has others, and equal rows otherwise
_PLATEAU_FACTOR = 0.5
_SAMPLE = 8


class BestEpoch(keras.callbacks.Callback):
    """Keep the weights of the best epoch; stop after `patience` epochs without a better one.

    Better is a higher validation accuracy, and of equals a lower loss: a small split has few
    steps of accuracy. Counts are judged `by_loss` alone. Unlike Keras' EarlyStopping its state
    survives a kill, in the checkpoint.
    """

    def __init__(self, *, patience: int, by_loss: bool = False) -> None:
        super().__init__()
        self.patience, self.by_loss = patience, by_loss
        self.epoch, self.waited = -1, 0
        self.accuracy, self.loss = -1.0, float("inf")
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        loss = float(logs["val_loss"])
        accuracy = 0.0 if self.by_loss else float(logs["val_accuracy"])
        if (accuracy, -loss) > (self.accuracy, -self.loss):
            self.epoch, self.waited = epoch, 0
            self.accuracy, self.loss = accuracy, loss
            self.weights = self.model.get_weights()
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.model.stop_training = True

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold besides the weights."""
        names = ("epoch", "waited", "accuracy", "loss")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: Mapping[str, Any], weights: list[np.ndarray] | None) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.weights = weights

    def use_best(self, network: keras.Model) -> None:
        """Give `network` the best weights; a fit restored at its end never had a model set."""
        if self.weights is not None:
            network.set_weights(self.weights)


class PlateauRate(keras.callbacks.Callback):
    """With the schedule "plateau": halve the learning rate after a third of the patience without
    a lower validation loss. Unlike Keras' ReduceLROnPlateau its state survives a kill."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self._active = config.lr_schedule == "plateau"
        self._patience = max(1, config.patience // 3)
        self.waited, self.loss = 0, float("inf")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        loss = float((logs or {})["val_loss"])
        if loss < self.loss:
            self.waited, self.loss = 0, loss
            return
        self.waited += 1
        if self._active and self.waited >= self._patience:
            self.waited, optimizer = 0, self.model.optimizer
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            optimizer.learning_rate = rate * _PLATEAU_FACTOR

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; the rate itself is among the optimizer's."""
        return {"waited": self.waited, "loss": self.loss}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.waited, self.loss = state["waited"], state["loss"]


class AnswerSample:
    """Write a few questions with the answers given and wanted as text to TensorBoard."""

    def __init__(self, folder: str, questions: Sequence[Question], head: Head) -> None:
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(folder)
        self._head = head
        step = max(1, len(questions) // _SAMPLE)
        self._asked = list(enumerate(questions))[::step][:_SAMPLE]

    def __call__(self, epoch: int, predictions: Predictions) -> None:
        import tensorflow as tf

        lines = ["| video | question | answered | wanted |", "|---|---|---|---|"]
        for number, question in self._asked:
            said = self._head.answer(question, int(predictions.chosen[number]))
            cells = (question.video_id, question.question, said, str(question.answer))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        with self._writer.as_default():
            text = "\n".join(lines).encode("utf-8", "replace")  # names may not be UTF-8
            tf.summary.text("answers", text, step=epoch)
        self._writer.flush()


class ProgressLine(keras.callbacks.Callback):
    """Say on stderr how far training is: a bar on a terminal, else a line now and then."""

    def __init__(
        self, label: str, *, epochs: int, steps: int, done: int = 0, stream: TextIO | None = None
    ) -> None:
        """`steps` is steps per epoch, `done` the steps made before this process started."""
        super().__init__()
        self._label, self._epochs, self._steps, self._done = label, epochs, steps, done
        self._made, self._epoch = 0, done // max(steps, 1)
        self._stream = stream or terminal.bare(sys.stderr)
        self._bar = self._stream.isatty()
        self._start = self._said = time.monotonic()
        self._validated = self._times = ""

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._made += 1
        if time.monotonic() - self._said >= (_BAR_EVERY_S if self._bar else _LINE_EVERY_S):
            loss = (logs or {}).get("loss")
            self._say("" if loss is None else f"loss {float(loss):.3f}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        self._validated = f"val acc {logs['val_accuracy']:.3f}" if "val_accuracy" in logs else ""
        if "val_mean_square_error" in logs:
            self._validated = f"val mean square error {logs['val_mean_square_error']:.3f}"
        if "step_ms" in logs:
            waited = logs["input_wait_ms"] / max(logs["step_ms"], 1e-9)
            self._times = f"{logs['step_ms']:.1f} ms a step, {waited:.1%} of it waiting for input"
        if not self._bar and logs:
            text = f"epoch {epoch + 1}/{self._epochs}, loss {logs['loss']:.3f}"
            parts = [f"{self._label}: {text}", self._validated, self._times]
            self._stream.write("train: " + ", ".join(part for part in parts if part) + "\n")
            self._stream.flush()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        if self._bar:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def _say(self, loss: str) -> None:
        self._said = time.monotonic()
        total = self._epochs * self._steps
        step = min(self._done + self._made, total)
        left_s = (self._said - self._start) / max(self._made, 1) * (total - step)
        parts = [f"epoch {self._epoch + 1}/{self._epochs}", f"step {step}/{total}", loss]
        parts += [self._validated, self._times, f"at most {left_s:.0f} s left"]
        text = f"{self._label}: " + ", ".join(part for part in parts if part)
        if self._bar:
            filled = round(_BAR_WIDTH * step / max(total, 1))
            bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
            # A line that wraps could not be written over.
            room = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\033[K{f'{bar} {text}'[:room]}")
        else:
            self._stream.write(f"train: {text}\n")
        self._stream.flush()


class HistoryRows(keras.callbacks.Callback):
    """Collect one row per epoch, as `history.jsonl` holds them."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self.rows: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items() if name not in _TIMES}
        self.rows.append({"model": self.label, "epoch": epoch + 1, **numbers})

    def text(self) -> str:
        return "".join(json.dumps(row) + "\n" for row in self.rows)
