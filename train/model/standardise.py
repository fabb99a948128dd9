"""Mean and variance of the training split's frames, in one pass and bounded memory.

Shards merge to the whole: `FrameStatistics` of parts, merged, equal those of all frames (Chan,
Golub and LeVeque 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
