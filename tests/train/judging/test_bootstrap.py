"""The bootstrap over videos: right in what it says, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.train.judging.bootstrap import interval, paired_bootstrap


def test_equal_models_are_neither_better_nor_worse() -> None:
    right = [True, False, True, True]
    found = paired_bootstrap(right, right, ["a", "a", "b", "c"], seed=0, rounds=100)
    assert (found.difference, found.low, found.high, found.probability_better) == (0, 0, 0, 0.5)


def test_a_better_model_is_better() -> None:
    dice = np.random.default_rng(1)
    old, new = dice.random(400) < 0.5, dice.random(400) < 0.8
    groups = [str(number // 2) for number in range(400)]
    found = paired_bootstrap(new, old, groups, seed=3, rounds=500)
    assert found.difference == pytest.approx(new.mean() - old.mean())
    assert 0 < found.low < found.difference < found.high
    assert found.probability_better == 1.0
    back = paired_bootstrap(old, new, groups, seed=3, rounds=500)
    assert back.difference == -found.difference and back.probability_better == 0.0
    assert found == paired_bootstrap(new, old, groups, seed=3, rounds=500)


def test_interval_is_that_of_a_proportion() -> None:
    right = np.random.default_rng(0).random(1000) < 0.3
    alone = interval(right, [str(n) for n in range(1000)], seed=0)
    width = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 1000)
    assert alone[1] - alone[0] == pytest.approx(width, rel=0.1)


def test_questions_of_one_video_count_as_one_draw() -> None:
    right = np.repeat(np.random.default_rng(0).random(50) < 0.5, 20)
    apart = interval(right, [str(n) for n in range(1000)], seed=0)
    together = interval(right, [str(n // 20) for n in range(1000)], seed=0)
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])


def test_all_right_is_not_surely_right() -> None:
    groups = [str(n) for n in range(20)]
    # One of twenty more may be wrong: 0.025 ** (1 / 20), as binom.test(20, 20) in R has it.
    assert interval(np.ones(20, bool), groups, seed=0) == (pytest.approx(0.83157, abs=1e-5), 1.0)
    assert interval(np.zeros(20, bool), groups, seed=0) == (0.0, pytest.approx(0.16843, abs=1e-5))
    assert interval(np.ones(20, bool), ["a"] * 20, seed=0) == (pytest.approx(0.025), 1.0)
    assert interval(np.zeros(20), groups, seed=0) == (0.0, 0.0)  # no shares: of counts, say


@pytest.mark.parametrize("right, groups", [([], []), ([True], ["a", "b"])])
def test_what_cannot_be_drawn_is_refused(right: list[bool], groups: list[str]) -> None:
    with pytest.raises(ValueError, match="values for"):
        interval(right, groups, seed=0)
    with pytest.raises(ValueError, match="0 rounds"):
        paired_bootstrap([True], [False], ["a"], seed=0, rounds=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_is_better_than_what_is_not_finite(value: float) -> None:
    for new, old in (([value, 1.0], [0.0, 0.0]), ([1.0, 1.0], [0.0, -value])):
        with pytest.raises(ValueError, match="not finite"):
            paired_bootstrap(new, old, ["a", "b"], seed=0)
