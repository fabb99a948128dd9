"""A plan for people and for programs: a table of two columns, or one JSON document."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from framebank.features import terminal
from framebank.features.spec import FeatureSpec
from framebank.pipelines.extract.plan import Todo
from framebank.pipelines.forecast import prices
from framebank.pipelines.forecast.estimate import Estimate
from framebank.pipelines.forecast.measuring import Load, Measured
from framebank.pipelines.forecast.survey import Outlook

# What a video costs in a cache besides its features (record, sidecar, catalog), measured.
_VIDEO_BYTES = 1900
_ROW_BYTES = 6  # a timestamp and a number
# Of a value of a frame: clips of films and of drawings had 0.2 to 0.3 as JPEG.
_PICTURE_BYTES = {"jpeg": 0.25, "png": 0.7}
_ITEM_BYTES = {"float16": 2, "float32": 4, "uint8": 1, **_PICTURE_BYTES}


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is printed, and what it is made from.

    `here_s` is the wall time of the whole command on this machine, `quote` what Dataflow takes for
    it; None where nothing was measured, or no price of a worker is known. `specs` and `widths` are
    those of each cache that is filled.
    """

    inputs: int
    todo: Todo
    outlook: Outlook
    specs: Sequence[FeatureSpec]
    widths: Sequence[int]
    load: Load
    measured: Measured | None
    here_s: Estimate | None
    quote: prices.Quote | None
    priced: bool
    workers: int | None
    command: Sequence[str]
    notes: tuple[str, ...]

    @property
    def cache_bytes(self) -> Estimate:
        """Return what this run adds to the cache, or to all of them."""
        total, each, row_bytes = self.outlook.forecast.total, 0, 0.0
        for spec, width in zip(self.specs, self.widths, strict=True):
            each += _VIDEO_BYTES + (8 * width if spec.dtype == "uint8" else 0)
            row_bytes += (_ITEM_BYTES[spec.dtype] * width + _ROW_BYTES) / spec.clip_stride
        features = total("rows").times(row_bytes)
        return features.plus(each * (total("done").value + self.outlook.quarantined.value))


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print the plan on stdout."""
    if as_json:
        print(json.dumps(to_json(plan), indent=2))
        return
    lines = list(rows(plan))
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        for name, text in lines:
            grid.add_row(f"[bold]{name}[/bold]", escape(terminal.printable(text)))
        Console(file=terminal.bare(sys.stdout)).print(grid)
    else:
        for name, text in lines:
            print(f"{name:14}{text}".rstrip())
    print(f"\n{shlex.join(plan.command)}")


def rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the lines of the table as (name, text)."""
    outlook, todo, total = plan.outlook, plan.todo, plan.outlook.forecast.total
    there = f"{todo.already_done:,} done, {todo.already_quarantined:,} in quarantine"
    yield "videos", f"{plan.inputs:,} listed: {there}, {outlook.left:,} left to do"
    if not outlook.left:
        yield "", "nothing to do"
        return
    quarantined = outlook.quarantined
    if quarantined.high:
        yield "quarantine", f"{_number(quarantined)} of those left{_classes(outlook)}"
    hours = _number(total("duration_s").times(1 / 3600), digits=2)
    yield "video", f"{hours} hours, {_number(total('frames'))} frames in it"
    yield "frames", f"{_number(total('rows'))} with {plan.specs[0].sample}"
    more = _between(plan.cache_bytes, terminal.size_text)
    several = f" of {len(plan.specs)} caches" if len(plan.specs) > 1 else ""
    yield "cache", f"{more} more, in {plan.load.shards:,} shards{several}"
    if outlook.decoding is not None:
        decoding = outlook.decoding
        yield (
            "decoding",
            (
                f"{decoding.whole_s:,.0f} s of a core for an hour of video, "
                f"{decoding.sampled_s:,.0f} s with --check sampled"
            ),
        )
    yield from _time_rows(plan)
    for number, note in enumerate(notes(plan)):
        yield "" if number else "to know", note


def _time_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    here_s, quote, measured = plan.here_s, plan.quote, plan.measured
    if here_s is None or measured is None:
        yield "time", "not measured" + ", and so no price" * plan.priced
        return
    network = f"{measured.frame_s * 1000:.0f} ms of a core for a frame"
    decoding = f"{plan.load.decode_s.value:,.0f} s for decoding"
    here = f"{_between(here_s, _clock)} on {measured.cores} cores"
    yield "time here", f"{here}: {network}, {decoding}"
    if quote is not None:
        there = f"{quote.workers:,} workers of {quote.prices.vcpus} vCPUs"
        yield "on Dataflow", f"{_between(quote.wall_s, _clock)} on {there}"
        money = _between(quote.price, lambda value: f"{value:,.2f}")
        hourly = f"{quote.prices.worker_hour:.3f} a worker and hour"
        yield "price", f"{money} {quote.prices.currency} ({hourly})"


def notes(plan: Plan) -> Iterator[str]:
    """Yield what to know of these numbers: how sure they are and what they leave out."""
    outlook, forecast = plan.outlook, plan.outlook.forecast
    if not outlook.left:
        yield from plan.notes
        return
    known = f", {outlook.known:,} of them by the listing alone" if outlook.known else ""
    seen = f"{forecast.probed + outlook.known:,} of {outlook.left:,} clips were looked into{known}"
    if forecast.exact:
        parts = f", and {outlook.timed:,} of them were decoded in part" if outlook.timed else ""
        yield f"{seen}: numbers are what their packets say{parts}"
    else:
        yield f"{seen}; ranges are 95 % intervals of that sample"
    if forecast.probed < outlook.drawn:
        yield f"{outlook.drawn - forecast.probed} more were to be, and the time was up"
    if outlook.too_large:
        yield f"{outlook.too_large:,} large objects of the bucket are judged by their size alone"
    if not plan.measured or outlook.timed < forecast.clips:
        yield "left out: damage that only decoding finds, and clips that change before the run"
    if plan.measured is not None:
        yield from _time_notes(plan, plan.measured)
    yield from plan.notes


def _time_notes(plan: Plan, measured: Measured) -> Iterator[str]:
    yield (
        f"time here: measured just now on {measured.frames} frames, while the machine did other "
        f"work on {max(0.0, measured.alone - measured.busy):.1f} cores; the low end is without that"
    )
    if not plan.priced:
        return
    low, high = prices.CORE_RANGE
    told = "" if plan.workers else f"{prices.WORKERS} workers are assumed (--max_num_workers); "
    yield (
        f"Dataflow: {told}a vCPU there is taken for a core here, {low} to {high} times its time; "
        f"{prices.START_S.low / 60:.1f} to {prices.START_S.high / 60:.0f} minutes to start; "
        "not tried here"
    )
    yield "the price is that of workers alone, without storage and traffic"


def to_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as one JSON document; seconds, bytes, and intervals as value, low, high."""
    outlook, forecast = plan.outlook, plan.outlook.forecast
    return {
        "videos": {
            "listed": plan.inputs,
            "done": plan.todo.already_done,
            "quarantined": plan.todo.already_quarantined,
            "left": outlook.left,
            "missing": outlook.missing,
            "empty": outlook.empty,
            **({"unlisted": outlook.unlisted} if outlook.unlisted else {}),
        },
        "sample": {
            "clips": forecast.clips,
            "probed": forecast.probed,
            "complete": forecast.exact,
            "timed": outlook.timed,
            "too_large": outlook.too_large,
            "quarantined_by_class": dict(forecast.classes),
        },
        "forecast": {name: dataclasses.asdict(e) for name, e in forecast.totals.items()},
        "cache_bytes": dataclasses.asdict(plan.cache_bytes),
        "decoding_of_an_hour": outlook.decoding and dataclasses.asdict(outlook.decoding),
        "shards": plan.load.shards,
        **_told_specs(plan.specs),
        "here": None
        if plan.here_s is None or plan.measured is None
        else {"wall_s": dataclasses.asdict(plan.here_s), **dataclasses.asdict(plan.measured)},
        "dataflow": plan.quote and dataclasses.asdict(plan.quote),
        "notes": list(notes(plan)),
        "command": shlex.join(plan.command),
    }


def _told_specs(specs: Sequence[FeatureSpec]) -> dict[str, Any]:
    told = [spec.to_json() for spec in specs]
    return {"spec": told[0]} if len(told) == 1 else {"specs": told}


def _classes(outlook: Outlook) -> str:
    found = Counter(outlook.forecast.classes)
    found.update(missing=outlook.missing, empty=outlook.empty, unreadable=outlook.unlisted)
    told = ", ".join(f"{count} {name}" for name, count in sorted(found.items()) if count)
    return f" (seen: {told})" if told else ""


def _between(estimate: Estimate, show: Any) -> str:
    """Return "value (low to high)", without the range where it says nothing."""
    value, low, high = show(estimate.value), show(estimate.low), show(estimate.high)
    return value if low == high == value else f"{value} ({low} to {high})"


def _number(estimate: Estimate, *, digits: int = 0) -> str:
    return _between(estimate, lambda value: f"{value:,.{digits}f}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
