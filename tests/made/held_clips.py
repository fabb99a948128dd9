"""Clips that are in memory already, as a source of training features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.train.data.batches import Features
from framebank.train.data.epoch_order import Stored


class HeldClips:
    def __init__(self, clips: Sequence[NDArray[Any]]) -> None:
        self._clips = clips

    def read(self, number: int) -> NDArray[Any]:
        return self._clips[number]

    def announce(self, numbers: NDArray[np.int64]) -> None:
        """Nothing has to be fetched."""


def held_features(clips: Mapping[str, NDArray[Any]]) -> Features:
    """Return features that are in memory: video_id → float[n, d]."""
    arrays = list(clips.values())
    stored = Stored.dealt([0] * len(arrays), [len(clip) for clip in arrays])
    width = int(arrays[0].shape[1])
    return Features(list(clips), stored, HeldClips(arrays), width=width, dtype=arrays[0].dtype)
