"""Two GRUs read the frames, one from the first and one from the last."""

from __future__ import annotations

from typing import Any

from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import Frames


def read_frames(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, 2 · ⌈frame_units / 2⌉], the states of both; they are blind to `question`."""
    from keras import layers

    gru = layers.GRU(-(-config.frame_units // 2))
    return layers.Bidirectional(gru, name="frames")(frames.seen, mask=frames.mask)
