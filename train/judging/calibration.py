"""Are probabilities what they say? A temperature from held-back answers, and the error without it.

Source: Guo et al. 2017, "On calibration of modern neural networks", ICML, arXiv:1706.04599: logits
are divided by one number, chosen by the least negative log likelihood of answers that the fit has
not seen; which answer comes first never changes. The error is the expected calibration error: the
mean distance between confidence and accuracy over bins of confidence, weighed by their answers.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from framebank.train.model.heads import reluctance

Floats = NDArray[np.float64]

TEMPERATURES = np.geomspace(0.1, 10, 81)  # the middle one is 1
BINS = 10
_TINY = 1e-7


@dataclasses.dataclass
class Surprise:
    """Sums of the negative log likelihood of true answers, at each of TEMPERATURES."""

    sums: Floats = dataclasses.field(default_factory=lambda: np.zeros(len(TEMPERATURES)))
    count: float = 0.0

    def add(self, probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> None:
        """Add answers: probabilities float32[b, a], and the true one of each int64[b]."""
        logits = np.log(np.maximum(probabilities.astype(np.float64), _TINY))
        right = logits[np.arange(len(truth)), truth]
        for place, temperature in enumerate(TEMPERATURES):
            scaled = logits / temperature
            top = scaled.max(axis=1)
            total = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
            self.sums[place] += (total - right / temperature).sum()
        self.count += len(truth)

    @property
    def temperature(self) -> float:
        """Return the temperature of the least surprise; 1 where nothing was added.

        Of a few answers, all of them right by chance, the least is at the end of the scale: 1 is
        what is thought before any is seen (`reluctance`), which 20 answers outweigh.
        """
        if not self.count:
            return 1.0
        return round(float(TEMPERATURES[int((self.sums + reluctance(TEMPERATURES)).argmin())]), 6)


def at_temperature(probabilities: NDArray[np.floating], temperature: float) -> Floats:
    """Return float64[b, a] with logits divided by `temperature`."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), _TINY)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@dataclasses.dataclass
class Confidence:
    """Answers by bins of confidence: how many, the sum of confidences, and of right ones."""

    bins: Floats = dataclasses.field(default_factory=lambda: np.zeros((3, BINS)))

    def add(self, confidence: Floats, right: NDArray[np.bool_]) -> None:
        """Add answers: the probability float[b] of what was answered, and whether it is right."""
        place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        for row, weights in zip(self.bins, (None, confidence, right), strict=True):
            row += np.bincount(place, weights=weights, minlength=BINS)

    @property
    def error(self) -> float | None:
        """Return the expected calibration error in [0, 1]; None without an answer."""
        count, confidence, right = self.bins
        return float(np.abs(confidence - right).sum() / count.sum()) if count.sum() else None
