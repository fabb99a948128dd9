"""What a job takes on Dataflow, by what the user says of a worker there: its cores and its price.

FILE of `--prices` is a JSON object:

    {"currency": "USD", "worker_hour": 0.28, "vcpus": 4}

With `--accelerator` it names `frames_per_s` too. Storage and traffic are not in it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any

from framebank.features.bounds import MOST_FLOAT, MOST_INT, within
from framebank.features.errors import UsageError
from framebank.features.stores import json_text, storage
from framebank.pipelines.forecast.estimate import Estimate
from framebank.pipelines.forecast.measuring import Load

WORKERS = 10  # what `pipelines/runners/dataflow/submission.py` asks for where the user does not say
# How much slower or faster a vCPU there may be than a core here, and a card than the user says.
CORE_RANGE = (0.7, 1.5)
ACCELERATOR_RANGE = (0.6, 2.0)
START_S = Estimate(240, 150, 420)  # until a worker is up and has its container
ACCELERATOR_START_S = Estimate(180, 120, 400)  # more, for the driver and a larger image


@dataclasses.dataclass(frozen=True)
class Prices:
    """What is said of one worker."""

    currency: str
    worker_hour: float  # with its memory, disk and accelerators, from its start to the job's end
    vcpus: int
    frames_per_s: float | None = None  # of its accelerators with the network in question


@dataclasses.dataclass(frozen=True)
class Quote:
    """What a job takes on Dataflow: wall seconds, and money in the currency of `prices`."""

    prices: Prices
    workers: int
    wall_s: Estimate
    price: Estimate


def read_prices(path: str, *, accelerated: bool = False) -> Prices:
    """Read prices, with `accelerated` those of accelerators.

    Raises UsageError that names the file, the field and what is right.
    """
    try:
        fields = json_text.parse_object(storage.read_bytes(path))
    except storage.FileMissingError as err:
        raise _fault(path, "no such file", "a JSON file") from err
    except ValueError as err:
        raise _fault(path, f"no JSON object: {err}", "a JSON object") from err
    names = [field.name for field in dataclasses.fields(Prices)]
    for name in names if accelerated else names[:-1]:
        if name not in fields:
            raise _fault(path, f"no {name!r}", f"the fields {', '.join(names)}")
    if unknown := sorted(set(fields) - set(names)):
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise _fault(path, f"an unknown field {unknown[0]!r}{hint}", ", ".join(names))
    for name, value in fields.items():
        _check(path, name, value)
    return Prices(**fields)


def _check(path: str, name: str, value: Any) -> None:
    number = type(value) in (int, float)
    sound, expected = {
        "currency": (isinstance(value, str), "a text"),
        "worker_hour": (number and within(value, 0, MOST_FLOAT), "a number from 0"),
        "vcpus": (type(value) is int and within(value, 1, MOST_INT), "a whole number from 1"),
        "frames_per_s": (number and within(value, 0, MOST_FLOAT, above=True), "a number above 0"),
    }[name]
    if not sound:
        raise _fault(path, f"{name} = {value!r}", expected)


def _fault(path: str, got: object, expected: object) -> UsageError:
    todo = "correct it; `framebank plan --help` shows the form"
    return UsageError(f"the prices in {path} cannot be used", got=got, expected=expected, todo=todo)


def quote(prices: Prices, load: Load, *, frame_s: float, accelerated: bool, workers: int) -> Quote:
    """Return time and price of a job on Dataflow.

    `frame_s` and the load's decoding are processor seconds measured on a core of this machine;
    with an accelerator the network runs there, beside the decoders. No more workers are counted
    than there are shards, and the one with most shards decides.
    """
    shards = max(1, load.shards)
    used = max(1, min(workers, shards))
    share = math.ceil(shards / used) / shards  # of the one with most shards
    rate_fps = prices.frames_per_s if accelerated else None

    def busy_s(end: str, core: float, card: float) -> float:
        decoding_s = getattr(load.decode_s, end) * share * core / prices.vcpus
        pictures = getattr(load.pictures, end) * share
        if rate_fps is None:
            return float(decoding_s + pictures * frame_s * core / prices.vcpus)
        return float(max(decoding_s, pictures / rate_fps * card))

    wall_s = START_S.plus(
        Estimate(
            busy_s("value", 1.0, 1.0),
            busy_s("low", CORE_RANGE[0], ACCELERATOR_RANGE[0]),
            busy_s("high", CORE_RANGE[1], ACCELERATOR_RANGE[1]),
        )
    )
    if rate_fps is not None:
        wall_s = wall_s.plus(ACCELERATOR_START_S)
    return Quote(prices, used, wall_s, wall_s.times(used * prices.worker_hour / 3600))
