"""How far a job is, from workers' own counts and from committed shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from features import layout, progress
from features.errors import JobError
from features.progress import CommittedShards, CountsWriter, WorkerCounts


def test_counts_of_all_workers_are_added(tmp_path: Path) -> None:
    for frames in (3, 4):
        writer = CountsWriter(str(tmp_path))
        writer.counts.done, writer.counts.frames = 1, frames
        writer.write(now=True)
    (tmp_path / "half.json").write_text('{"done":')
    videos, said = WorkerCounts(str(tmp_path), total=8).look(2.0)
    assert videos == 2
    assert said == "2/8 videos, 7 frames, 3.5 frames/s, 0 quarantined, about 0:06 left"


def test_what_is_finished_and_not_committed_does_not_count_as_done() -> None:
    counts = progress.Counts(done=38, quarantined=2, frames=90, unsafe=5)
    said = progress.describe(counts, videos=55, elapsed_s=9.0)
    assert said.startswith("40/55 videos, 5 more not safe yet, 90 frames, ")


def test_shards_of_this_run_are_counted_where_no_worker_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    source = CommittedShards(str(tmp_path), videos={"a": 64, "b": 64, "c": 3})
    assert source.look(0.0) == (0, "0/3 shards committed, 0/131 videos")
    (tmp_path / "shards").mkdir()
    for name in ("a", "c", "of-another-run"):
        Path(layout.sidecar_path(str(tmp_path), name)).touch()
    clock[0] += 9
    assert source.look(9.0)[0] == 0  # not looked at again yet
    clock[0] += 2
    assert source.look(60.0) == (67, "2/3 shards committed, 67/131 videos, about 0:57 left")


def test_a_slow_or_failing_listing_is_asked_for_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, listings = [0.0], []

    def committed(cache: str) -> list[str]:
        clock[0] += 3.0
        listings.append(clock[0])
        if len(listings) == 2:
            raise JobError("the network is gone")
        return ["a"]

    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress.layout, "committed_shards", committed)
    source = CommittedShards(str(tmp_path), videos={"a": 1, "b": 1})
    for _ in range(100):
        assert source.look(clock[0])[0] == 1
        clock[0] += 2.0
    assert len(listings) == 4  # each takes 3 s, so they begin 63 s apart


def test_no_folder_is_no_trouble(tmp_path: Path) -> None:
    CountsWriter(None).write(now=True)
    CountsWriter(str(tmp_path / "gone")).write(now=True)
    assert WorkerCounts(str(tmp_path / "gone"), total=3).look(1.0)[0] == 0
