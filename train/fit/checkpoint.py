"""Checkpoints of a training run: everything that the next step depends on.

A run restored from one does the same steps as a run that was never stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from framebank.features.errors import JobError
from framebank.features.stores import json_text
from framebank.train.workers.replicas import Workers

_KEEP = 2
# What TensorFlow raises for a bad file; a file cut short is an IndexError.
_DAMAGED = (tf.errors.OpError, AssertionError, ValueError, LookupError, RuntimeError)


def finite(arrays: Iterable[np.ndarray]) -> bool:
    """Return whether no number of `arrays` is NaN or infinite."""
    return all(np.isfinite(array).all() for array in arrays)


class JsonState(tf.train.experimental.PythonState):
    """A JSON document inside a TensorFlow checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, Any] = {}

    def serialize(self) -> str:
        return json.dumps(self.fields)

    def deserialize(self, string_value: str) -> None:
        self.fields = json_text.parse(string_value)


class RunCheckpoints:
    """Saves and restores one `network` with its `optimizer` under `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        sums: Iterable[tf.Variable],
        workers: Workers,
    ) -> None:
        self._workers, self._json = workers, JsonState()
        self._best = [tf.Variable(weight, trainable=False) for weight in network.get_weights()]
        # Names by place: Keras' own count up with every layer the process ever made.
        network_variables = {
            f"{number}_{part}": variable.value
            for number, layer in enumerate(network.layers)
            for part, variable in enumerate(layer.variables)
        }
        optimizer_variables = [variable.value for variable in optimizer.variables]
        self._network, self._sums = network, list(sums)
        self._variables = [
            *network_variables.values(), *optimizer_variables, *self._best, *self._sums
        ]  # fmt: skip
        self._checkpoint = tf.train.Checkpoint(
            network=network_variables,
            optimizer=optimizer_variables,
            best=self._best,
            sums=self._sums,
            state=self._json,
        )
        # Workers other than the chief need not even see the folder.
        self._manager: Any = workers.is_chief and tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=_KEEP, checkpoint_name="step"
        )

    def save(self, state: Mapping[str, Any], best: list[np.ndarray] | None, *, number: int) -> None:
        """Write `state` (JSON) and all weights; `number` orders checkpoints.

        Raises JobError when it cannot be written.
        """
        self._json.fields = dict(state) | {"has_best": best is not None}
        for variable, weight in zip(self._best, best or [], strict=best is not None):
            variable.assign(weight)
        try:
            self._manager.save(checkpoint_number=number)
        except (OSError, tf.errors.OpError) as err:
            raise JobError(
                f"cannot write a checkpoint to {self._manager.directory}",
                got=str(err).splitlines()[0].split("}} ")[-1],  # without TensorFlow's own names
                todo="make room or fix the permissions, then run the same command: it goes on",
            ) from err

    def restore(self) -> tuple[dict[str, Any], list[np.ndarray] | None] | None:
        """Return (state, best weights) after restoring the newest readable checkpoint, or None.

        The chief reads; the others get from it what it read.
        """
        state = self._workers.do_on_chief(self._read_newest)
        if state is None:
            return None
        if self._workers.count > 1:
            for variable in self._variables:
                value = self._workers.from_chief(variable.numpy())
                variable.assign(tf.cast(value, variable.dtype))
        best = [variable.numpy() for variable in self._best]
        return state, best if state.get("has_best") else None

    def _read_newest(self) -> dict[str, Any] | None:
        fresh = [variable.numpy() for variable in self._variables]
        for path in reversed(self._manager.checkpoints):
            try:
                self._checkpoint.restore(path).assert_consumed()
                self._check_finite()
            except _DAMAGED as err:  # the one before it repeats a few steps more
                reason = (str(err).splitlines() or [type(err).__name__])[0][:200]
                text = f"train: NOTE: leaving out the damaged checkpoint {path}: {reason}"
                print(text, file=sys.stderr, flush=True)
                for variable, value in zip(self._variables, fresh, strict=True):
                    variable.assign(value)  # a part may have been restored
                continue
            return self._json.fields
        return None

    def _check_finite(self) -> None:
        """Raise ValueError where what was restored holds NaN: the run would end with it."""
        best = self._best if self._json.fields.get("has_best") else []
        numbers = [variable.numpy() for variable in (*best, *self._sums)]
        if not finite([*self._network.get_weights(), *numbers]):
            raise ValueError("its numbers are not finite")
