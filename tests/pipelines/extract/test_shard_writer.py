"""pipelines/extract/shard_writer.py: parts, and two writers of one shard."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from framebank.features.cache import catalog, layout
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.cache.verify import verify_cache
from framebank.features.errors import JobError, SpecMismatchError
from framebank.features.stores import storage
from framebank.features.video import Extracted, Rejected, VideoRef
from framebank.pipelines.extract import shard_writer
from framebank.pipelines.extract.shard_writer import ShardWriter, keep_finished
from tests.made.made_cache import SPEC, make_extracted

RUN = "20260101T00-ab"
BAD = Rejected(VideoRef("bad.mp4", "/clips/bad.mp4", 7, "1"), "open", "corrupt", "bytes")


@pytest.fixture
def cache(tmp_path: Path) -> str:
    layout.write_spec(str(tmp_path / "c"), SPEC)
    return str(tmp_path / "c")


def writer(cache: str, run_id: str = RUN) -> ShardWriter:
    return ShardWriter(cache, "s", run_id=run_id, spec=SPEC)


def whole(cache: str, videos: Sequence[Extracted | Rejected]) -> bytes:
    """Return the bytes of a shard that is written at one go."""
    with writer(cache) as one:
        for video in videos:
            one.add(video)
        one.commit()
    return records(cache, "s")


def records(cache: str, shard: str) -> bytes:
    return storage.read_bytes(layout.tfrecord_path(cache, read_sidecar(cache, shard).file))


def clips(count: int) -> list[Extracted]:
    return [make_extracted(f"{number}.mp4", rows=number + 1) for number in range(count)]


def test_parts_are_taken_up_and_the_whole_has_the_bytes_of_one_go(
    cache: str, tmp_path: Path
) -> None:
    layout.write_spec(str(tmp_path / "other"), SPEC)
    expected = whole(str(tmp_path / "other"), [*clips(5), BAD])
    one, two, three, four, five = clips(5)
    with writer(cache) as first:
        first.add(three)
        first.add(BAD)
        assert first.keep() == ["done", "quarantined"] and first.keep() == []
        first.add(one)
        assert first.keep() == ["done"]
        first.add(two)  # and the worker dies
    assert layout.committed_shards(cache) == ["s.part0", "s.part1"]
    with writer(cache) as second:
        assert second.adopt_parts() == {"2.mp4", "bad.mp4", "0.mp4"}
        second.add(five)
        assert second.keep() == ["done"]
        for video in (four, two):
            second.add(video)
        assert second.commit() == ["done", "done"]
    assert layout.committed_shards(cache) == ["s", "s.part0", "s.part1", "s.part2"]
    assert records(cache, "s") == expected
    sidecar, undisturbed = read_sidecar(cache, "s"), read_sidecar(str(tmp_path / "other"), "s")
    assert sidecar.file == undisturbed.file and sidecar.quantisation == undisturbed.quantisation
    for row, other in zip(sidecar.rows, undisturbed.rows, strict=True):
        assert dataclasses.replace(row, time="") == dataclasses.replace(other, time="")


def test_what_another_run_or_a_damaged_part_holds_is_not_taken_up(cache: str) -> None:
    for run_id in ("20250101T00-ab", RUN):
        with writer(cache, run_id) as one:
            one.add(clips(2)[run_id == RUN])
            one.keep()
    with writer(cache) as one:
        assert one.adopt_parts() == {"1.mp4"}
    path = Path(layout.tfrecord_path(cache, read_sidecar(cache, "s.part1").file))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with writer(cache) as one:
        assert not one.adopt_parts()
        one.add(clips(1)[0])
        one.keep()
    assert layout.committed_shards(cache) == ["s.part0", "s.part1", "s.part2"]


def test_an_exception_costs_the_videos_in_hand_only(cache: str) -> None:
    with pytest.raises(ZeroDivisionError), writer(cache) as one:
        one.add(clips(1)[0])
        raise ZeroDivisionError
    assert layout.committed_shards(cache) == ["s.part0"]


def test_a_stop_keeps_what_is_finished_while_the_worker_goes_on(cache: str) -> None:
    videos, started, stop = clips(60), threading.Event(), threading.Event()

    def work() -> None:
        with writer(cache) as one:
            for video in videos:
                one.add(video)
                started.set()
                if stop.is_set():
                    return
            stop.wait(60)  # a shard that ends before the stop has nothing to keep

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    with shard_writer.COMMITTING:
        keep_finished()
        stop.set()
    thread.join()
    kept = [
        row for name in layout.committed_shards(cache) for row in read_sidecar(cache, name).rows
    ]
    assert len({row.video_id for row in kept}) == len(kept) > 0
    assert verify_cache(cache).faults == []


def test_of_two_attempts_the_first_to_commit_holds(cache: str) -> None:
    """A worker that was stopped wakes after another one is through, with another verdict."""
    late, quick = writer(cache), writer(cache, "20260101T01-cd")
    with late, quick:
        late.add(make_extracted("a.mp4", rows=2))
        late.add(BAD)
        quick.add(make_extracted("a.mp4", rows=2))
        quick.add(make_extracted("bad.mp4", rows=3))
        quick.commit()
        before = {file.path: file.generation for file in storage.iter_files(f"{cache}/shards")}
        late.commit()
    after = {file.path: file.generation for file in storage.iter_files(f"{cache}/shards")}
    assert after == before
    sidecar = read_sidecar(cache, "s")
    assert sidecar.run_id == "20260101T01-cd"
    catalog.write_catalog(cache, "20260101T01-cd", sidecar.rows)
    assert verify_cache(cache).faults == []


def test_nothing_is_committed_into_a_cache_of_another_spec_or_none(cache: str) -> None:
    with writer(cache) as one:
        one.add(clips(1)[0])
        storage.delete(layout.spec_path(cache))
        with pytest.raises(JobError, match="is gone"):
            one.commit()
        layout.write_spec(cache, dataclasses.replace(SPEC, sample="fps=9"))
        with pytest.raises(SpecMismatchError, match="fps=9"):
            one.commit()
    assert layout.committed_shards(cache) == []
