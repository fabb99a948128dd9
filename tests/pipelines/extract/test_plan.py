"""Plans: what is dropped, how videos are dealt into shards, and what a shard is called."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.cache.known_videos import KnownVideos
from framebank.features.cache.sidecar import CatalogRow
from framebank.features.errors import JobError, UsageError
from framebank.features.video import VideoRef
from framebank.pipelines.extract.plan import (
    ShardPlan,
    check_bad_ratio,
    drop_done,
    plan_shards,
    read_plan,
    unaccepted_runs,
    write_plan,
)

PRINT = "f" * 32


def make_refs(count: int) -> list[VideoRef]:
    return [VideoRef(f"v{i}.mp4", f"/clips/v{i}.mp4", 100 + i, "7") for i in range(count)]


def row_of(ref: VideoRef, state: str = "done") -> CatalogRow:
    return CatalogRow(
        video_id=ref.video_id,
        uri=ref.uri,
        size_bytes=ref.size_bytes,
        generation=ref.generation,
        key=ref.key(PRINT),
        state=state,
        attempt=ref.attempt,
        run_id="1",
        time="",
        shard="s",
    )


def test_each_video_is_in_exactly_one_shard_whatever_the_order() -> None:
    refs = make_refs(100)
    one = plan_shards(refs, fingerprint=PRINT, videos_per_shard=32)
    other = plan_shards(refs[::-1], fingerprint=PRINT, videos_per_shard=32)
    assert one == other
    assert [len(plan.refs) for plan in one] == [32, 32, 32, 4]
    assert sorted(ref.video_id for plan in one for ref in plan.refs) == sorted(
        ref.video_id for ref in refs
    )
    assert len({plan.shard for plan in one}) == 4


def test_the_longest_videos_of_a_shard_are_begun_first() -> None:
    """The others fill up what time the decoders have left beside them."""
    refs = [dataclasses.replace(ref, size_bytes=size) for ref, size in
            zip(make_refs(4), (-1, 5 << 20, 1 << 20, 9 << 20), strict=True)]  # fmt: skip
    (plan,) = plan_shards(refs, fingerprint=PRINT, videos_per_shard=64)
    sizes = [ref.size_bytes >> 20 for ref in plan.longest_first]
    assert sizes == [9, 5, 1, -1]


def test_a_shard_ends_before_it_has_too_many_bytes_and_heavy_ones_come_first() -> None:
    refs = [VideoRef(f"v{i}", f"/v{i}", (i % 9) * 100 * 2**20, "1") for i in range(90)]
    refs += [VideoRef("huge", "/huge", 5 * 2**30, "1"), VideoRef("odd", "/odd", -1, "")]
    plans = plan_shards(refs, fingerprint=PRINT, videos_per_shard=20)
    assert plans == plan_shards(refs[::-1], fingerprint=PRINT, videos_per_shard=20)
    weights = [plan.video_bytes for plan in plans]
    assert weights[0] >= 5 * 2**30
    work_s = [plan.work_s for plan in plans]
    assert work_s == sorted(work_s, reverse=True)
    assert all(plan.video_bytes <= 2**30 for plan in plans[1:])
    assert sorted(ref.video_id for plan in plans for ref in plan.refs) == sorted(
        ref.video_id for ref in refs
    )
    # Dealt in turn, as Flink does: workers differ by one shard at most.
    loads = [sum(weights[1:][number::4]) for number in range(4)]
    assert max(loads) - min(loads) <= 2**30


def test_many_tiny_clips_weigh_more_than_one_that_has_their_bytes() -> None:
    """Opening each costs too: a shard of them is begun before one of fewer, larger clips."""
    tiny = [VideoRef(f"tiny{i}", f"/tiny{i}", 2**10, "1") for i in range(64)]
    large = [VideoRef("large", "/large", 8 * 2**20, "1")]
    work_s = {
        refs[0].video_id: plan_shards(refs, fingerprint=PRINT, videos_per_shard=64)[0].work_s
        for refs in (tiny, large)
    }
    assert work_s["tiny0"] > work_s["large"]


def test_shards_of_few_clips_are_about_half_a_minute_of_work() -> None:
    """Whatever is in a folder on a laptop, no shard of it is more than a share of the whole."""
    small = [VideoRef(f"v{i}", f"/v{i}", 2**19, "1") for i in range(55)]  # a clip and half a MiB
    plans = plan_shards(small, fingerprint=PRINT)
    assert [len(plan.refs) for plan in plans] == [20, 20, 15]
    long = [VideoRef(f"v{i}", f"/v{i}", 14 * 2**20, "1") for i in range(6)]
    assert [len(plan.refs) for plan in plan_shards(long, fingerprint=PRINT)] == [2, 2, 2]
    film = [VideoRef("film", "/film", 2**30, "1")]
    assert len(plan_shards(film, fingerprint=PRINT)) == 1
    many = [VideoRef(f"v{i}", f"/v{i}", 2**20, "1") for i in range(64_000)]
    plans = plan_shards(many, fingerprint=PRINT)
    assert {len(plan.refs) for plan in plans} == {64}
    assert len(plans) == 64_000 / 64


def test_a_shards_name_follows_from_videos_spec_and_attempt() -> None:
    refs = make_refs(3)
    (plan,) = plan_shards(refs, fingerprint=PRINT, videos_per_shard=8)
    (other_spec,) = plan_shards(refs, fingerprint="e" * 32, videos_per_shard=8)
    again = [dataclasses.replace(ref, attempt=2) for ref in refs]
    (retried,) = plan_shards(again, fingerprint=PRINT, videos_per_shard=8)
    assert len({plan.shard, other_spec.shard, retried.shard}) == 3


def test_drop_done_tells_new_changed_done_and_quarantined_apart() -> None:
    new, changed, done, bad = make_refs(4)
    catalog = KnownVideos.of([row_of(changed), row_of(done), row_of(bad, "quarantined")])
    changed = dataclasses.replace(changed, generation="8")
    refs = [new, changed, done, bad]
    todo = drop_done(refs, catalog, fingerprint=PRINT, retry_quarantined=False)
    assert todo.refs == (new, changed)
    assert (todo.already_done, todo.already_quarantined) == (1, 1)
    todo = drop_done(refs, catalog, fingerprint=PRINT, retry_quarantined=True)
    assert todo.refs == (new, changed, dataclasses.replace(bad, attempt=2))


def test_videos_of_a_lost_shard_are_done_again_in_another() -> None:
    refs = make_refs(3)
    catalog = KnownVideos.of(row_of(ref) for ref in refs)
    lost = {refs[1].video_id}
    todo = drop_done(refs, catalog, fingerprint=PRINT, retry_quarantined=False, lost=lost)
    assert [(ref.video_id, ref.attempt) for ref in todo.refs] == [(refs[1].video_id, 2)]
    assert todo.already_done == 2


def test_an_id_that_another_existing_file_has_in_the_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").touch()
    (ref,) = make_refs(1)
    held = dataclasses.replace(row_of(ref), uri=str(tmp_path / "old.mp4"), key="x")
    with pytest.raises(UsageError, match=r"two videos have the id 'v0\.mp4'"):
        drop_done([ref], KnownVideos.of([held]), fingerprint=PRINT, retry_quarantined=False)
    (tmp_path / "old.mp4").unlink()  # moved away: then it is the same video in a new place
    todo = drop_done([ref], KnownVideos.of([held]), fingerprint=PRINT, retry_quarantined=False)
    assert todo.refs == (ref,)


def test_plan_files_give_back_what_was_written(tmp_path: Path) -> None:
    odd = VideoRef("ü\udcff.mp4", "/clips/ü\udcff.mp4", -1, "", columns={"label": "a", "n": 3})
    shards = [ShardPlan(f"{i:04d}", (odd,)) for i in range(1001)]
    paths = write_plan(str(tmp_path), "run", shards)
    assert len(paths) == 2
    assert [plan for path in paths for plan in read_plan(path)] == shards


# Which quarantined videos count: those that no run has accepted


def summary(cache: Path, run_id: str, bad: int, inputs: int, **more: Any) -> None:
    fields = {"run_id": run_id, "quarantined": bad, "already_quarantined": 0, "inputs": inputs}
    (cache / "runs").mkdir(exist_ok=True)
    (cache / "runs" / f"{run_id}.json").write_text(json.dumps(fields | more))


def left(cache: Path, *, limit: float = 0.2, of: dict[str, int], **counts: int) -> Any:
    return unaccepted_runs(str(cache), of, limit=limit, whole=counts or of)


def test_what_a_run_accepted_counts_no_more(tmp_path: Path) -> None:
    assert left(tmp_path, of={}) == (0, [])
    summary(tmp_path, "good", 10, 100)
    summary(tmp_path, "bad", 30, 100)
    assert left(tmp_path, of={"good": 10}) == (0, [])  # a folder that holds only the bad ones
    assert left(tmp_path, of={"good": 3}) == (0, [])
    assert left(tmp_path, of={"bad": 30}) == (30, ["bad"])  # the same command again fails again
    assert left(tmp_path, of={"bad": 30}, limit=0.3) == (0, [])
    assert left(tmp_path, of={"good": 3, "bad": 2}, good=10, bad=30) == (2, [])


def test_a_run_with_a_limit_of_its_own_accepted_by_that(tmp_path: Path) -> None:
    summary(tmp_path, "lax", 30, 100, allowed_bad_ratio=0.5, unaccepted=5)
    summary(tmp_path, "worse", 30, 100, allowed_bad_ratio=0.3, unaccepted=5)
    assert left(tmp_path, of={"lax": 30}) == (0, [])
    assert left(tmp_path, of={"worse": 30}) == (30, ["worse"])


def test_a_run_that_never_ended_is_accepted_with_the_one_that_went_on(tmp_path: Path) -> None:
    assert left(tmp_path, of={"killed": 4}) == (4, ["killed"])
    summary(tmp_path, "next", 1, 100, unaccepted=4, judged_runs=["killed"])
    assert left(tmp_path, of={"killed": 4, "next": 1}) == (0, [])
    summary(tmp_path, "next", 1, 10, unaccepted=4, judged_runs=["killed"])  # which failed too
    assert left(tmp_path, of={"killed": 4, "next": 1}) == (5, ["killed", "next"])


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10_000, '{"run_id": "r", "inputs": null}'])
def test_a_summary_that_nobody_can_read_accepts_nothing(tmp_path: Path, text: str) -> None:
    summary(tmp_path, "r", 1, 100)
    (tmp_path / "runs" / "r.json").write_text(text)
    assert left(tmp_path, of={"r": 1}) == (1, ["r"])


def test_the_limit_itself_is_within_it() -> None:
    check_bad_ratio(20, 100, limit=0.2, cache="c")
    check_bad_ratio(0, 0, limit=0.0, cache="c")
    with pytest.raises(JobError, match=r"21 of 100 \(21%\)"):
        check_bad_ratio(21, 100, limit=0.2, cache="c")
