"""Whether a new model may take over, from what both said to the same held questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.questions.question import Question
from framebank.train.judging.bootstrap import paired_bootstrap
from framebank.train.retrain.config import PromoteConfig

if TYPE_CHECKING:
    from framebank.train.evaluation.answers import Answers


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether the new model is `better`, the reason in words, and the figures behind it."""

    better: bool
    reason: str
    figures: dict[str, Any]


def gains(answers: Answers, questions: Sequence[Question]) -> NDArray[np.float64]:
    """Return float64[q], the higher the better: 1 for a right answer, of a count minus the square
    of its error."""
    if answers.head != "count":
        return answers.right.astype(np.float64)
    pairs = zip(answers.chosen(), questions, strict=True)
    return np.array([-((float(one) - float(q.number or 0)) ** 2) for one, q in pairs])


def decide(
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    groups: Sequence[str],
    config: PromoteConfig,
    *,
    counts: bool = False,
) -> Decision:
    """Compare the `gains` of two models by a bootstrap over `groups`, the videos of the questions.

    Of `counts` the mean square error is compared, and the margin is one of it.
    """
    found = paired_bootstrap(new, old, groups, seed=config.seed, rounds=config.rounds)
    name, show = ("mean_square_error", _number) if counts else ("accuracy", _percent)
    sign = -1 if counts else 1
    ours, others = sign * float(new.mean()), sign * float(old.mean())
    figures = {
        name: ours,
        f"{name}_in_use": others,
        "difference": float(found.difference),
        "interval": [float(found.low), float(found.high)],
        "probability_better": float(found.probability_better),
    }
    text = (
        f"{show(ours)} against {show(others)} on {len(new)} questions "
        f"about {len(set(groups))} held videos: {show(found.difference, '+')} "
        f"({show(found.low, '+')} to {show(found.high, '+')}), "
        f"better in {found.probability_better:.1%} of the bootstrap rounds"
    )
    if counts:
        text = f"mean square error {text} (a gain is an error that is lower)"
    if found.difference < config.margin:
        return Decision(False, f"{text}; a gain of {show(config.margin)} is asked for", figures)
    if found.probability_better < config.confidence:
        return Decision(False, f"{text}; {config.confidence:.1%} of them are asked for", figures)
    return Decision(True, text, figures)


def _percent(value: float, sign: str = "") -> str:
    return f"{value:{sign}.1%}"


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}"
