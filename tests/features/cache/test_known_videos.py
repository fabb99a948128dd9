"""features/cache/known_videos.py: what is known of which video, by columns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from framebank.features.cache import catalog
from framebank.features.cache.known_videos import KnownVideos
from framebank.features.cache.sidecar import CatalogRow
from framebank.features.errors import CacheError


def _row(video_id: str, run_id: str, **more: object) -> CatalogRow:
    row = CatalogRow(video_id, f"/{video_id}", 1, "1", f"key of {video_id}", "done", 1, run_id, "",
                     f"{run_id}-0", length=10)  # fmt: skip
    return dataclasses.replace(row, **more)  # type: ignore[arg-type]


def test_the_newest_row_of_each_is_found_by_its_id(tmp_path: Path) -> None:
    cache = str(tmp_path)
    assert len(KnownVideos.read(cache)) == 0
    catalog.write_catalog(cache, "r1", [_row("a", "r1"), _row("ü\n", "r1", state="quarantined")])
    catalog.write_catalog(cache, "r2", [_row("b", "r2"), _row("a", "r2", attempt=2, offset=7)])
    known = KnownVideos.read(cache)
    places = known.find(["ü\n", "none", "a", "a"])
    assert len(known) == 3 and places[1] == -1 and places[2] == places[3]
    assert known.values("attempt", places[[0, 2]]) == [1, 2]
    assert known.numbers("offset")[places[2]] == 7
    assert known.has_keys(places[[0, 2]], ["key of ü\n", "another"]).tolist() == [True, False]
    assert known.latest_run() == "r2"
    assert known.quarantined_by_run() == {"r1": 1}
    assert known.quarantined_by_run(places[2:]) == {"r2": 2}
    assert known.is_text("state", "nothing").sum() == 0
    assert sorted(known.texts("shard")) == ["r1-0", "r2-0"]


def test_rows_that_come_on_top_hold_where_they_are_newer() -> None:
    known = KnownVideos.of([_row("a", "r2"), _row("b", "r2")])
    known = known.with_rows([_row("a", "r3", shard="new"), _row("b", "r1"), _row("\udcff", "r1")])
    shards = dict(zip(known.values("video_id"), known.values("shard"), strict=True))
    assert shards == {"a": "new", "b": "r2-0", "\\xff": "r1-0"}


def test_nothing_is_known_of_an_empty_catalog() -> None:
    known = KnownVideos.of([])
    assert known.find(["a"]).tolist() == [-1]
    assert known.find([]).tolist() == [] and known.values("video_id", np.empty(0, np.int64)) == []
    assert known.latest_run() == "" and known.quarantined_by_run() == {}


def test_damage_in_a_column_that_nobody_asks_for_here_is_seen_too(tmp_path: Path) -> None:
    catalog.write_catalog(str(tmp_path), "r1", [_row("a", "r1", message="see this " * 100)])
    (path,) = catalog.catalog_files(str(tmp_path))
    data = bytearray(Path(path).read_bytes())
    data[data.index(b"see this ") + 1] ^= 1
    Path(path).write_bytes(data)
    with pytest.raises(CacheError, match="cannot be read"):
        KnownVideos.read(str(tmp_path))
