"""Features as every kind of model takes them: which rows are frames, standardised, projected.

Standardised by `FrameStatistics`, the mean and variance of the training split's frames, in one pass
and bounded memory. Those of parts, merged, equal those of all frames (Chan, Golub and LeVeque 1983,
"Algorithms for computing the sample variance").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from framebank.train.model.config import ModelConfig

# A deviation below this share of the mean is rounding of float16 or less: the column is constant.
_CONSTANT_SHARE = 1e-5
_CONSTANT_FLOOR = 1e-7


@dataclasses.dataclass(frozen=True)
class FrameStatistics:
    """Count, mean and sum of squared deviations of frames: float64[d]."""

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    def merge(self, other: FrameStatistics) -> FrameStatistics:
        count = self.count + other.count
        if count == 0:
            return self
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step**2 * (self.count * other.count / count)
        return FrameStatistics(count, mean, squares)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Return the variance float64[d]; 1 for columns that are constant (they stay near 0)."""
        variance = self.squares / max(self.count, 1)
        floor = np.maximum(_CONSTANT_FLOOR, _CONSTANT_SHARE * np.abs(self.mean))
        return np.where(variance > floor**2, variance, 1.0)


def frame_statistics(clips: Iterable[NDArray[Any]], width: int) -> FrameStatistics:
    """Return the statistics of the frames of `clips`, each float[n, width]."""
    zero = np.zeros(width)
    total = FrameStatistics(0, zero, zero)
    for clip in clips:
        frames = np.asarray(clip, np.float64)
        if len(frames):
            mean = frames.mean(axis=0)
            part = FrameStatistics(len(frames), mean, ((frames - mean) ** 2).sum(axis=0))
            total = total.merge(part)
    return total


class Frames(NamedTuple):
    """`scaled` float[b, n, d] is standardised and has columns dropped, `seen` float[b, n, p] is its
    projection, `mask` bool[b, n] the frames before the padding (one at least)."""

    scaled: Any
    seen: Any
    mask: Any
    project: layers.Layer


def frame_mask(features: Any) -> Any:
    """Return bool[b, n]: which rows of features float[b, n, d] are frames, the first at least.

    A frame is there when it or a later one has any value: holes never break right-padding.
    """
    filled = ops.cast(ops.any(ops.not_equal(features, 0.0), axis=-1), "int32")
    mask = ops.greater(ops.flip(ops.cumsum(ops.flip(filled, axis=1), axis=1), axis=1), 0)
    first = ops.less_equal(ops.cumsum(ops.ones_like(filled), axis=1), 1)
    return ops.logical_or(mask, first)


def make_frames(features: Any, config: ModelConfig, statistics: FrameStatistics) -> Frames:
    """Standardise and project the features float[b, n, d], padded on the right with zeros."""
    mask = frame_mask(features)
    scale = layers.Normalization(
        mean=statistics.mean, variance=statistics.variance, dtype="float32"
    )
    frames = ops.clip(scale(features), -config.clip_sigma, config.clip_sigma)
    # The same columns are dropped in all frames: noise that differs per frame would look like
    # movement.
    frames = layers.SpatialDropout1D(config.frame_dropout)(frames)
    frames = ops.multiply(frames, gain(len(statistics.mean)))
    project = projection(config.projection, len(statistics.mean), name="project")
    return Frames(frames, project(frames), mask, project)


def gain(width: int) -> float:
    """Return what standardised features are multiplied with, lest a step of Adam moves a unit by
    several times its range: 1/16 for 2048 of them (infra/decisions/0003-training-loop.md)."""
    return float(min(1.0, (8 / width) ** 0.5))


def projection(units: int, width: int, *, name: str) -> Any:
    """Return the dense layer over `width` features whose units start with a deviation of 1 though
    the features were multiplied with a gain."""
    start = keras.initializers.VarianceScaling(1 / gain(width) ** 2)
    return layers.Dense(units, activation="tanh", kernel_initializer=start, name=name)
