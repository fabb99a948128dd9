"""Whether a new model may take over, from what both said to the same held questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.comparing import paired_bootstrap
from train.retrain_config import PromoteConfig


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether the new model is `better`, the reason in words, and the figures behind it."""

    better: bool
    reason: str
    figures: dict[str, Any]


def decide(
    new: NDArray[np.bool_], old: NDArray[np.bool_], groups: Sequence[str], config: PromoteConfig
) -> Decision:
    """Compare bool[q] of two models by a bootstrap over `groups`, the videos of the questions."""
    found = paired_bootstrap(new, old, groups, seed=config.seed, rounds=config.rounds)
    figures = {
        "accuracy": float(new.mean()),
        "accuracy_in_use": float(old.mean()),
        "difference": float(found.difference),
        "interval": [float(found.low), float(found.high)],
        "probability_better": float(found.probability_better),
    }
    text = (
        f"{new.mean():.1%} against {old.mean():.1%} on {len(new)} questions about "
        f"{len(set(groups))} held videos: {found.difference:+.1%} "
        f"({found.low:+.1%} to {found.high:+.1%}), "
        f"better in {found.probability_better:.1%} of the bootstrap rounds"
    )
    if found.difference < config.margin:
        return Decision(False, f"{text}; a gain of {config.margin:.1%} is asked for", figures)
    if found.probability_better < config.confidence:
        return Decision(False, f"{text}; {config.confidence:.1%} of them are asked for", figures)
    return Decision(True, text, figures)
