"""What reads a cache of pixels: networks that look at pictures, trained with all the rest.

- cnn_lstm: convolutions on each picture alone (what TimeDistributed does with a 2-D one, written as
  3-D ones of one frame), then an LSTM over what they found: the classic of video classification.
- cnn3d: convolutions over time as well, then the mean and the maximum over the frames, so what
  moves shows in its neighbourhood and the whole clip is looked at.

Both halve a picture until its side is 8 at most. The mean picture of the training split is taken
off: without that, networks from chance learn nothing of a few hundred clips. A row of features is a
picture, flat: float[b, n, h · w · 3] of 0 to 255. Padding is made 0 before each convolution over
time, which pads with zeros itself: it changes nothing. A clip's last frames that are black to the
last pixel count as padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import layers, ops

from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import FrameStatistics, frame_mask

_SMALLEST = 8  # side of the last map
_FILTERS = (16, 32, 64, 96)
_PICTURE_UNITS = 128
_LOW = -1e9


def read_cnn_lstm(features: Any, config: ModelConfig, statistics: FrameStatistics) -> Any:
    """Return float[b, frame_units], the state after the last frame."""
    mask = frame_mask(features)
    seen = _look(_pictures(features, mask, statistics), mask, frames=1)
    return layers.LSTM(config.frame_units, name="frames")(seen, mask=mask)


def read_cnn3d(features: Any, config: ModelConfig, statistics: FrameStatistics) -> Any:
    """Return float[b, 2 · 128] of all frames."""
    mask = frame_mask(features)
    seen = _look(_pictures(features, mask, statistics), mask, frames=3)
    mean = layers.GlobalAveragePooling1D()(seen, mask=mask)
    most = ops.max(ops.where(ops.expand_dims(mask, -1), seen, _LOW), axis=1)
    return layers.Concatenate()([mean, most])


# (features, config, statistics) → float[b, v], by kind
PICTURE_READERS: Mapping[str, Callable[[Any, ModelConfig, FrameStatistics], Any]] = {
    "cnn_lstm": read_cnn_lstm,
    "cnn3d": read_cnn3d,
}


def _pictures(features: Any, mask: Any, statistics: FrameStatistics) -> Any:
    """Return float[b, n, s, s, 3] without the mean picture and of deviation 1, padding 0."""
    side = round((features.shape[-1] / 3) ** 0.5)
    spread = np.full_like(statistics.mean, statistics.squares.mean() / max(statistics.count, 1))
    scaled = layers.Normalization(
        mean=statistics.mean, variance=np.maximum(spread, 1.0), dtype="float32"
    )(features)
    return _hide(layers.Reshape((-1, side, side, 3))(scaled), mask)


def _look(pictures: Any, mask: Any, *, frames: int) -> Any:
    """Return float[b, n, 128]: what convolutions over `frames` frames find in each picture."""
    side, depth = pictures.shape[2], 0
    while side > _SMALLEST or not depth:
        filters = _FILTERS[min(depth, len(_FILTERS) - 1)]
        size = 3 if depth else 5
        pictures = layers.Conv3D(
            filters, (frames, size, size), strides=(1, 2, 2), padding="same", name=f"look{depth}"
        )(pictures)
        pictures = _hide(ops.relu(pictures), mask)
        side, depth = -(-side // 2), depth + 1
    flat = layers.Reshape((-1, side * side * pictures.shape[-1]))(pictures)
    return layers.Dense(_PICTURE_UNITS, activation="relu", name="seen")(flat)


def _hide(pictures: Any, mask: Any) -> Any:
    there = ops.cast(mask, pictures.dtype)
    return ops.multiply(pictures, layers.Reshape((-1, 1, 1, 1))(there))
