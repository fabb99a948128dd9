"""How far a job is, from workers' own counts, from committed shards and from files of answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from framebank.features.cache import layout
from framebank.features.errors import JobError
from framebank.features.progress import Seen
from framebank.pipelines.jobs import progress
from framebank.pipelines.jobs.progress import (
    AnsweredCounts,
    AnswerFiles,
    CommittedShards,
    CountsWriter,
    WorkerCounts,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    return now_s


def test_counts_of_all_workers_are_added(tmp_path: Path, clock: list[float]) -> None:
    source = WorkerCounts(str(tmp_path), total=8)
    assert source.look() == Seen(0, "0/8 videos, 0 frames, 0 quarantined", 0, 0)
    writers = [CountsWriter(str(tmp_path)) for _ in range(2)]
    for writer, frames in zip(writers, (3, 4), strict=True):
        writer.counts.done, writer.counts.frames = 1, frames
        writer.write(now=True)
    (tmp_path / "half.json").write_text('{"done":')
    assert source.look() == Seen(2, "2/8 videos, 7 frames, 0 quarantined", 9, 2)
    clock[0] += 10.0
    writers[0].counts.frames, writers[0].counts.unsafe = 38, 3
    writers[0].write(now=True)
    said = "2/8 videos, 3 more not saved yet, 42 frames, 3.5 frames/s, 0 quarantined"
    assert source.look() == Seen(2, said, 47, 5)
    for writer, clip, held_s in zip(
        writers, ("b.mp4", "c" * 60 + "\x1b.mp4"), (3, 65), strict=True
    ):
        writer.counts.clip, writer.counts.since_s = clip, time.time() - held_s
        writer.write(now=True)
    assert source.look().said == f"{said}, at …{'c' * 39}\\x1b.mp4 for 1 min 5 s"  # the longest
    assert AnsweredCounts(str(tmp_path), total=9).look() == Seen(2, "2/9 questions", 2)


def test_shards_of_this_run_are_counted_where_no_worker_tells(
    tmp_path: Path, clock: list[float]
) -> None:
    source = CommittedShards({str(tmp_path): {"a": 64, "b": 64, "c": 3}})
    assert source.look() == Seen(0, "0/3 shards committed, 0/131 videos", 0)
    (tmp_path / "shards").mkdir()
    for name in ("a", "c", "of-another-run"):
        Path(layout.sidecar_path(str(tmp_path), name)).touch()
    clock[0] += 9
    assert source.look().done == 0  # not looked at again yet
    clock[0] += 2
    assert source.look() == Seen(67, "2/3 shards committed, 67/131 videos", 3)


def test_files_of_answers_are_counted_where_no_worker_tells(
    tmp_path: Path, clock: list[float]
) -> None:
    source = AnswerFiles(str(tmp_path), {"answers-0": 10, "answers-1": 7})
    (tmp_path / "answers-1").touch()
    assert source.look() == Seen(7, "1/2 files, 7/17 questions answered", 1)


def test_a_slow_or_failing_listing_is_asked_for_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    listings = []

    def committed(cache: str) -> list[str]:
        clock[0] += 3.0
        listings.append(clock[0])
        if len(listings) == 2:
            raise JobError("the network is gone")
        return ["a"]

    monkeypatch.setattr(progress.layout, "committed_shards", committed)
    source = CommittedShards({str(tmp_path): {"a": 1, "b": 1}})
    for _ in range(100):
        assert source.look().done == 1
        clock[0] += 2.0
    assert len(listings) == 4  # each takes 3 s, so they begin 63 s apart
