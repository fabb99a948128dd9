"""config and features/bounds.py: a number that no training can use is refused at once."""

from __future__ import annotations

import dataclasses
import math

import pytest

from framebank.features.bounds import check_number, within
from framebank.features.errors import UsageError
from framebank.train.model.config import ModelConfig, TrainConfig
from framebank.train.retrain.config import HeldConfig, PromoteConfig

CONFIGS = (ModelConfig, TrainConfig, HeldConfig, PromoteConfig)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 10**400])
def test_no_number_of_a_config_may_be_out_of_its_bounds(kind: type, value: float) -> None:
    numbers = [f.name for f in dataclasses.fields(kind) if isinstance(f.default, int | float)]
    assert numbers
    for name in numbers:
        with pytest.raises(UsageError, match=name.replace("_", "[_-]")):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ModelConfig, {"dropout": 1.0}),
        (ModelConfig, {"frame_dropout": 1.0}),
        (ModelConfig, {"dropout": 1.5}),
        (ModelConfig, {"words": 0}),
        (TrainConfig, {"val_share": 1.0}),
        (TrainConfig, {"label_smoothing": 1.0}),
        (TrainConfig, {"seed": 2**32}),
        (TrainConfig, {"learning_rate": 1e39}),
        (TrainConfig, {"epochs": 2**31}),
        (TrainConfig, {"batch_size": 2**17}),
        (ModelConfig, {"frame_units": 2**17}),
        (PromoteConfig, {"seed": 2**32}),
    ],
)
def test_bounds(kind: type, fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"must be|cannot be used"):
        kind(**fields)


def test_what_is_on_a_bound_and_good() -> None:
    ModelConfig(dropout=0.0, frame_dropout=0.99)
    TrainConfig(seed=2**32 - 1, val_share=0.0, weight_decay=0.0, checkpoint_every_s=0.0)
    TrainConfig(max_unmatched_ratio=1.0, memory_bytes=2**40)


def test_nan_is_within_nothing() -> None:
    assert within(0, 0, 1) and not within(0, 0, 1, above=True) and not within(1, 0, 1, below=True)
    assert not any(within(value, -math.inf, math.inf) for value in (math.nan, math.inf))
    with pytest.raises(UsageError, match=r"--x must be above 0 and at most 5\n  got:      nan"):
        check_number("--x", math.nan, 0, 5, above=True)
