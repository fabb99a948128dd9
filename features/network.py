"""A frozen backbone as a function from frames to features, as fast as this machine allows.

Keras builds the network; under its TensorFlow backend the network then runs as one graph
(`features/frozen_graph.py`), under any other backend by `predict_on_batch` with the same values.

What holds of a feature's last bits (measured in infra/decisions/0002-network-precision.md): on one
kind of hardware a feature depends on its own frame alone, not on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.backbones import Backbone, feature_output, find_backbone, named_layers
from features.errors import UsageError
from features.spec import PRECISIONS
from features.weights import Weights, layer_arrays

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet: keras/src/applications/imagenet_utils.py

Images = NDArray[np.uint8]  # [b, h, w, c=3] RGB
Features = NDArray[np.float32]  # [b, d]


class Network:
    """uint8[b, h, w, c=3] RGB frames in, float32[b, d] features out, b always `batch_size`.

    One thread at a time may call it. Building takes a few seconds and is done once; the first call
    takes somewhat longer than those that follow.
    """

    def __init__(
        self,
        backbone: str,
        layer: str,
        weights: Weights,
        *,
        precision: str = "float32",
        batch_size: int = 32,
    ) -> None:
        """Raises UsageError for an unknown backbone, layer or precision, or unfit weights."""
        if precision not in PRECISIONS:
            raise UsageError("no such precision", got=precision, expected=" | ".join(PRECISIONS))
        if batch_size < 1:
            raise UsageError("a batch needs an image", got=batch_size, expected="1 or more")
        self.backbone = find_backbone(backbone)
        self.layer, self.precision, self.batch_size = layer, precision, batch_size
        size = self.backbone.input_size
        self.input_shape = (batch_size, size, size, 3)
        model, arrays = _load(self.backbone, layer, weights)
        self.feature_dim = int(model.output.shape[-1])
        self._call = self._compile(model, arrays)

    def __call__(self, images: Images) -> Features:
        """Return float32[b, d]; raises ValueError for another shape or dtype than promised."""
        if images.shape != self.input_shape or images.dtype != np.uint8:
            raise ValueError(f"got {images.dtype}{images.shape}, expected uint8{self.input_shape}")
        return self._call(images)

    def _compile(
        self, model: Any, arrays: dict[str, list[NDArray[np.float32]]]
    ) -> Callable[[Images], Features]:
        import keras

        backend, preprocessing = keras.backend.backend(), self.backbone.preprocessing
        if backend == "tensorflow":
            from features.frozen_graph import freeze

            return freeze(
                model,
                arrays,
                preprocess=lambda images: _preprocess_graph(images, preprocessing),
                precision=self.precision,
                shape=self.input_shape,
            )
        if self.precision != "float32":
            raise UsageError(
                f"{self.precision} needs Keras on TensorFlow",
                got=f"KERAS_BACKEND={backend}",
                expected="KERAS_BACKEND=tensorflow, or --precision float32",
            )
        for layer in model.layers:
            if layer.weights:
                layer.load_own_variables({str(i): a for i, a in enumerate(arrays[layer.name])})
        return lambda images: np.asarray(
            model.predict_on_batch(preprocess(images, preprocessing)), dtype=np.float32
        )


def preprocess(images: Images, preprocessing: str) -> NDArray[np.float32]:
    """Return float32[b, h, w, c=3]: RGB frames as the network expects them.

    The same values as `keras.applications.*.preprocess_input`.
    """
    values = images.astype(np.float32)
    if preprocessing == "scale_-1_1":
        return values / np.float32(127.5) - np.float32(1)
    if preprocessing == "caffe_bgr_mean":
        return values[..., ::-1] - np.array(CAFFE_MEAN_BGR, np.float32)
    raise ValueError(f"no such preprocessing: {preprocessing}")


def _preprocess_graph(images: Any, preprocessing: str) -> Any:
    """Do inside a TensorFlow graph what `preprocess` does with NumPy, to the same values."""
    import tensorflow as tf

    values = tf.cast(images, tf.float32)
    if preprocessing == "scale_-1_1":
        return values / 127.5 - 1.0
    if preprocessing == "caffe_bgr_mean":
        return tf.reverse(values, axis=[-1]) - tf.constant(CAFFE_MEAN_BGR, tf.float32)
    raise ValueError(f"no such preprocessing: {preprocessing}")


def _load(
    backbone: Backbone, layer: str, weights: Weights
) -> tuple[Any, dict[str, list[NDArray[np.float32]]]]:
    """Return the `keras.Model` that ends in `layer`, and its weights by the name of the layer."""
    import keras

    whole = backbone.build()
    model = keras.Model(whole.inputs, feature_output(backbone, whole, layer))
    layers = named_layers(whole)
    wanted = {id(part) for part in model.layers}
    needed = {name for name, part in layers.items() if id(part) in wanted and part.weights}
    arrays = layer_arrays(weights, backbone=backbone, layers=layers, needed=needed)
    return model, {layers[name].name: values for name, values in arrays.items()}
