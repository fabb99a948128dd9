"""pipelines/extract/pipeline.py: what is gathered at the end of a run adds up, or the job fails."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.cache import layout
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import JobError
from framebank.features.network.weights import Weights
from framebank.features.stores import storage
from framebank.features.video import Rejected, VideoRef
from framebank.pipelines.extract.pipeline import FinishRun, read_plans
from framebank.pipelines.extract.plan import ExtractConfig, RunFacts, ShardPlan, write_plan
from framebank.pipelines.extract.shard import report_of
from framebank.pipelines.jobs.beam_options import WorkerError, find_marked
from tests.made.made_cache import SPEC, make_extracted, make_shard

RUN = "20261121T010000-ab12"
FACTS = RunFacts(
    inputs=3,
    already_done=0,
    already_quarantined=0,
    to_extract=3,
    shards_planned=2,
    recovered=0,
    skipped_by_suffix={},
    started="2026-11-21T01:00:00+00:00",
    weights_path=None,
    command="framebank extract",
    runner="DirectRunner",
)


@pytest.fixture
def config(tmp_path: Path) -> ExtractConfig:
    cache = str(tmp_path)
    bad = Rejected(VideoRef("bad.mp4", "/bad.mp4", 5, "1"), "open", "empty", "zero bytes")
    make_shard(cache, "s0", [make_extracted("a.mp4"), bad], run_id=RUN)
    make_shard(cache, "s1", [make_extracted("b.mp4", rows=2)], run_id=RUN)
    return ExtractConfig(cache, RUN, SPEC, Weights("random:0", "", "", seed=0), DecoderPolicy())


def lines(config: ExtractConfig, *shards: str) -> list[str]:
    found: list[str] = []
    for number, shard in enumerate(shards):
        sidecar = dataclasses.replace(
            read_sidecar(config.cache, shard), seconds=10.0 + number, host=f"h{number}"
        )
        found.append(json.dumps([0, "shard", report_of(sidecar)]))
        found += [json.dumps([0, "video", row.to_json()]) for row in sidecar.rows]
    return found


def finish(config: ExtractConfig, rows: list[str], **changes: Any) -> dict[str, Any]:
    plans = write_plan(config.cache, RUN, [])
    facts = dataclasses.replace(FACTS, **changes)
    (path,) = FinishRun([config], [facts], [plans]).process(("run", rows))
    return dict(json.loads(storage.read_bytes(path)))


def test_a_summary_holds_counts_and_the_slowest_shards(config: ExtractConfig) -> None:
    rows = lines(config, "s0", "s1")
    summary = finish(config, rows[::-1])
    assert (summary["done"], summary["quarantined"], summary["shards"]) == (2, 1, 2)
    assert summary["quarantined_by_class"] == {"empty": 1}
    assert [(s["shard"], s["host"], s["seconds"]) for s in summary["slowest_shards"]] == [
        ("s1", "h1", 11.0), ("s0", "h0", 10.0),
    ]  # fmt: skip
    assert summary["quantisation"]["values"] == sum(
        read_sidecar(config.cache, shard).quantisation.values for shard in ("s0", "s1")
    )
    assert finish(config, rows)["quantisation"] == summary["quantisation"]


def test_what_is_lost_or_comes_twice_fails_the_job(config: ExtractConfig) -> None:
    whole = lines(config, "s0", "s1")
    for rows in (
        lines(config, "s0"),
        lines(config, "s0", "s1", "s1"),
        lines(config, "s0", "s0"),
        whole[:-1],
        whole[1:],
        [*whole, whole[-1]],
    ):
        with pytest.raises(WorkerError) as caught:
            finish(config, rows)
        assert "do not add up" in str(find_marked(str(caught.value)))
        assert not storage.exists(layout.run_path(config.cache, RUN))


def test_too_many_bad_videos_are_judged_after_all_is_written(config: ExtractConfig) -> None:
    with pytest.raises(WorkerError) as caught:
        finish(config, lines(config, "s0", "s1"), max_bad_ratio=0.3)
    told = find_marked(str(caught.value))
    assert isinstance(told, JobError) and "1 of 3 (33%)" in str(told)
    assert storage.exists(layout.run_path(config.cache, RUN))
    assert finish(config, lines(config, "s0", "s1"), max_bad_ratio=0.4)["quarantined"] == 1


def test_a_plan_is_gone_only_when_its_run_has_ended(config: ExtractConfig) -> None:
    shards = [ShardPlan(f"p{n}", (VideoRef("a", "/a", n, "1"),), n) for n in range(3)]
    paths = [(0, path) for path in write_plan(config.cache, RUN, shards)]
    assert list(read_plans(("plan", paths), [config])) == [(shard,) for shard in shards]
    storage.delete(paths[0][1])
    with pytest.raises(WorkerError):
        list(read_plans(("plan", paths), [config]))
    finish(config, lines(config, "s0", "s1"))
    assert list(read_plans(("plan", paths), [config])) == []  # done again after the end
