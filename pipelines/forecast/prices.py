"""What a job costs on Dataflow: a price table with its date, and machines, workers and time on top.

The table is `pipelines/prices.json`; a user replaces it by a file of the same form. Every number in
it is a list price or an assumption of the date it names. Prices come to hours of workers: vCPUs,
memory, disk and accelerators of each, from its start to the end of the job. Storage, traffic
between regions and what the service adds (a few MB of shuffle) are not in it.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framebank.features.bounds import MOST_FLOAT, within
from framebank.features.errors import UsageError
from framebank.features.stores import json_text, storage
from framebank.pipelines.forecast.estimate import Estimate

OWN_TABLE = str(Path(__file__).with_name("prices.json"))
# What `pipelines/runners/dataflow/submission.py` asks for where the user does not say.
WORKERS = 10
DISK_GB = 50
# How much slower or faster a vCPU there may be than a core here, and a card than the table says.
CORE_RANGE = (0.7, 1.5)
ACCELERATOR_RANGE = (0.6, 2.0)
START_S = Estimate(240, 150, 420)  # until a worker is up and has its container
ACCELERATOR_START_S = Estimate(180, 120, 400)  # more, for the driver and a larger image

_MACHINE = re.compile(r"(?P<family>[a-z0-9]+-[a-z]+)-(?P<count>[1-9]\d{0,3})(?P<gpu>g?)")
_CUSTOM = re.compile(r"(?:[a-z0-9]+-)?custom-(?P<vcpus>[1-9]\d{0,3})-(?P<mb>\d{3,8})(?:-ext)?")
_HOURS = ("vcpu_hour", "memory_gb_hour", "disk_gb_hour")


@dataclasses.dataclass(frozen=True)
class PriceTable:
    """Prices in `currency` as of a day (ISO 8601), and the assumptions that go with them."""

    as_of: str
    region: str
    currency: str
    source: str
    note: str
    vcpu_hour: float
    memory_gb_hour: float
    disk_gb_hour: float
    accelerators: Mapping[str, Mapping[str, float]]
    accelerators_note: str
    backbones_gmac: Mapping[str, float]
    machines: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Machine:
    """A worker: its type, vCPUs, memory, disk, and what accelerators are attached."""

    name: str
    vcpus: int
    memory_gb: float
    disk_gb: float = DISK_GB
    accelerator: str | None = None
    accelerators: int = 0


@dataclasses.dataclass(frozen=True)
class Quote:
    """What a job takes on Dataflow: wall seconds, and money in the table's currency."""

    machine: Machine
    workers: int
    wall_s: Estimate
    worker_hour: float
    price: Estimate


def read_prices(path: str = OWN_TABLE) -> PriceTable:
    """Read a price table; raises UsageError that names the file, the field and what is right."""
    try:
        fields = json_text.parse(storage.read_bytes(path))
    except storage.FileMissingError as err:
        raise _fault(path, "no such file", "a JSON file") from err
    except ValueError as err:
        raise _fault(path, f"no JSON: {err}", "a JSON object") from err
    if not isinstance(fields, dict):
        raise _fault(path, type(fields).__name__, "a JSON object")
    names = {field.name for field in dataclasses.fields(PriceTable)}
    if missing := sorted(names - set(fields)):
        raise _fault(path, f"no {missing[0]!r}", f"the fields {', '.join(sorted(names))}")
    if unknown := sorted(set(fields) - names):
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise _fault(path, f"an unknown field {unknown[0]!r}{hint}", ", ".join(sorted(names)))
    for name in sorted(names):
        _check(path, name, fields[name])
    return PriceTable(**fields)


def _fault(path: str, got: object, expected: object) -> UsageError:
    return UsageError(
        f"the price table {path} cannot be used",
        got=got,
        expected=expected,
        todo=f"correct it; {OWN_TABLE} shows the form",
    )


def _check(path: str, name: str, value: Any) -> None:
    """Raise UsageError unless a field has the right form."""
    if name in _HOURS:
        _check_number(path, name, value)
    elif name == "backbones_gmac":
        for key, number in _check_object(path, name, value).items():
            _check_number(path, f"{name}.{key}", number, positive=True)
    elif name in ("accelerators", "machines"):
        needed = {"hour", "gmac_per_s"} if name == "accelerators" else {"gb_per_vcpu"}
        allowed = needed | ({"vcpus_per_gpu"} if name == "machines" else set())
        for key, row in _check_object(path, name, value).items():
            found = set(_check_object(path, f"{name}.{key}", row))
            if not needed <= found <= allowed:
                raise _fault(path, f"{name}.{key} with {sorted(found)}", sorted(needed))
            for field, number in row.items():
                _check_number(path, f"{name}.{key}.{field}", number, positive=field != "hour")
    elif not isinstance(value, str):
        raise _fault(path, f"{name} = {value!r}", "a text")
    elif name == "as_of":
        try:
            datetime.date.fromisoformat(value)
        except ValueError as err:
            raise _fault(path, f"as_of = {value!r}", "a day such as 2025-06-01") from err


def _check_object(path: str, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fault(path, f"{name} = {str(value)[:60]}", "an object")
    return value


def _check_number(path: str, name: str, value: Any, *, positive: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not within(value, 0, MOST_FLOAT, above=positive):
        expected = "a number above 0" if positive else "a number from 0"
        raise _fault(path, f"{name} = {value!r}", expected)


def find_machine(
    name: str, table: PriceTable, *, disk_gb: float = DISK_GB, accelerator: str | None = None
) -> Machine:
    """Return what a machine type has; `accelerator` is TYPE or TYPE:COUNT.

    Raises UsageError for a type or an accelerator that the table does not know.
    """
    kind, number = _accelerator(accelerator, table)
    if custom := _CUSTOM.fullmatch(name):
        vcpus, memory_gb = int(custom["vcpus"]), int(custom["mb"]) / 1024
        return Machine(name, vcpus, memory_gb, disk_gb, kind, number)
    match = _MACHINE.fullmatch(name)
    row = table.machines.get(match["family"]) if match else None
    if match is None or row is None or bool(match["gpu"]) != ("vcpus_per_gpu" in row):
        near = difflib.get_close_matches(name, table.machines, n=1)
        raise UsageError(
            "the price table does not know this machine type",
            got=name,
            expected="a type of " + ", ".join(table.machines) + ", or custom-VCPUS-MB",
            todo=f"did you mean {near[0]}-4? " if near else "add its family with --prices FILE",
        )
    vcpus = int(match["count"]) * int(row.get("vcpus_per_gpu", 1))
    return Machine(name, vcpus, vcpus * row["gb_per_vcpu"], disk_gb, kind, number)


def _accelerator(text: str | None, table: PriceTable) -> tuple[str | None, int]:
    if not text:
        return None, 0
    kind, _, count = text.partition(":")
    if kind not in table.accelerators or (count and not re.fullmatch(r"[1-9]\d?", count)):
        near = difflib.get_close_matches(kind, table.accelerators, n=1, cutoff=0.3)
        raise UsageError(
            "the price table does not know this accelerator",
            got=text,
            expected="TYPE or TYPE:COUNT with a type of " + ", ".join(table.accelerators),
            todo=f"did you mean {near[0]}?" if near else "add it with --prices FILE",
        )
    return kind, int(count or 1)


def quote(
    table: PriceTable,
    machine: Machine,
    *,
    workers: int,
    shards: int,
    backbone: str,
    decode_s: Estimate,
    network_s: Estimate,
    pictures: Estimate,
) -> Quote:
    """Return time and price of a job on Dataflow.

    `decode_s` and `network_s` are processor seconds measured on a core of this machine, `pictures`
    the frames that go through the network; with an accelerator the network runs there, beside the
    decoders. No more workers are counted than there are shards, and the one with most shards
    decides. Raises UsageError for a backbone that the table has no cost of.
    """
    used = max(1, min(workers, shards))
    share = math.ceil(max(1, shards) / used) / max(1, shards)  # of the one with most shards
    rate_fps = _frames_per_s(table, machine, backbone) if machine.accelerators else None

    def busy_s(end: str, core: float, card: float) -> float:
        decoding_s = getattr(decode_s, end) * share * core / machine.vcpus
        if rate_fps is None:
            return decoding_s + getattr(network_s, end) * share * core / machine.vcpus
        return float(max(decoding_s, getattr(pictures, end) * share / rate_fps * card))

    work_s = Estimate(
        busy_s("value", 1.0, 1.0),
        busy_s("low", CORE_RANGE[0], ACCELERATOR_RANGE[0]),
        busy_s("high", CORE_RANGE[1], ACCELERATOR_RANGE[1]),
    )
    start_s = _sum(START_S, ACCELERATOR_START_S) if machine.accelerators else START_S
    wall_s = _sum(start_s, work_s)
    worker_hour = worker_price(table, machine)
    return Quote(machine, used, wall_s, worker_hour, wall_s.times(used * worker_hour / 3600))


def worker_price(table: PriceTable, machine: Machine) -> float:
    """Return what one worker costs an hour."""
    attached = 0.0
    if machine.accelerator is not None:
        attached = machine.accelerators * table.accelerators[machine.accelerator]["hour"]
    return (
        machine.vcpus * table.vcpu_hour
        + machine.memory_gb * table.memory_gb_hour
        + machine.disk_gb * table.disk_gb_hour
        + attached
    )


def _frames_per_s(table: PriceTable, machine: Machine, backbone: str) -> float:
    """Return what the accelerators of one worker do, by the table's assumption."""
    if backbone not in table.backbones_gmac:
        raise UsageError(
            "the price table has no cost of this backbone",
            got=backbone,
            expected=", ".join(table.backbones_gmac),
            todo="add it to backbones_gmac of a table of your own (--prices FILE)",
        )
    assert machine.accelerator is not None
    rate = table.accelerators[machine.accelerator]["gmac_per_s"] * machine.accelerators
    return rate / table.backbones_gmac[backbone]


def _sum(one: Estimate, other: Estimate) -> Estimate:
    return Estimate(one.value + other.value, one.low + other.low, one.high + other.high)
