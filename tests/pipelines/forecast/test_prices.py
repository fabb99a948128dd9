"""The price table: the shipped one is whole, a user's faults are named, and sums come out right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.features.network.backbones import BACKBONES
from framebank.pipelines.forecast.estimate import Estimate
from framebank.pipelines.forecast.prices import (
    ACCELERATOR_START_S,
    DISK_GB,
    OWN_TABLE,
    START_S,
    WORKERS,
    find_machine,
    quote,
    read_prices,
    worker_price,
)
from framebank.pipelines.runners.dataflow import submission

TABLE = read_prices()
WORK: dict[str, Any] = {
    "backbone": "inception_v3",
    "decode_s": Estimate(8000, 8000, 8000),
    "network_s": Estimate(32_000, 32_000, 32_000),
    "pictures": Estimate(640_000, 640_000, 640_000),
}


def changed(tmp_path: Path, **fields: Any) -> str:
    table = json.loads(Path(OWN_TABLE).read_text()) | fields
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({k: v for k, v in table.items() if v is not ...}))
    return str(path)


def test_the_shipped_table_has_a_date_a_source_and_every_backbone() -> None:
    assert TABLE.source.startswith("https://") and TABLE.region == "us-central1"
    assert set(TABLE.backbones_gmac) == set(BACKBONES)


def test_what_is_assumed_is_what_a_submission_asks_for() -> None:
    assert WORKERS == submission._WORKERS
    assert DISK_GB == submission._SYSTEM_GB + submission._STAGED_GB_PER_THREAD * submission._THREADS
    for kind in submission._GPUS:
        assert find_machine(submission.default_machine(kind), TABLE, accelerator=kind).vcpus
    assert find_machine(submission.default_machine(None), TABLE).vcpus == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vcpu_hour": ...}, "no 'vcpu_hour'"),
        ({"vcpu_hour": "0.05"}, "vcpu_hour = '0.05'"),
        ({"vcpu_hour": -1}, "vcpu_hour = -1"),
        ({"vcpu_hour": float("nan")}, "vcpu_hour = nan"),
        ({"vcpu_hour": 10**400}, "vcpu_hour = 1000"),
        ({"disk_gb_hour": True}, "disk_gb_hour = True"),
        ({"as_of": "last week"}, "as_of = 'last week'"),
        ({"currency": 5}, "currency = 5"),
        ({"vcpu_hours": 1}, "did you mean 'vcpu_hour'?"),
        ({"machines": []}, "machines = []"),
        ({"machines": {"n9-standard": {"gb": 4}}}, "machines.n9-standard with ['gb']"),
        ({"machines": {"n9-standard": {"gb_per_vcpu": 0}}}, "n9-standard.gb_per_vcpu = 0"),
        ({"accelerators": {"gpu": {"hour": 1}}}, "accelerators.gpu with ['hour']"),
        ({"backbones_gmac": {"inception_v3": None}}, "backbones_gmac.inception_v3 = None"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_prices(changed(tmp_path, **fields))
    assert said in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_what_is_no_table_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="cannot be used"):
        read_prices(str(path))


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gb"),
    [
        ("n1-standard-4", 4, 15),
        ("n2-highmem-16", 16, 128),
        ("g2-standard-8", 8, 32),
        ("a2-highgpu-2g", 24, 170),
        ("custom-6-20480", 6, 20),
        ("n2-custom-8-16384-ext", 8, 16),
    ],
)
def test_machine_types(name: str, vcpus: int, memory_gb: float) -> None:
    machine = find_machine(name, TABLE)
    assert machine.vcpus == vcpus and machine.memory_gb == pytest.approx(memory_gb, rel=1e-3)


@pytest.mark.parametrize(
    "name",
    ["", "n1", "n1-standard", "n1-standard-0", "n1-standart-4", "n1-standard-4g", "a2-highgpu-1",
     "custom-2", "../x-1"],
)  # fmt: skip
def test_an_unknown_machine_type_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="does not know this machine type"):
        find_machine(name, TABLE)


@pytest.mark.parametrize("text", ["t4", "nvidia-tesla-t4:0", "nvidia-tesla-t4:x", ":2"])
def test_an_unknown_accelerator_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not know this accelerator"):
        find_machine("n1-standard-4", TABLE, accelerator=text)


def test_a_worker_costs_the_sum_of_its_parts() -> None:
    machine = find_machine("n1-standard-4", TABLE, disk_gb=50, accelerator="nvidia-tesla-t4:2")
    parts = 4 * TABLE.vcpu_hour + 15 * TABLE.memory_gb_hour + 50 * TABLE.disk_gb_hour
    assert worker_price(TABLE, machine) == pytest.approx(
        parts + 2 * TABLE.accelerators["nvidia-tesla-t4"]["hour"]
    )


def test_time_is_the_work_of_the_cores_and_the_start() -> None:
    machine = find_machine("n1-standard-4", TABLE)
    found = quote(TABLE, machine, workers=10, shards=1000, **WORK)
    assert found.wall_s.value == pytest.approx(START_S.value + 40_000 / 40)
    assert found.wall_s.low < found.wall_s.value < found.wall_s.high
    hours = found.wall_s.value / 3600
    assert found.price.value == pytest.approx(hours * 10 * worker_price(TABLE, machine))


def test_no_more_workers_than_shards_and_the_fullest_decides() -> None:
    machine = find_machine("n1-standard-4", TABLE)
    few = quote(TABLE, machine, workers=1000, shards=3, **WORK)
    assert few.workers == 3
    uneven = quote(TABLE, machine, workers=4, shards=5, **WORK)
    assert uneven.wall_s.value == pytest.approx(START_S.value + 40_000 / 4 * 2 / 5)


def test_with_an_accelerator_the_slower_of_decoding_and_network_counts() -> None:
    start_s = START_S.value + ACCELERATOR_START_S.value
    rate = (
        TABLE.accelerators["nvidia-tesla-t4"]["gmac_per_s"] / TABLE.backbones_gmac["inception_v3"]
    )
    large = find_machine("n1-standard-64", TABLE, accelerator="nvidia-tesla-t4")
    found = quote(TABLE, large, workers=10, shards=1000, **WORK)
    assert found.wall_s.value == pytest.approx(start_s + 640_000 / 10 / rate)
    small = find_machine("n1-standard-1", TABLE, accelerator="nvidia-tesla-v100:8")
    found = quote(TABLE, small, workers=10, shards=1000, **WORK)
    assert found.wall_s.value == pytest.approx(start_s + 8000 / 10)


def test_a_backbone_that_the_table_does_not_have_is_told() -> None:
    machine = find_machine("g2-standard-4", TABLE, accelerator="nvidia-l4")
    with pytest.raises(UsageError, match="no cost of this backbone"):
        quote(TABLE, machine, workers=1, shards=1, **WORK | {"backbone": "other"})
