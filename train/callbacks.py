"""Keras callbacks of the training loop: the best epoch, and the progress line.

They hang on Keras' `CallbackList` beside TensorBoard's and any other.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import keras
import numpy as np

_BAR_EVERY_S = 0.2
_LINE_EVERY_S = 5.0
_BAR_WIDTH = 20


class BestEpoch(keras.callbacks.Callback):
    """Keep the weights of the best epoch; stop after `patience` epochs without a better one.

    Better is a higher validation accuracy, and of equals a lower loss: a small split has few
    steps of accuracy. Unlike Keras' EarlyStopping its state survives a kill, in the checkpoint.
    """

    def __init__(self, *, patience: int) -> None:
        super().__init__()
        self.patience = patience
        self.epoch, self.waited = -1, 0
        self.accuracy, self.loss = -1.0, float("inf")
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        accuracy, loss = float(logs["val_accuracy"]), float(logs["val_loss"])
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


class ProgressLine(keras.callbacks.Callback):
    """Say on stderr how far training is: a bar on a terminal, else a line now and then."""

    def __init__(
        self, label: str, *, epochs: int, steps: int, done: int = 0, stream: TextIO | None = None
    ) -> None:
        """`steps` is steps per epoch, `done` the steps made before this process started."""
        super().__init__()
        self._label, self._epochs, self._steps, self._done = label, epochs, steps, done
        self._made, self._epoch = 0, done // max(steps, 1)
        self._stream = stream or sys.stderr
        self._bar = self._stream.isatty()
        self._start = self._said = time.monotonic()
        self._validated = ""

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
        parts += [self._validated, f"at most {left_s:.0f} s left"]
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
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"model": self.label, "epoch": epoch + 1, **numbers})

    def text(self) -> str:
        return "".join(json.dumps(row) + "\n" for row in self.rows)
