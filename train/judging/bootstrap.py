"""Is one model better than another? A paired bootstrap over videos says how sure that is.

Questions about one video are not independent, so whole videos are drawn, with replacement; both
models are judged on the same draw (Koehn, "Statistical Significance Tests for Machine Translation
Evaluation", EMNLP 2004).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 2000
_DRAWS = 1 << 22  # numbers drawn at once
_TAIL = 2.5  # percent outside an interval of 95 %, on each side


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Accuracy of the new minus that of the old, in [-1, 1], with its 95 % interval.

    `probability_better` is the share of draws in which the new one is better, draws even counted
    half.
    """

    difference: float
    low: float
    high: float
    probability_better: float

    def to_json(self) -> dict[str, Any]:
        return {
            "difference": self.difference,
            "interval": [self.low, self.high],
            "probability_better": self.probability_better,
        }


def paired_bootstrap(
    new_right: ArrayLike,
    old_right: ArrayLike,
    groups: Sequence[str],
    *,
    seed: int,
    rounds: int = ROUNDS,
) -> Comparison:
    """Compare two models on the same questions.

    `new_right` and `old_right` are bool[q], `groups` names the video of each question. Raises
    ValueError where there is no question, where the lengths differ, and for NaN and infinity.
    """
    new, old = np.asarray(new_right, np.float64), np.asarray(old_right, np.float64)
    sums, counts = _by_group(new - old, groups)
    means = _draw_means(sums, counts, seed=seed, rounds=rounds)
    better = float((means > 0).mean() + (means == 0).mean() / 2)
    return Comparison(float(sums.sum() / counts.sum()), *middle(means), better)


def interval(right: ArrayLike, groups: Sequence[str], *, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `right`, bool[q] or float[q]; raises ValueError as
    well.

    Where all of bool[q] are right, or none, each draw is like the other, though the next video may
    not be: the bound is then that of Clopper and Pearson (1934) for as many videos.
    """
    values = np.asarray(right)
    sums, counts = _by_group(values.astype(np.float64), groups)
    if values.dtype == bool and values.all() == values.any():
        least = (_TAIL / 100) ** (1 / len(sums))
        return (least, 1.0) if values.all() else (0.0, 1 - least)
    return middle(_draw_means(sums, counts, seed=seed, rounds=ROUNDS))


def middle(means: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval that 95 % of the draws fall into."""
    low, high = np.percentile(means, (_TAIL, 100 - _TAIL))
    return float(low), float(high)


def _by_group(
    values: NDArray[np.float64], groups: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums and counts of each group, float64[g]."""
    if not len(values) or len(values) != len(groups):
        raise ValueError(f"{len(values)} values for {len(groups)} questions")
    if not np.isfinite(values).all():  # which no margin would hold back
        raise ValueError("values that are not finite")
    _, number = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(number, weights=values).astype(np.float64)
    return sums, np.bincount(number).astype(np.float64)


def _draw_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int, rounds: int
) -> NDArray[np.float64]:
    if rounds < 1:
        raise ValueError(f"{rounds} rounds")
    dice = np.random.default_rng(seed)
    at_once = max(1, _DRAWS // len(sums))
    means = np.empty(rounds)
    for start in range(0, rounds, at_once):
        drawn = dice.integers(len(sums), size=(min(at_once, rounds - start), len(sums)))
        means[start : start + at_once] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
