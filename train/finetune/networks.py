"""The networks of fine-tuning: a new head, and a backbone whose last layers learn with it.

The head is global pooling (the backbone's own), Dense 1024 with ReLU and a softmax, on each frame
alone; a clip's classes are the mean of what is said to its frames. Batch norm is always computed
with the statistics that it came with: a few clips would give it bad ones.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from framebank.features.errors import UsageError
from framebank.features.network.backbones import (
    Backbone,
    feature_output,
    named_layers,
    near_matches,
)
from framebank.features.network.preprocessing import preprocess
from framebank.features.network.weight_files import layer_arrays
from framebank.features.network.weights import Weights
from framebank.train.model.frames import frame_mask

HEAD_UNITS = 1024


class Tuned(layers.Layer):
    """Pictures float[b, n, s · s · 3] of 0 to 255 → features float[b, n, d], as at inference."""

    def __init__(self, model: keras.Model, backbone: Backbone) -> None:
        super().__init__(name="backbone")
        self.model, self._row = model, backbone
        self.built = True

    def call(self, pictures: Any) -> Any:
        side, ops = self._row.input_size, keras.ops
        frames = ops.shape(pictures)[1]
        flat = ops.reshape(pictures, (-1, side, side, 3))
        scaled = preprocess(flat, self._row.preprocessing, flip=lambda rgb: ops.flip(rgb, axis=-1))
        seen = self.model(scaled, training=False)
        return ops.reshape(seen, (-1, frames, seen.shape[-1]))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:2], self.model.output.shape[-1])


class Head:
    """The new layers, shared by the network that reads features and the one that reads pictures."""

    def __init__(self, classes: int) -> None:
        self._hidden = layers.Dense(HEAD_UNITS, activation="relu", name="hidden")
        self._answers = layers.Dense(classes, activation="softmax", name="answers")

    def network(self, width: int, backbone: Tuned | None = None) -> keras.Model:
        """Return {"features": float[b, n, width]} → probabilities float[b, classes]."""
        given = keras.Input((None, width), name="features", dtype="float32")
        features = given if backbone is None else backbone(given)
        said = self._answers(self._hidden(features))
        clip = layers.GlobalAveragePooling1D()(said, mask=frame_mask(given))
        return keras.Model({"features": given}, clip)


def load_backbone(row: Backbone, layer: str, weights: Weights) -> tuple[keras.Model, keras.Model]:
    """Return the whole network with its weights, and the one that ends in `layer`, pooled: they
    share all layers. Raises UsageError for unfit weights and no such layer."""
    whole = row.build()
    named = named_layers(whole)
    needed = {name for name, part in named.items() if part.weights}
    output = feature_output(row, whole, layer)
    arrays = layer_arrays(weights, backbone=row, layers=named, needed=needed)
    for name, values in arrays.items():
        named[name].set_weights(values)
    return whole, keras.Model(whole.inputs, output)


def first_trained(row: Backbone, whole: keras.Model, wanted: str) -> int:
    """Return the number of the layer from which on to train: `wanted` is it, or a layer's name.

    Raises UsageError where there is no such layer, or nothing to train from there on.
    """
    names = list(named_layers(whole))
    if wanted.isascii() and wanted.isdigit():
        number = int(wanted[:9])
    elif wanted in names:
        number = names.index(wanted)
    else:
        todo = near_matches(wanted, names)
        raise UsageError(
            f"{row.name} has no such layer", got=f"--from {wanted}",
            expected=f"a name, or a number below {len(names)}", todo=todo,
        )  # fmt: skip
    if not any(layer.weights for layer in whole.layers[number:]):
        raise UsageError(
            "there is nothing to train",
            got=f"--from {wanted}, with no weights from there on",
            expected=f"a layer before, of the {len(names)} of {row.name}",
        )
    return number


def train_from(whole: keras.Model, number: int) -> None:
    """Let the layers from `number` on learn, and none before."""
    for place, layer in enumerate(whole.layers):
        layer.trainable = place >= number
