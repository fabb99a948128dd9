"""A temporal transformer: the question and the frames, each with its place, look at one another.

Pre-norm blocks (Xiong et al. 2020, arXiv:2002.04745), sines for the places (Vaswani et al. 2017,
arXiv:1706.03762). The question stands first, and what becomes of it is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import Frames

_BLOCKS = 2
_HEADS = 4
_LONGEST = 200.0  # frames in the longest wave, over 2π


def read_frames(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, w] of the question after it has seen the frames; w is frame_units made up to
    a multiple of twice the heads."""
    from keras import layers, ops

    width = -(-config.frame_units // (2 * _HEADS)) * 2 * _HEADS
    seen = layers.Dense(width, name="frames")(frames.seen)
    seen = ops.add(seen, _places(frames.mask, width))
    asked = ops.expand_dims(layers.Dense(width, name="asked")(question), 1)
    tokens = layers.Concatenate(axis=1)([asked, seen])
    there = ops.pad(ops.cast(frames.mask, "int32"), [[0, 0], [1, 0]], constant_values=1)
    there = ops.expand_dims(ops.cast(there, "bool"), 1)  # bool[b, 1, 1 + n]: no one sees padding
    for number in range(_BLOCKS):
        tokens = _block(tokens, there, width, config.dropout, name=f"block{number}")
    return layers.LayerNormalization(name="read")(tokens[:, 0])


def _places(mask: Any, width: int) -> Any:
    """Return float[b, n, width]: sines and cosines of each frame's number."""
    from keras import ops

    number = ops.cumsum(ops.ones_like(ops.cast(mask, "float32")), axis=1)
    waves = _LONGEST ** -np.linspace(0, 1, width // 2, dtype=np.float32)
    angle = ops.multiply(ops.expand_dims(number, -1), waves.reshape(1, 1, -1))
    return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)


def _block(tokens: Any, there: Any, width: int, dropout: float, *, name: str) -> Any:
    from keras import layers

    # Dropout stands outside of the attention, where its noise can be made the row's own.
    attention = layers.MultiHeadAttention(_HEADS, width // _HEADS, name=f"{name}_attention")
    normal = layers.LayerNormalization(name=f"{name}_before")(tokens)
    moved = attention(normal, normal, attention_mask=there)
    tokens = layers.Add()([tokens, layers.Dropout(dropout)(moved)])
    normal = layers.LayerNormalization(name=f"{name}_between")(tokens)
    moved = layers.Dense(2 * width, activation="gelu", name=f"{name}_widen")(normal)
    moved = layers.Dense(width, name=f"{name}_narrow")(moved)
    return layers.Add()([tokens, layers.Dropout(dropout)(moved)])
