"""The extraction job: plan files in, a catalog and the summary of a run out.

    Create ─► ReadPlan ─► SpreadShards ─► ExtractShard ─► GatherRows ─► FinishRun

Only names, rows and counts travel between steps: frames and features never leave ExtractShard.
Nothing follows it but the catalog, so no barrier stands between a feature and its file.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from features import __version__, layout, storage
from features.catalog import write_catalog
from features.errors import FramebankError, JobError
from features.record import QuantisationError
from features.sidecar import CatalogRow, read_sidecar
from pipelines.beam_options import mark_for_client
from pipelines.plan import read_plan
from pipelines.shard import ExtractConfig, ExtractShard, committing


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What the submitter knows of a run and its summary repeats."""

    inputs: int
    already_done: int
    already_quarantined: int
    to_extract: int
    recovered: int  # videos of shards that an interrupted run had committed without a catalog
    skipped_by_suffix: dict[str, int]
    started: str  # UTC, ISO 8601
    weights_path: str | None
    command: str
    runner: str


def build_pipeline(
    pipeline: beam.Pipeline, config: ExtractConfig, facts: RunFacts, *, plan_paths: list[str]
) -> None:
    """Add the steps of the job to `pipeline`; the same on every runner."""
    _ = (
        pipeline
        | "CreatePlanPaths" >> beam.Create(plan_paths)  # str
        | "ReadPlan" >> beam.FlatMap(read_plan)  # ShardPlan
        | "SpreadShards" >> beam.Reshuffle()
        | "ExtractShard" >> beam.ParDo(ExtractShard(config, Shared()))  # CatalogRow
        | "KeyRows" >> beam.Map(_key_row)  # ("run", row as JSON)
        | "GatherRows" >> beam.GroupByKey()  # ("run", [row as JSON])
        | "FinishRun" >> beam.ParDo(FinishRun(config, facts, plan_paths))
    )


def _key_row(row: CatalogRow) -> tuple[str, str]:
    # As JSON, which escapes what Beam's own coder cannot: file names that are no UTF-8.
    return "run", json.dumps(row.to_json())


class FinishRun(beam.DoFn):  # type: ignore[misc]
    """Writes the catalog of a run, checks that every video is accounted for, then its summary."""

    def __init__(self, config: ExtractConfig, facts: RunFacts, plan_paths: list[str]) -> None:
        self._config, self._facts, self._plan_paths = config, facts, plan_paths

    def process(self, element: tuple[str, Iterable[str]]) -> Iterator[str]:
        try:
            with committing():
                path = self._finish(element[1])
            yield path
        except FramebankError as error:
            raise mark_for_client(error) from error
        except OSError as error:  # of the temporary folder: storage explains its own
            fault = storage.storage_error(tempfile.tempdir or "/tmp", error, "use")
            raise mark_for_client(fault) from error

    def _finish(self, lines: Iterable[str]) -> str:
        cache, run_id = self._config.cache, self._config.run_id
        tally = _Tally()
        rows = (CatalogRow.from_json(json.loads(line)) for line in lines)
        written = write_catalog(cache, run_id, map(tally.count, rows))
        if written != self._facts.to_extract or len(tally.video_ids) != written:
            raise JobError(
                "the videos of this run do not add up",
                got=f"{written} rows for {len(tally.video_ids)} videos in the catalog",
                expected=f"{self._facts.to_extract} videos, each once",
                todo="run `framebank verify CACHE`, and report this",
            )
        summary = summarise(self._config, self._facts, tally)
        for path in self._plan_paths:
            storage.delete(path)
        path = layout.run_path(cache, run_id)
        storage.write_atomic(path, json.dumps(summary, indent=2).encode() + b"\n")
        return path


class _Tally:
    """Counts rows on their way into the catalog."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.shards: set[str] = set()
        self.video_ids: set[str] = set()
        self.frames = self.bytes = self.partial = self.capped = 0

    def count(self, row: CatalogRow) -> CatalogRow:
        self.states[row.state] += 1
        self.video_ids.add(row.video_id)
        self.shards.add(row.shard)
        self.frames += row.rows
        self.bytes += row.length
        self.partial += row.partial
        self.capped += row.capped
        if row.error_class:
            self.classes[row.error_class] += 1
        return row


def summarise(config: ExtractConfig, facts: RunFacts, tally: _Tally) -> dict[str, Any]:
    """Return what `runs/<run>.json` holds."""
    error = QuantisationError()
    for shard in sorted(tally.shards):
        error = error + read_sidecar(config.cache, shard).quantisation
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
        "shards": len(tally.shards),
        "partial": tally.partial,
        "capped": tally.capped,
        "quantisation": error.to_json(),
        **dataclasses.asdict(facts),
        "finished": _now(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what can change a feature, for the record."""
    from importlib import metadata

    names = ("apache-beam", "tensorflow", "tensorflow-cpu", "keras", "av", "numpy", "pyarrow")
    found = {"framebank": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _now() -> str:
    import datetime

    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
