"""framebank.train.judging.calibration: a temperature that undoes what was done to probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.train.judging.calibration import Confidence, Surprise, at_temperature


def drawn(answers: int = 4000):  # type: ignore[no-untyped-def]
    """Return probabilities and answers that were drawn by just them."""
    dice = np.random.default_rng(0)
    logits = dice.normal(scale=1.5, size=(answers, 5))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([dice.choice(5, p=row) for row in shares])
    return shares, truth


@pytest.mark.parametrize("sharpened", [0.5, 1, 3])
def test_the_temperature_undoes_what_made_answers_too_sure(sharpened: float) -> None:
    shares, truth = drawn()
    odd = at_temperature(shares, 1 / sharpened)
    surprise = Surprise()
    for part in np.array_split(np.arange(len(truth)), 7):
        surprise.add(odd[part], truth[part])
    assert surprise.temperature == pytest.approx(sharpened, rel=0.12)
    back = at_temperature(odd, surprise.temperature)
    assert (back.argmax(axis=1) == shares.argmax(axis=1)).all()

    def error(its) -> float:  # type: ignore[no-untyped-def]
        sure = Confidence()
        sure.add(its.max(axis=1), its.argmax(axis=1) == truth)
        return sure.error or 0.0

    assert error(back) < 0.04
    assert sharpened == 1 or error(odd) > 2 * error(back)


def test_the_error_is_the_distance_of_confidence_from_accuracy() -> None:
    sure = Confidence()
    sure.add(np.array([0.9, 0.9]), np.array([True, False]))  # 0.9 said, 0.5 right
    sure.add(np.array([0.2, 0.2]), np.array([False, False]))  # 0.2 said, none right
    assert sure.error == pytest.approx((2 * 0.4 + 2 * 0.2) / 4)
    assert Confidence().error is None
    assert Surprise().temperature == 1


def test_a_few_answers_that_are_right_by_chance_do_not_make_a_model_sure() -> None:
    surprise = Surprise()
    surprise.add(np.array([[0.6, 0.4]] * 3), np.array([0, 0, 0]))
    assert 0.4 < surprise.temperature < 1
    surprise.add(np.array([[0.6, 0.4]] * 300), np.zeros(300, int))
    assert surprise.temperature < 0.2
