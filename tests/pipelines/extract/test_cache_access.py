"""What a run says and removes of the runs before it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from framebank.features.cache import catalog, layout
from framebank.features.cache.verify import verify_cache
from framebank.features.stores import storage
from framebank.pipelines.extract.cache_access import (
    computed_in,
    open_for_extraction,
    recover,
    remove_leftovers,
    remove_lost_shards,
)
from tests.made.made_cache import SPEC, make_cache, make_extracted, make_shard
from tests.servers.bucket_servers import environment, serve


def test_a_run_that_has_not_ended_is_named_and_its_plan_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve("gcp-storage-emulator", tmp_path) as server, environment(**server.environment):
        cache = f"{server.bucket}/cache"
        live, ended = "20260102T030405000000-ab12", "20260101T030405000000-cd34"
        for run_id in (live, ended):
            storage.write_atomic(f"{cache}/runs/{run_id}.plan-00000.jsonl", b"{}\n")
        storage.write_atomic(f"{cache}/runs/{ended}.json", b"{}")
        assert remove_leftovers(cache) == 1
        assert storage.exists(f"{cache}/runs/{live}.plan-00000.jsonl")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert live in said[0] and "2026-01-02 03:04:05 UTC" in said[0]


def committed(cache: str, shard: str, *names: str, run_id: str, **changes: Any) -> None:
    """Commit a shard of these videos, made with SPEC but for `changes`."""
    spec = dataclasses.replace(SPEC, **changes)
    make_shard(cache, shard, [make_extracted(name) for name in names], run_id=run_id, spec=spec)


def test_shards_in_no_catalog_are_kept_where_they_have_videos_that_no_other_has(
    tmp_path: Path,
) -> None:
    cache = str(tmp_path / "cache")
    make_cache(cache)  # a.mp4 and b.mp4 of a run of November 2026, b.mp4 of a later one too
    old, new = "20250101-0100", "20270101-0100"
    committed(cache, "late", "a.mp4", "b.mp4", run_id=old)  # of one that was thought to be dead
    committed(cache, "some", "a.mp4", "x.mp4", run_id=old)
    committed(cache, "whole", "y.mp4", "z.mp4", run_id=new)
    committed(cache, "whole.part0", "y.mp4", run_id=new)
    committed(cache, "begun.part0", "w.mp4", run_id=new)
    committed(cache, "strange", "v.mp4", run_id=new, sample="fps=7")
    committed(cache, "cut", "u.mp4", run_id=new)
    Path(layout.tfrecord_path(cache, "cut")).write_bytes(b"")
    committed(cache, "broken", "t.mp4", run_id=new)
    Path(layout.sidecar_path(cache, "broken")).write_bytes(b"{")
    before = recover(cache, SPEC, dry_run=True)
    found = recover(cache, SPEC)
    ids = found.known.values("video_id")
    assert sorted(ids) == sorted(before.known.values("video_id"))
    assert (found.videos, found.shards) == (before.videos, before.shards) == (4, 3)
    shard_of = dict(zip(ids, found.known.values("shard"), strict=True))
    assert {name: shard_of[name] for name in ("a.mp4", "x.mp4", "y.mp4", "w.mp4")} == {
        "a.mp4": "r1-0", "x.mp4": "some", "y.mp4": "whole", "w.mp4": "begun.part0",
    }  # fmt: skip
    assert sorted(what.split(":")[0] for what in found.removed) == [
        f"shard {name}" for name in ("broken", "cut", "late", "strange", "whole.part0")
    ]
    left = layout.committed_shards(cache)
    assert left == ["begun.part0", "r1-0", "r1-1", "r2-0", "some", "whole"]
    assert remove_leftovers(cache) == 1  # the records of the broken sidecar
    assert verify_cache(cache).faults == [] and recover(cache, SPEC).removed == ()


def test_a_damaged_shard_stays_as_long_as_it_has_a_video_that_was_not_made_anew(
    tmp_path: Path,
) -> None:
    cache = str(tmp_path / "cache")
    make_cache(cache)
    Path(layout.tfrecord_path(cache, "r1-1")).unlink()
    before = recover(cache, SPEC)
    assert before.lost == {"c/ü.mp4", "d.mp4"}
    for run_id, name, left in (("20270101-01", "c/ü.mp4", ["r1-1"]), ("20270101-02", "d.mp4", [])):
        rows = make_shard(cache, run_id, [make_extracted(name)], run_id=run_id)
        catalog.write_catalog(cache, run_id, rows)
        assert remove_lost_shards(cache, before) == left
        assert bool(verify_cache(cache).faults) == bool(left)
    assert layout.damaged_shards(cache) == frozenset()


def test_the_precision_of_a_cache_is_known_as_long_as_its_shards_are(tmp_path: Path) -> None:
    cache, none = str(tmp_path / "cache"), str(tmp_path / "none")
    assert computed_in(none, SPEC) is None
    rough = dataclasses.replace(SPEC, precision="bfloat16")
    layout.write_spec(cache, rough)
    committed(cache, "some", "a.mp4", run_id="20250101-0100", precision="bfloat16")
    assert computed_in(cache, SPEC) == rough
    Path(layout.spec_path(cache)).write_bytes(b"{")
    assert computed_in(cache, SPEC) == rough
    assert computed_in(cache, dataclasses.replace(SPEC, sample="fps=7")) is None
    with open_for_extraction(cache, rough):
        assert layout.read_spec(cache) == rough
