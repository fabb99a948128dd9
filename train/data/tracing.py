"""Functions of batches as graphs that are traced once, which takes seconds each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from framebank.train.data.batches import Batch

_SAME = {"features": 2, "choices": 1}  # the axis whose length all batches of a run share


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` of a batch, and of scalars, as a graph for batches of any number of rows,
    frames and words; one for each number of candidates. Its first call traces it."""
    graphs: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def call(batch: Batch, *scalars: tf.Tensor) -> Any:
        kinds = {name: tf.type_spec_from_value(column) for name, column in batch.items()}
        shared = [(kinds[name], axis) for name, axis in _SAME.items() if name in kinds]
        same = tuple(_parts(kind)[0].shape[axis] for kind, axis in shared)
        if same not in graphs:
            given = {name: _of_any_size(name, kind) for name, kind in kinds.items()}
            signature = [given, *map(tf.type_spec_from_value, scalars)]
            graphs[same] = tf.function(function, input_signature=signature)
        return graphs[same](batch, *scalars)

    return call


def _parts(kind: Any) -> list[tf.TensorSpec]:
    """Return the type of a column's part of each replica."""
    parts: list[tf.TensorSpec] = tf.nest.flatten(kind, expand_composites=True)
    return parts


def _of_any_size(name: str, kind: Any) -> Any:
    parts = []
    for part in _parts(kind):
        sizes = [size if axis == _SAME.get(name) else None for axis, size in enumerate(part.shape)]
        parts.append(tf.TensorSpec(sizes, part.dtype))
    return parts[0] if isinstance(kind, tf.TensorSpec) else type(kind)(*parts)
