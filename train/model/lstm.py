"""The seed's branch of frames, and the default: an LSTM reads them in order."""

from __future__ import annotations

from typing import Any

from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import Frames


def read_frames(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, frame_units], the state after the last frame; it is blind to `question`."""
    from keras import layers

    return layers.LSTM(config.frame_units, name="frames")(frames.seen, mask=frames.mask)
