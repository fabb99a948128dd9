"""The extraction job: plan files in, a catalog and the summary of a run out.

    Create ─► CheckWorkers ─► ReadPlan ─► SpreadShards ─► ExtractShard ─► GatherRows ─► FinishRun

Only names, rows and counts travel between steps: frames and features never leave ExtractShard.
Nothing follows it but the catalog, so no barrier stands between a feature and its file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import json
import operator
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import apache_beam as beam

from framebank import __version__
from framebank.features.cache import layout
from framebank.features.cache.catalog import catalogued_shards, write_catalog
from framebank.features.cache.record import QuantisationError
from framebank.features.cache.sidecar import CatalogRow, remove_shard, utc_now
from framebank.features.errors import JobError
from framebank.features.extraction.balance import Balance
from framebank.features.stores import json_text, storage
from framebank.pipelines.extract.groups import ShardGroup, read_groups
from framebank.pipelines.extract.plan import ExtractConfig, RunFacts, check_bad_ratio
from framebank.pipelines.extract.shard import ExtractShard
from framebank.pipelines.extract.shard_writer import COMMITTING
from framebank.pipelines.jobs.worker_faults import told_to_client, worker_check

_SLOWEST = 5  # shards that a summary names
# Shards that a worker extracts in one go: no other can take them from it.
_TOGETHER, _TOGETHER_ALONE = 4, 32


def build_pipeline(
    pipeline: beam.Pipeline,
    configs: Sequence[ExtractConfig],
    facts: Sequence[RunFacts],
    *,
    plan_paths: Sequence[Sequence[str]],
    hints: Mapping[str, str] = MappingProxyType({}),
    alone: bool = False,
) -> None:
    """Add the steps of the job to `pipeline`; the same on every runner.

    `configs`, `facts` and `plan_paths` are those of each cache that is filled. `hints` are Beam's
    resource hints for the step that decodes and infers. `alone`: one worker does everything, so it
    need not leave any shard to another.
    """
    work = ExtractShard(*configs, together=_TOGETHER_ALONE if alone else _TOGETHER)
    extract = beam.ParDo(work).with_resource_hints(**hints)
    numbered = [(number, path) for number, own in enumerate(plan_paths) for path in own]
    _ = (
        pipeline
        | "CreatePlanPaths" >> beam.Create(numbered, reshuffle=False)  # (number, str)
        | "CheckWorkers" >> beam.Map(worker_check())  # (number, str)
        # Not a Reshuffle: of two with nothing but ParDos between, Flink leaves out the second.
        | "KeyPlan" >> beam.WithKeys("plan")  # ("plan", (number, str))
        | "GatherPlan" >> beam.GroupByKey()  # ("plan", [(number, str)])
        | "ReadPlan" >> beam.FlatMap(read_plans, configs)  # ShardGroup
        | "SpreadShards" >> beam.Reshuffle()
        | "ExtractShard" >> extract  # (number, report (dict) or CatalogRow)
        | "KeyRows" >> beam.Map(_key_row)  # ("run", [number, kind, fields] as JSON)
        | "GatherRows" >> beam.GroupByKey()  # ("run", [[number, kind, fields] as JSON])
        | "FinishRun" >> beam.ParDo(FinishRun(configs, facts, plan_paths))
    )


def read_plans(
    keyed: tuple[str, Iterable[tuple[int, str]]], configs: Sequence[ExtractConfig]
) -> Iterator[ShardGroup]:
    """Yield the shards of all plan files, heaviest first, those of one decoding together.

    One reader, so that an engine which deals to its workers in turn deals evenly.
    """
    with told_to_client():
        try:
            paths: list[list[str]] = [[] for _ in configs]
            for number, path in keyed[1]:
                paths[number].append(path)
            yield from read_groups(paths)
        except storage.FileMissingError:
            # An engine may do a whole job again that had just ended, and removed its plan.
            if not storage.exists(layout.run_path(configs[-1].cache, configs[-1].run_id)):
                raise


def _key_row(numbered: tuple[int, dict[str, Any] | CatalogRow]) -> tuple[str, str]:
    # As JSON, which escapes what Beam's own coder cannot: file names that are no UTF-8.
    number, row = numbered
    kind, fields = ("video", row.to_json()) if isinstance(row, CatalogRow) else ("shard", row)
    return "run", json.dumps([number, kind, fields])


class FinishRun(beam.DoFn):  # type: ignore[misc]
    """Writes the catalog of a run, checks that every video is accounted for, then its summary; in
    each of its caches."""

    def __init__(
        self,
        configs: Sequence[ExtractConfig],
        facts: Sequence[RunFacts],
        plan_paths: Sequence[Sequence[str]],
    ) -> None:
        self._runs = list(zip(configs, facts, strict=True))
        self._plan_paths = plan_paths

    def process(self, element: tuple[str, Iterable[str]]) -> Iterator[str]:
        with told_to_client():
            with COMMITTING:
                paths = self._finish(element[1])
            yield from paths

    def _finish(self, lines: Iterable[str]) -> list[str]:
        paths, ended = [], []
        for number, (config, facts) in enumerate(self._runs):
            tally = Tally(number)
            written = write_catalog(config.cache, config.run_id, tally.take(lines))
            tally.check(facts, written=written)
            summary = summarise(config, facts, tally)
            paths.append(layout.run_path(config.cache, config.run_id))
            storage.write_atomic(paths[-1], json.dumps(summary, indent=2).encode() + b"\n")
            ended.append((config.cache, facts, tally, summary["quarantined"]))
        for cache, facts, _, quarantined in ended:
            if facts.max_bad_ratio is not None:  # nobody waits who would judge it
                bad, most = quarantined + facts.unaccepted, facts.max_bad_ratio
                check_bad_ratio(bad, facts.inputs, limit=most, cache=cache)
        for cache, _, tally, _ in ended:
            remove_parts(cache, tally)
        for path in itertools.chain(*self._plan_paths):  # last: a part done again needs them
            storage.delete(path)
        return paths


class Tally:
    """Counts what the shards of a run report, and their rows on their way into the catalog.

    Those of the cache with this number, of several that one run fills. Its memory grows with the
    shards, not with the videos.
    """

    def __init__(self, number: int) -> None:
        self._own = f"[{number},"  # how its lines begin
        self.states: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()  # by shard
        self.reports: dict[str, dict[str, Any]] = {}  # by shard, of `report_of`
        self.frames = self.bytes = self.partial = self.capped = self.repeated = 0
        self.sampled = 0

    def take(self, lines: Iterable[str]) -> Iterator[CatalogRow]:
        """Count what there is, and yield the rows."""
        for line in lines:
            if not line.startswith(self._own):
                continue
            _, kind, fields = json_text.parse(line)
            if kind == "shard":
                self.repeated += fields["shard"] in self.reports
                self.reports[fields["shard"]] = fields
            else:
                row = CatalogRow.from_json(fields)
                self.states[row.state] += 1
                self.rows[layout.shard_of(row.shard)] += 1
                self.frames += row.rows
                self.bytes += row.length
                self.partial += row.partial
                self.capped += row.capped
                self.sampled += row.checked == "sampled"
                if row.error_class:
                    self.classes[row.error_class] += 1
                yield row

    def check(self, facts: RunFacts, *, written: int) -> None:
        """Raise JobError unless every planned shard came once, with all of its rows.

        That a shard's rows are its videos, each once, was checked where it was made.
        """
        reported = {shard: report["videos"] for shard, report in self.reports.items()}
        whole = reported == dict(self.rows) and not self.repeated
        if not whole or written != facts.to_extract or len(self.reports) != facts.shards_planned:
            raise JobError(
                "the videos of this run do not add up",
                got=f"{written} rows of {len(self.rows)} shards in the catalog, "
                f"{len(self.reports)} shards reported and {self.repeated} of them twice",
                expected=f"{facts.to_extract} videos of {facts.shards_planned} shards, each once",
                todo="run `framebank verify CACHE`, and report this",
            )

    def quantisation(self) -> QuantisationError:
        """Return the error over all shards, added in one order whatever order they came in."""
        errors = (report["quantisation"] for _, report in sorted(self.reports.items()))
        return sum(map(QuantisationError.from_json, errors), QuantisationError())

    def balance(self) -> Balance:
        """Return what all workers did with their time."""
        kept = (report.get("balance", {}) for _, report in sorted(self.reports.items()))
        return sum(map(Balance.from_json, kept), Balance())

    def slowest(self) -> list[dict[str, Any]]:
        """Return the shards that took longest, for whoever looks for stragglers."""
        timed = [report for report in self.reports.values() if report["seconds"]]
        found = heapq.nlargest(_SLOWEST, timed, key=operator.itemgetter("seconds", "shard"))
        names = ("shard", "seconds", "host", "videos", "frames", "video_bytes")
        return [{name: report[name] for name in names} for report in found]


def remove_parts(cache: str, tally: Tally) -> None:
    """Remove what was kept of shards before they were whole.

    A part that a catalog has is of a run that went on where another one seemed dead: it stays.
    """
    kept = {
        layout.part_name(shard, number)
        for shard, report in tally.reports.items()
        for number in range(report["parts"])
    }
    if kept:
        catalogued = {layout.shard_of(name) for name in catalogued_shards(cache)}
        for name in sorted(kept - catalogued):
            remove_shard(cache, name)


def summarise(config: ExtractConfig, facts: RunFacts, tally: Tally) -> dict[str, Any]:
    """Return what `runs/<run>.json` holds."""
    balance = tally.balance()
    return {
        "run_id": config.run_id,
        "fingerprint": config.spec.fingerprint,
        "spec": config.spec.to_json(),
        "random_weights": config.spec.random_weights,
        "done": tally.states["done"],
        "quarantined": tally.states["quarantined"],
        "quarantined_by_class": dict(sorted(tally.classes.items())),
        "frames": tally.frames,
        "bytes": tally.bytes,
        "shards": len(tally.reports),
        "partial": tally.partial,
        "capped": tally.capped,
        "sampled": tally.sampled,
        "quantisation": dataclasses.asdict(tally.quantisation()),
        "balance": balance.to_json() | {"bound": balance.bound(), "line": balance.line()},
        "slowest_shards": tally.slowest(),
        **dataclasses.asdict(facts),
        "finished": utc_now(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what can change a feature, for the record."""
    from importlib import metadata

    names = ("apache-beam", "tensorflow", "tensorflow-cpu", "keras", "av", "numpy", "pyarrow")
    found = {"framebank": __version__, "python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
