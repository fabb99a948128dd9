"""The question weighs the frames (additive attention, Bahdanau et al. 2015, arXiv:1409.0473).

A frame's weight follows from its picture and the question alone: this kind finds the frame that
matters but does not know the order of frames.
"""

from __future__ import annotations

from typing import Any

from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import Frames

_HIDDEN = -1e9  # the score of padding: its weight is 0


def read_frames(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, 2 · frame_units]: the weighed mean of the frames, alone and gated by
    `question` float[b, q]."""
    from keras import layers, ops

    seen = layers.Dense(config.frame_units, name="frame_key")(frames.seen)
    asked = layers.Dense(config.frame_units, use_bias=False, name="question_key")(question)
    both = ops.tanh(ops.add(seen, ops.expand_dims(asked, 1)))
    scores = ops.squeeze(layers.Dense(1, use_bias=False, name="attention")(both), -1)
    shares = ops.softmax(ops.where(frames.mask, scores, _HIDDEN), axis=-1)
    values = layers.Dense(config.frame_units, activation="tanh", name="frames")(frames.seen)
    mean = ops.sum(ops.multiply(values, ops.expand_dims(shares, -1)), axis=1)
    gate = layers.Dense(config.frame_units, activation="sigmoid", name="gate")(question)
    return layers.Concatenate()([mean, ops.multiply(mean, gate)])
