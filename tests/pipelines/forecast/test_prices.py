"""Prices of the user's own: faults in them are named, and sums come out right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.pipelines.forecast.estimate import Estimate
from framebank.pipelines.forecast.measuring import Load
from framebank.pipelines.forecast.prices import (
    ACCELERATOR_START_S,
    START_S,
    WORKERS,
    Prices,
    quote,
    read_prices,
)
from framebank.pipelines.runners.dataflow import submission

PRICES = Prices("USD", 0.28, 4)
WORK: dict[str, Any] = {"accelerated": False, "frame_s": 0.05}


def load(shards: int) -> Load:
    return Load(Estimate(640_000, 640_000, 640_000), Estimate(8000, 8000, 8000), 0.0, shards)


def write_prices(tmp_path: Path, **fields: Any) -> str:
    table = {"currency": "USD", "worker_hour": 0.28, "vcpus": 4} | fields
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({k: v for k, v in table.items() if v is not ...}))
    return str(path)


def test_prices_are_read(tmp_path: Path) -> None:
    assert read_prices(write_prices(tmp_path)) == PRICES
    with_card = read_prices(write_prices(tmp_path, frames_per_s=200))
    assert with_card == dataclasses.replace(PRICES, frames_per_s=200)


def test_what_is_assumed_is_what_a_submission_asks_for() -> None:
    assert WORKERS == submission._WORKERS


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"worker_hour": ...}, "no 'worker_hour'"),
        ({"worker_hour": "0.05"}, "worker_hour = '0.05'"),
        ({"worker_hour": -1}, "worker_hour = -1"),
        ({"worker_hour": float("nan")}, "worker_hour = nan"),
        ({"worker_hour": 10**400}, "worker_hour = 1000"),
        ({"worker_hour": True}, "worker_hour = True"),
        ({"currency": 5}, "currency = 5"),
        ({"worker_hours": 1}, "did you mean 'worker_hour'?"),
        ({"vcpus": []}, "vcpus = []"),
        ({"vcpus": 0}, "vcpus = 0"),
        ({"vcpus": 1.5}, "vcpus = 1.5"),
        ({"frames_per_s": 0}, "frames_per_s = 0"),
        ({"frames_per_s": None}, "frames_per_s = None"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_prices(write_prices(tmp_path, **fields))
    assert said in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_what_is_no_table_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="cannot be used"):
        read_prices(str(path))


def test_time_is_the_work_of_the_cores_and_the_start() -> None:
    found = quote(PRICES, load(1000), workers=10, **WORK)
    assert found.wall_s.value == pytest.approx(START_S.value + 40_000 / 40)
    assert found.wall_s.low < found.wall_s.value < found.wall_s.high
    hours = found.wall_s.value / 3600
    assert found.price.value == pytest.approx(hours * 10 * PRICES.worker_hour)


def test_no_more_workers_than_shards_and_the_fullest_decides() -> None:
    few = quote(PRICES, load(3), workers=1000, **WORK)
    assert few.workers == 3
    uneven = quote(PRICES, load(5), workers=4, **WORK)
    assert uneven.wall_s.value == pytest.approx(START_S.value + 40_000 / 4 * 2 / 5)


def test_with_an_accelerator_the_slower_of_decoding_and_network_counts() -> None:
    start_s = START_S.value + ACCELERATOR_START_S.value
    work = WORK | {"accelerated": True}
    large = Prices("USD", 3.0, 64, frames_per_s=200)
    found = quote(large, load(1000), workers=10, **work)
    assert found.wall_s.value == pytest.approx(start_s + 640_000 / 10 / 200)
    small = Prices("USD", 3.0, 1, frames_per_s=5000)
    found = quote(small, load(1000), workers=10, **work)
    assert found.wall_s.value == pytest.approx(start_s + 8000 / 10)


def test_an_accelerator_of_which_nothing_is_said_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no 'frames_per_s'"):
        read_prices(write_prices(tmp_path), accelerated=True)
    assert read_prices(write_prices(tmp_path, frames_per_s=9), accelerated=True).frames_per_s == 9
