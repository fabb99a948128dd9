"""Temporal moments of a clip: a few vectors that say what its frames are and how they change.

They are what a closed formula can learn from (`train.model.probe`), and a direct path past the
reader in the kinds that are trained. Of each feature the signed root is taken first, which keeps
few large activations from outweighing all others (Perronnin, Sánchez and Mensink 2010, "Improving
the Fisher kernel"). Dimension letters: b batch, n frames, d feature width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

# The order of frames does not show in these.
ORDER_BLIND = ("mean", "maximum", "deviation")
MOMENTS = (*ORDER_BLIND, "difference", "cosine_1", "cosine_2")
_LEAST = -1e9  # of padding, below any feature
_SIGMA = 5.0  # standardised moments are cut off there


@dataclasses.dataclass(frozen=True)
class Scale:
    """Mean and variance of each moment over the clips that were fitted, float32[d] by name."""

    mean: dict[str, NDArray[np.float32]]
    variance: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, moments: Mapping[str, NDArray[np.float32]]) -> Scale:
        mean, variance = {}, {}
        for name, columns in moments.items():
            mean[name], variance[name] = columns.mean(axis=0), columns.var(axis=0)
            floor = np.maximum(1e-6, 1e-5 * np.abs(mean[name]))
            variance[name] = np.where(variance[name] > floor**2, variance[name], 1.0)
        return cls(mean, variance)

    def apply(self, name: str, moment: Any) -> Any:
        """Return the moment standardised and cut off, of NumPy's or of Keras' arrays."""
        scale = layers.Normalization(
            mean=self.mean[name], variance=self.variance[name], dtype="float32"
        )
        return ops.clip(scale(moment), -_SIGMA, _SIGMA)


def temporal_moments(features: Any, mask: Any, names: Sequence[str] = MOMENTS) -> dict[str, Any]:
    """Return the moments `names` of features float[b, n, d], each float32[b, d].

    `mask` bool[b, n] says which rows are frames; padding is on the right. `deviation` is over the
    frames, `difference` the mean |difference| of neighbouring frames (0 of one frame), `cosine_k`
    the k-th coefficient of a cosine transform over time, which has its sign from the direction.
    """
    features = ops.cast(features, "float32")
    roots = ops.sign(features) * ops.sqrt(ops.abs(features))
    there = ops.expand_dims(ops.cast(mask, "float32"), -1)  # [b, n, 1]
    count = ops.sum(there, axis=1)  # [b, 1]
    mean = ops.sum(roots * there, axis=1) / count
    made = {"mean": mean}
    if "maximum" in names:
        made["maximum"] = ops.max(ops.where(there > 0, roots, _LEAST), axis=1)
    if "deviation" in names:
        around = (roots - ops.expand_dims(mean, 1)) * there
        made["deviation"] = ops.sqrt(ops.sum(around * around, axis=1) / count)
    if "difference" in names:
        steps = ops.abs(roots[:, 1:] - roots[:, :-1]) * there[:, 1:]
        made["difference"] = ops.sum(steps, axis=1) / ops.maximum(count - 1, 1)
    middle = (ops.cumsum(there, axis=1) - 0.5) / ops.expand_dims(count, 1)  # in (0, 1)
    for name in names:
        if name.startswith("cosine_"):
            wave = ops.cos(middle * (math.pi * int(name.removeprefix("cosine_")))) * there
            made[name] = ops.sum(roots * wave, axis=1) * 2 / count
    return {name: made[name] for name in names}
