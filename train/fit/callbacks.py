"""What hears of each epoch: the best one, the plateau, TensorBoard's sample, the progress line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from framebank.features.progress import Bar
from framebank.features.questions.question import Question
from framebank.train.model.config import TrainConfig

if TYPE_CHECKING:
    from framebank.train.judging.predicting import Predictions
    from framebank.train.model.heads import Head

_PLATEAU_FACTOR = 0.5
_SAMPLE = 8


class _Kept(keras.callbacks.Callback):
    """A callback whose fields called `kept` a checkpoint holds."""

    kept: tuple[str, ...]

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class BestEpoch(_Kept):
    """Keep the weights of the best epoch; stop after `patience` epochs without a better one.

    Better is a higher validation accuracy, and of equals a lower loss: a small split has few
    steps of accuracy. Counts are judged `by_loss` alone. With a `slack` of accuracy a later epoch
    is better unless it is worse than any before by more than that. Unlike Keras' EarlyStopping its
    state survives a kill, in the checkpoint.
    """

    kept = ("epoch", "waited", "accuracy", "loss")

    def __init__(self, *, patience: int, by_loss: bool = False, slack: float = 0.0) -> None:
        super().__init__()
        self.patience, self.by_loss, self.slack = patience, by_loss, slack
        self.epoch, self.waited = -1, 0
        self.accuracy, self.loss = -1.0, float("inf")
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        loss = float(logs["val_loss"])
        accuracy = 0.0 if self.by_loss else float(logs["val_accuracy"])
        better = (accuracy, -loss) > (self.accuracy, -self.loss)
        if better or (self.slack and accuracy + self.slack >= self.accuracy):
            self.epoch, self.waited = epoch, 0
            self.accuracy, self.loss = max(accuracy, self.accuracy), loss
            self.weights = self.model.get_weights()
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.model.stop_training = True


class PlateauRate(_Kept):
    """With the schedule "plateau": halve the learning rate after a third of the patience without
    a lower validation loss. Unlike Keras' ReduceLROnPlateau its state survives a kill."""

    kept = ("waited", "loss")

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


class Told(keras.callbacks.Callback):
    """Hands the figures of each epoch, as history.jsonl has them, to whoever tracks the run."""

    def __init__(self, label: str, tell: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._label, self._tell = label, tell

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        its = {name: float(value) for name, value in (logs or {}).items()}
        self._tell({"model": self._label, "epoch": epoch + 1, **its})


class AnswerSample:
    """Write a few questions with the answers given and wanted as text to TensorBoard."""

    def __init__(self, folder: str, questions: Sequence[Question], head: Head) -> None:
        self._writer = tf.summary.create_file_writer(folder)
        self._head = head
        step = max(1, len(questions) // _SAMPLE)
        self._asked = list(enumerate(questions))[::step][:_SAMPLE]

    def __call__(self, epoch: int, predictions: Predictions) -> None:
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

    def __init__(self, label: str, *, epochs: int, steps: int, done: int = 0) -> None:
        """`steps` is steps per epoch, `done` the steps made before this process started."""
        super().__init__()
        self._label, self._epochs, self._total, self._done = label, epochs, epochs * steps, done
        self._made, self._steps = 0, steps
        self.bar = Bar("train", total=self._total, at_most=True)
        self._validated = self._times = ""

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self.bar.__enter__()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.bar.__exit__(None, None, None)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._made += 1
        if self.bar.is_due:
            loss = (logs or {}).get("loss")
            step = min(self._done + self._made, self._total)
            parts = [f"step {step}/{self._total}", "" if loss is None else f"loss {loss:.3f}"]
            parts += [self._validated, self._times]
            self.bar.update(step, self._told((step - 1) // self._steps, *parts))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        self._validated = f"val acc {logs['val_accuracy']:.3f}" if "val_accuracy" in logs else ""
        if "val_mean_square_error" in logs:
            self._validated = f"val mean square error {logs['val_mean_square_error']:.3f}"
        if "step_ms" in logs:
            waited = logs["input_wait_ms"] / max(logs["step_ms"], 1e-9)
            self._times = f"{logs['step_ms']:.1f} ms a step, {waited:.1%} of it waiting for input"
        if logs and not self.bar.is_drawn:
            loss = f"loss {logs['loss']:.3f}"
            self.bar.say(self._told(epoch, loss, self._validated, self._times))

    def _told(self, epoch: int, *parts: str) -> str:
        said = ", ".join(filter(None, (f"epoch {epoch + 1}/{self._epochs}", *parts)))
        return f"{self._label}: {said}"
