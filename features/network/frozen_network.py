"""A frozen backbone as a function from frames to features, as fast as this machine allows.

Keras builds the network; under its TensorFlow backend the network then runs as one graph
(`features/network/frozen_graph.py`), under any other backend by `predict_on_batch` with the same
values.

What holds of a feature's last bits (measured in infra/decisions/0002-network-precision.md): on one
kind of processor a feature depends on its own frame alone: not on its place in the batch, on what
else is in it, on the number of threads, nor on the process. It would depend on the size of the
batch (libraries choose other kernels for other sizes), so on a processor every batch is computed in
steps of COMPUTE_BATCH images, which costs no time. On a GPU, whose speed needs large steps, a batch
is computed at once, and features made with different batch sizes may differ in their last bits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.network.backbones import (
    Backbone,
    feature_output,
    find_backbone,
    named_layers,
)
from framebank.features.network.weight_files import layer_arrays
from framebank.features.network.weights import Weights
from framebank.features.spec import PRECISIONS
from framebank.features.tensorflow_import import import_tensorflow

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet: keras/src/applications/imagenet_utils.py

COMPUTE_BATCH = 8  # images per step on a processor; another number would change features' last bits

Images = NDArray[np.uint8]  # [b, h, w, c=3] RGB
Features = NDArray[np.float32]  # [b, d]


class Network:
    """uint8[b, h, w, c=3] RGB frames in, float32[b, d] features out, b always `batch_size`.

    Any thread may call it; one at a time computes, since a step keeps the whole processor or GPU
    busy and its memory is that of one batch. Building takes a few seconds and is done once; the
    first call takes somewhat longer than those that follow.
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
        self._step = batch_size if _prepare_gpus() else COMPUTE_BATCH
        model, arrays = _load(self.backbone, layer, weights)
        self.feature_dim = int(model.output.shape[-1])
        self._call = self._compile(model, arrays)
        self._computing = threading.Lock()

    def __call__(self, images: Images) -> Features:
        """Return float32[b, d]; raises ValueError for another shape or dtype than promised."""
        if images.shape != self.input_shape or images.dtype != np.uint8:
            raise ValueError(f"got {images.dtype}{images.shape}, expected uint8{self.input_shape}")
        steps = range(0, len(images), self._step)
        with self._computing:
            parts = [self._call(self._filled(images[at : at + self._step])) for at in steps]
        return np.concatenate(parts)[: len(images)] if len(parts) > 1 else parts[0][: len(images)]

    def _filled(self, images: Images) -> Images:
        """Return images filled up with black ones to a whole step; their features are dropped."""
        missing = self._step - len(images)
        return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images

    def _compile(
        self, model: Any, arrays: dict[str, list[NDArray[np.float32]]]
    ) -> Callable[[Images], Features]:
        import keras

        backend, preprocessing = keras.backend.backend(), self.backbone.preprocessing
        if backend == "tensorflow":
            from framebank.features.network.frozen_graph import freeze

            return freeze(
                model,
                arrays,
                preprocess=lambda images: preprocess(images, preprocessing, flip=_flip_tensor),
                precision=self.precision,
                shape=(self._step, *self.input_shape[1:]),
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
            model.predict_on_batch(preprocess(images.astype(np.float32), preprocessing)), np.float32
        )


def _prepare_gpus() -> bool:
    """Return whether TensorFlow has a GPU, after telling it to take memory only as it needs it.

    Several workers may share one GPU; TensorFlow would otherwise take all of its memory.
    """
    import_tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Refused once a GPU is in use: then the caller has settled the matter before us.
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)
    return bool(gpus)


def _flip_tensor(images: Any) -> Any:
    import tensorflow as tf

    return tf.reverse(images, axis=[-1])  # a slice with a negative step takes three times as long


def preprocess(
    images: Any, preprocessing: str, *, flip: Callable[[Any], Any] = lambda rgb: rgb[..., ::-1]
) -> Any:
    """Return float32[b, h, w, c=3]: RGB frames (an array or a tensor) as the network expects them.

    The same values as `keras.applications.*.preprocess_input`; `flip` turns RGB into BGR.
    """
    if preprocessing == "scale_-1_1":
        return images / np.float32(127.5) - np.float32(1)
    if preprocessing == "caffe_bgr_mean":
        return flip(images) - np.array(CAFFE_MEAN_BGR, np.float32)
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
