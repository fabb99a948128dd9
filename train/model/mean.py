"""The mean of the frames, which says nothing of their order: what a reader of order must beat."""

from __future__ import annotations

from typing import Any

from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import Frames


def read_frames(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, frame_units] of the mean frame; it is blind to `question`."""
    from keras import layers

    mean = layers.GlobalAveragePooling1D()(frames.scaled, mask=frames.mask)
    return layers.Dense(config.frame_units, activation="tanh", name="frames")(frames.project(mean))
