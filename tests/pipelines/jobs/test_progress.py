"""How far a job is, from workers' own counts, from committed shards and from files of answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from framebank.features.cache import layout
from framebank.features.errors import JobError
from framebank.pipelines.jobs import progress
from framebank.pipelines.jobs.progress import (
    AnsweredCounts,
    AnswerFiles,
    CommittedShards,
    CountsWriter,
    Pace,
    Seen,
    Stall,
    WorkerCounts,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    return now_s


def test_counts_of_all_workers_are_added(tmp_path: Path, clock: list[float]) -> None:
    source = WorkerCounts(str(tmp_path), total=8)
    assert source.look() == Seen(0, "0/8 videos, 0 frames, 0 quarantined", 0)
    writers = [CountsWriter(str(tmp_path)) for _ in range(2)]
    for writer, frames in zip(writers, (3, 4), strict=True):
        writer.counts.done, writer.counts.frames = 1, frames
        writer.write(now=True)
    (tmp_path / "half.json").write_text('{"done":')
    assert source.look() == Seen(2, "2/8 videos, 7 frames, 0 quarantined", 9)
    clock[0] += 10.0
    writers[0].counts.frames, writers[0].counts.unsafe = 38, 3
    writers[0].write(now=True)
    said = "2/8 videos, 3 more not safe yet, 42 frames, 3.5 frames/s, 0 quarantined"
    assert source.look() == Seen(2, said, 47)
    assert AnsweredCounts(str(tmp_path), total=9).look() == Seen(2, "2/9 questions", 2)


def test_the_time_left_does_not_count_the_start_up() -> None:
    """Half a minute of it made 14:30 out of 15 seconds."""
    pace = Pace()
    assert pace.left_s(0, 100, 0.0) is None
    assert pace.left_s(0, 100, 30.0) is None
    assert pace.left_s(4, 100, 32.0) is None  # the first of them: since when, nobody knows
    assert pace.left_s(8, 100, 33.0) is None  # a second of work tells little
    assert pace.left_s(5, 100, 60.0) is None  # and so does one video
    assert pace.left_s(52, 100, 44.0) == pytest.approx(12.0)
    assert pace.left_s(100, 100, 56.0) == 0.0


def test_a_job_that_stands_still_is_told_of_every_five_minutes() -> None:
    stall = Stall("look at X")
    said = [stall.note(work, now_s) for work, now_s in ((0, 0), (0, 299), (3, 300), (3, 599))]
    assert said == [None] * 4
    assert stall.note(3, 600) == "nothing has moved for 5 minutes: look at X"
    assert stall.note(3, 899) is None
    assert stall.note(3, 900) == "nothing has moved for 10 minutes: look at X"
    assert stall.note(4, 901) is None and stall.note(4, 1200) is None


def test_shards_of_this_run_are_counted_where_no_worker_tells(
    tmp_path: Path, clock: list[float]
) -> None:
    source = CommittedShards(str(tmp_path), videos={"a": 64, "b": 64, "c": 3})
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
    source = AnswerFiles(str(tmp_path), questions={"answers-0": 10, "answers-1": 7})
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
    source = CommittedShards(str(tmp_path), videos={"a": 1, "b": 1})
    for _ in range(100):
        assert source.look().done == 1
        clock[0] += 2.0
    assert len(listings) == 4  # each takes 3 s, so they begin 63 s apart


def test_lines_say_what_left_and_what_stands_still(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    looks = [(0, 130.0), (10, 140.0), (60, 165.0), (60, 165.0 + 301)]

    class Source:
        line_every_s, total, hint = 0.0, 100, "look at X"

        def look(self) -> Seen:
            done, clock[0] = looks.pop(0)
            return Seen(done, f"{done} of 100", done)

    class Stop:
        def wait(self, timeout: float) -> bool:
            return not looks

    progress._print_lines(Source(), "extract", Stop())  # type: ignore[arg-type]
    assert capsys.readouterr().err.splitlines() == [
        "extract: 0 of 100",
        "extract: 10 of 100",
        "extract: 60 of 100, about 0:20 left",
        "extract: 60 of 100, about 4:21 left",
        "extract: nothing has moved for 5 minutes: look at X",
    ]
