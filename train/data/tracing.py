"""Functions of batches as graphs that are traced once, which takes seconds each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from framebank.train.data.batches import Batch


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` of a batch, and of scalars, as a graph for batches of any number of rows,
    frames, words and candidates. Its first call traces it, and fixes which columns a batch has."""
    graph: Callable[..., Any] | None = None

    def call(batch: Batch, *scalars: tf.Tensor) -> Any:
        nonlocal graph
        if graph is None:
            given = [_of_any_size(batch), *map(tf.type_spec_from_value, scalars)]
            graph = tf.function(function, input_signature=given)
        return graph(batch, *scalars)

    return call


def _of_any_size(batch: Batch) -> Any:
    """Return the type of batches such as this one."""
    return {name: _column_of_any_size(name, column) for name, column in batch.items()}


def _column_of_any_size(name: str, column: Any) -> Any:
    kind = tf.type_spec_from_value(column)
    parts = []
    for part in tf.nest.flatten(kind, expand_composites=True):  # one for each replica
        width = [part.shape[-1]] if name == "features" else []
        free = [None] * (part.shape.rank - len(width))
        parts.append(tf.TensorSpec([*free, *width], part.dtype))
    return parts[0] if isinstance(kind, tf.TensorSpec) else type(kind)(*parts)
