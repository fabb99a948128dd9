"""What is read from shards for the questions about them, and what a broken shard costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.cache import catalog, layout, record
from framebank.features.cache.reader import open_cache
from framebank.features.questions.question import Question
from framebank.features.stores import storage
from framebank.pipelines.score.answering import Example, neighbours, read_examples, read_run
from framebank.pipelines.score.plan import RecordPlan, plan_scoring
from tests.made.made_cache import SPEC, make_cache, make_extracted, make_shard

IDS = ("a.mp4", "b.mp4", "c.mp4", "d.mp4")


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """A cache of one shard with the videos IDS."""
    path = str(tmp_path / "cache")
    layout.write_spec(path, SPEC)
    videos = [make_extracted(name, rows=2) for name in IDS]
    catalog.write_catalog(path, "r1", make_shard(path, "r1-0", videos, run_id="r1"))
    return path


def _plans(cache: str, ids: tuple[str, ...] = IDS) -> list[RecordPlan]:
    questions = [Question(str(number), name, "what?") for number, name in enumerate(ids)]
    return plan_scoring(questions, open_cache(cache), per_file=100).files[0].records


def _read(cache: str, plans: list[RecordPlan]) -> list[dict[str, Any] | Example]:
    """Return the rows of what failed, and the others as examples."""
    items = read_examples(cache, plans)
    return [item if isinstance(item, Example) else item[1] for item in items]


def test_neighbouring_records_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "cache")
    make_cache(path)
    plans = _plans(path, ("a.mp4", "c/ü.mp4", "d.mp4", "d.mp4"))
    reads: list[int] = []
    read_range = storage.read_range

    def counted(path: str, start: int, length: int) -> bytes:
        reads.append(length)
        return read_range(path, start, length)

    monkeypatch.setattr(storage, "read_range", counted)
    of_shard = [one for one in plans if one.place.shard == "r1-1"]
    (run,) = neighbours(of_shard)
    frames = read_run(layout.tfrecord_path(path, "r1-1"), run)
    assert len(of_shard) == 2 and len(reads) == 1
    assert [len(frame) for frame in frames] == [one.place.length for one in run]


def test_a_missing_shard_fails_its_questions_and_names_itself(cache: str) -> None:
    plans = _plans(cache, (*IDS, "b.mp4"))
    path = layout.tfrecord_path(cache, "r1-0")
    Path(path).unlink()
    rows = _read(cache, plans)
    assert len(rows) == len(IDS) + 1
    for row in rows:
        assert isinstance(row, dict)
        assert (row["status"], row["reason"]) == ("failed", f"the shard {path} is missing")


@pytest.mark.parametrize("left", [0, 1, 0.5, 1.5, 3.99])
def test_a_shard_cut_short_fails_what_is_not_in_it(cache: str, left: float) -> None:
    plans = _plans(cache)
    path = Path(layout.tfrecord_path(cache, "r1-0"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) / 4 * left)])
    found = _read(cache, plans)
    assert [isinstance(one, Example) for one in found] == [place < int(left) for place in range(4)]
    for one in found[int(left) :]:
        assert isinstance(one, dict) and one["status"] == "failed"
        assert str(path) in one["reason"] and "damaged shard" in one["reason"]


def test_a_shard_that_cannot_be_opened_fails_its_questions(cache: str) -> None:
    plans = _plans(cache)
    path = Path(layout.tfrecord_path(cache, "r1-0"))
    path.unlink()
    path.mkdir()
    for row in _read(cache, plans):
        assert isinstance(row, dict) and row["status"] == "failed"
        assert str(path) in row["reason"] and "folder" in row["reason"]


def test_a_cache_that_is_not_on_the_worker_fails_the_job(cache: str, tmp_path: Path) -> None:
    plans = _plans(cache)
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    with pytest.raises(storage.FileMissingError, match="r1-0"):
        _read(cache, plans)


@pytest.mark.parametrize("bad", ["not finite", "no frames"])
def test_features_that_no_writer_of_ours_makes_fail_their_own_questions(
    cache: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = record.decode_record

    def decoded(data: bytes, *, where: str) -> record.FeatureRecord:
        found = decode(data, where=where)
        if found.video_id != "b.mp4":
            return found
        rows = found.features if bad == "not finite" else found.features[:0]
        return dataclasses.replace(found, features=rows * np.float16("nan"))

    plans = _plans(cache)
    monkeypatch.setattr(record, "decode_record", decoded)
    found = _read(cache, plans)
    assert [isinstance(one, Example) for one in found] == [True, False, True, True]
    row = found[1]
    assert isinstance(row, dict) and row["status"] == "failed" and "record 1" in row["reason"]
