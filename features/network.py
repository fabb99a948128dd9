"""A frozen backbone as a function from frames to features, as fast as this machine allows.

Keras builds the network; under TensorFlow its layer is then turned into one graph whose weights are
constants, with the preprocessing inside, and run in a session of its own. That saves the float
frames (a batch is uint8 until it is in the graph), folds batch norm into the convolutions, and keeps
the settings of this graph (bfloat16, GPU memory) from touching anything else in the process. Under
any other backend the same network runs by `predict_on_batch`.

Measurements, and what holds of a feature's last bits, are in infra/decisions/0002-network-precision.md.
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

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet, as in keras/applications/imagenet_utils.py

Images = NDArray[np.uint8]  # [b, h, w, c=3] RGB
Features = NDArray[np.float32]  # [b, d]


class Network:
    """uint8[b, h, w, c=3] RGB frames in, float32[b, d] features out, b always `batch_size`.

    One thread at a time may call it. Building takes a few seconds and is done once.
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
        model = _load(self.backbone, layer, weights)
        self.feature_dim = int(model.output.shape[-1])
        size = self.backbone.input_size
        self.input_shape = (batch_size, size, size, 3)
        self._call = _compile(model, self.backbone, precision=precision, shape=self.input_shape)

    def __call__(self, images: Images) -> Features:
        """Return float32[b, d]; raises ValueError for another shape or dtype than promised."""
        if images.shape != self.input_shape or images.dtype != np.uint8:
            raise ValueError(f"got {images.dtype}{images.shape}, expected uint8{self.input_shape}")
        return self._call(images)


def preprocess(images: Images, preprocessing: str) -> NDArray[np.float32]:
    """Return float32[b, h, w, c=3], what `preprocessing` makes of RGB frames, by NumPy."""
    values = images.astype(np.float32)
    if preprocessing == "none":
        return values
    if preprocessing == "scale_-1_1":
        return values / np.float32(127.5) - np.float32(1)
    if preprocessing == "caffe_bgr_mean":
        return values[..., ::-1] - np.array(CAFFE_MEAN_BGR, np.float32)
    raise ValueError(f"no such preprocessing: {preprocessing}")


def _load(backbone: Backbone, layer: str, weights: Weights) -> Any:
    """Return the `keras.Model` that ends in `layer`, with its weights set."""
    import keras

    whole = backbone.build()
    model = keras.Model(whole.inputs, feature_output(backbone, whole, layer))
    layers = named_layers(whole)
    wanted = {id(part) for part in model.layers}
    needed = {name for name, part in layers.items() if id(part) in wanted and part.weights}
    for name, arrays in layer_arrays(
        weights, backbone=backbone, layers=layers, needed=needed
    ).items():
        layers[name].load_own_variables({str(i): array for i, array in enumerate(arrays)})
    model.trainable = False
    return model


def _compile(
    model: Any, backbone: Backbone, *, precision: str, shape: tuple[int, ...]
) -> Callable[[Images], Features]:
    import keras

    if keras.backend.backend() == "tensorflow":
        return _frozen_graph(model, backbone, precision=precision, shape=shape)
    if precision != "float32":
        raise UsageError(
            f"{precision} needs the TensorFlow backend",
            got=f"KERAS_BACKEND={keras.backend.backend()}",
            expected="tensorflow, or --precision float32",
        )

    def call(images: Images) -> Features:
        features = model.predict_on_batch(preprocess(images, backbone.preprocessing))
        return np.asarray(features, dtype=np.float32)

    return call


def _frozen_graph(
    model: Any, backbone: Backbone, *, precision: str, shape: tuple[int, ...]
) -> Callable[[Images], Features]:
    """Return a call into a TensorFlow session that holds the network with constant weights."""
    import tensorflow as tf

    trained = [tf.constant(v.numpy()) for v in model.trainable_variables]
    fixed = [tf.constant(v.numpy()) for v in model.non_trainable_variables]
    trained, fixed = ([v.numpy() for v in vs] for vs in (trained, fixed))

    def forward(images: Any) -> Any:
        values = _preprocess_graph(images, backbone.preprocessing)
        features, _ = model.stateless_call(
            [tf.constant(value) for value in trained],
            [tf.constant(value) for value in fixed],
            values,
            training=False,
        )
        return tf.cast(features, tf.float32)

    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.uint8, shape)
        features = forward(images)
    config = tf.compat.v1.ConfigProto()
    config.gpu_options.allow_growth = True
    if precision == "bfloat16":
        from tensorflow.core.protobuf import rewriter_config_pb2

        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = (
            rewriter_config_pb2.RewriterConfig.ON
        )
    session = tf.compat.v1.Session(graph=graph, config=config)
    run: Callable[[Images], Features] = session.make_callable(features, [images])
    return run


def _preprocess_graph(images: Any, preprocessing: str) -> Any:
    """Do inside the graph what `preprocess` does with NumPy, to the same values."""
    import tensorflow as tf

    values = tf.cast(images, tf.float32)
    if preprocessing == "scale_-1_1":
        return values / 127.5 - 1.0
    if preprocessing == "caffe_bgr_mean":
        return tf.reverse(values, axis=[-1]) - tf.constant(CAFFE_MEAN_BGR, tf.float32)
    return values
