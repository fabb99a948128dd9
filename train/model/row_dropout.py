"""Dropout whose noise belongs to a row of the global batch, not to a replica.

The mask is drawn for the whole global batch from (seed, layer, step) and each replica takes the
rows that it has (infra/decisions/0003-training-loop.md). A layer's `call` is replaced in the
instance: the saved model has Keras' own layers all the same."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class Rows(NamedTuple):
    """The rows that are trained on: their `places` int32[b] in the global batch of `size`."""

    seed: int
    step: tf.Tensor
    places: tf.Tensor
    size: int


_now = threading.local()  # each replica is traced in a thread of its own


@contextlib.contextmanager
def noise_of(rows: Rows) -> Iterator[None]:
    """While it lasts, layers given to `use_row_noise` draw their noise for `rows`."""
    _now.rows = rows
    try:
        yield
    finally:
        _now.rows = None


def use_row_noise(network: keras.Model) -> None:
    """Make the network's dropout layers take the noise of rows."""
    layers = [
        layer
        for layer in network._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0
    ]
    for number, layer in enumerate(layers):
        layer.call = functools.partial(_drop, layer, type(layer).call, number)


def _drop(layer: Any, plain: Any, number: int, inputs: Any, training: bool = False) -> Any:
    rows: Rows | None = getattr(_now, "rows", None)
    if not training or rows is None:
        return plain(layer, inputs, training=training)
    shape = list(tf.unstack(tf.shape(inputs)))
    if hasattr(layer, "_get_noise_shape"):  # SpatialDropout: one draw for all frames
        given = layer._get_noise_shape(inputs)
    else:
        given = layer.noise_shape or [None] * len(shape)
    rest = [size if wish is None else wish for size, wish in zip(shape, given, strict=True)][1:]
    key = tf.stack([rows.seed * 1009 + number, tf.cast(rows.step, tf.int32)])
    drawn = tf.random.stateless_uniform([rows.size, *rest], key)
    keep = tf.gather(drawn, rows.places) >= layer.rate
    return tf.where(keep, inputs / (1 - layer.rate), tf.zeros_like(inputs))
