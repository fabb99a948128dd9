"""Features as every kind of model takes them: which rows are frames, standardised, projected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from framebank.train.model.config import ModelConfig
from framebank.train.model.standardise import FrameStatistics

if TYPE_CHECKING:
    import keras


class Frames(NamedTuple):
    """`scaled` float[b, n, d] is standardised and has columns dropped, `seen` float[b, n, p] is its
    projection, `mask` bool[b, n] the frames before the padding (one at least)."""

    scaled: Any
    seen: Any
    mask: Any
    project: keras.layers.Layer


def make_frames(features: Any, config: ModelConfig, statistics: FrameStatistics) -> Frames:
    """Standardise and project the features float[b, n, d], padded on the right with zeros."""
    from keras import layers, ops

    # A frame is there when it or a later one has any value: holes never break right-padding.
    filled = ops.cast(ops.any(ops.not_equal(features, 0.0), axis=-1), "int32")
    mask = ops.greater(ops.flip(ops.cumsum(ops.flip(filled, axis=1), axis=1), axis=1), 0)
    first = ops.less_equal(ops.cumsum(ops.ones_like(filled), axis=1), 1)
    mask = ops.logical_or(mask, first)
    scale = layers.Normalization(
        mean=statistics.mean, variance=statistics.variance, dtype="float32"
    )
    frames = ops.clip(scale(features), -config.clip_sigma, config.clip_sigma)
    # The same columns are dropped in all frames: noise that differs per frame would look like
    # movement.
    frames = layers.SpatialDropout1D(config.frame_dropout)(frames)
    gain = _gain(len(statistics.mean))
    frames = ops.multiply(frames, gain)
    project = projection(config.projection, len(statistics.mean), name="project")
    return Frames(frames, project(frames), mask, project)


def _gain(width: int) -> float:
    """Return what standardised features are multiplied with: 1/16 for 2048 of them.

    Adam moves every weight by about the learning rate, so thousands of inputs at full scale would
    move a unit by several times its range in one step, and training follows noise.
    """
    return float(min(1.0, (8 / width) ** 0.5))


def projection(units: int, width: int, *, name: str) -> Any:
    """Return the dense layer over `width` features whose units start with a deviation of 1 though
    the features were multiplied with a gain."""
    import keras

    start = keras.initializers.VarianceScaling(1 / _gain(width) ** 2)
    return keras.layers.Dense(units, activation="tanh", kernel_initializer=start, name=name)
