"""features/cache/catalog.py: what is written is read back, and the newest row holds."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framebank
from framebank.features.cache import catalog
from framebank.features.cache.sidecar import COLUMN_NAMES, CatalogRow
from framebank.features.errors import CacheError
from framebank.features.video import catalog_text
from tests.made.made_cache import make_cache, make_extracted, make_shard

ROW = CatalogRow(
    video_id="a", uri="/a", size_bytes=1, generation="1", key="k", state="done", attempt=1,
    run_id="r1", time="t", shard="s", record=0, offset=0, length=10, rows=2, partial=True,
    source_rate_fps=29.97,
)  # fmt: skip


def _row(video_id: str, run_id: str = "r1", **fields: object) -> CatalogRow:
    return dataclasses.replace(ROW, video_id=video_id, run_id=run_id, **fields)  # type: ignore[arg-type]


def test_rows_are_read_back_with_the_manifests_columns(tmp_path: Path) -> None:
    rows = [
        _row("a", columns={"label": "x", "score": 1, "ok": True}),
        _row("b", columns={"label": 3, "score": 0.5}),
        _row("c", columns={}),
        _row("ü\n", uri="/caf\udce9", columns={"label": None, "big": 2**70}),
    ]
    assert catalog.write_catalog(str(tmp_path), "r1", iter(rows)) == 4
    file = pq.read_table(tmp_path / "catalog/r1.parquet")
    assert file.column_names == [*COLUMN_NAMES, "label", "score", "ok", "big"]
    assert [str(file.schema.field(n).type) for n in ("label", "score", "ok", "big")] == [
        "string", "double", "bool", "string",
    ]  # fmt: skip
    found = list(catalog.catalog_rows(catalog.read_catalog(str(tmp_path))))
    assert [row.columns for row in found] == [
        {"label": "x", "score": 1.0, "ok": True}, {"label": "3", "score": 0.5}, {},
        {"big": str(2**70)},
    ]  # fmt: skip
    assert found[3].uri == "/caf\\xe9" == catalog_text(rows[3].uri)
    assert dataclasses.replace(found[0], columns={}) == dataclasses.replace(rows[0], columns={})


def test_a_columns_type_is_known_only_after_the_last_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_BATCH_ROWS", 2)
    values: list[object] = [None, None, 1, 2, 2.5, 3, "text", None, True]
    rows = (_row(str(n), columns={"v": value}) for n, value in enumerate(values))
    catalog.write_catalog(str(tmp_path), "r1", rows)
    found = catalog.read_catalog(str(tmp_path), columns=["v"]).column("v").to_pylist()
    assert found[:2] == [None, None] and found[6:] == ["text", None, "true"]
    assert [float(value) for value in found[2:6]] == [1, 2, 2.5, 3]


def test_the_newest_run_holds_whatever_the_order(tmp_path: Path) -> None:
    runs = {
        "r1": [_row("a", "r1"), _row("b", "r1")],
        "r2": [_row("b", "r2", state="quarantined"), _row("c", "r2", columns={"more": "x"})],
        "r3": [_row("c", "r1"), _row("a", "r3", time="1"), _row("a", "r3", time="2", rows=9)],
    }
    for number, order in enumerate(itertools.permutations(runs)):
        cache = str(tmp_path / str(number))
        for name, run in zip(order, runs, strict=True):  # names of files do not matter, run ids do
            catalog.write_catalog(cache, name, runs[run])
        newest = {row.video_id: row for row in catalog.catalog_rows(catalog.read_catalog(cache))}
        assert {video_id: row.run_id for video_id, row in newest.items()} == {
            "a": "r3", "b": "r2", "c": "r2",
        }  # fmt: skip
        assert newest["a"].rows == 9 and newest["b"].state == "quarantined"
    catalog.write_catalog(cache, "0", [_row("b", "r9", columns={"more": 3}), _row("d", "r9")])
    ids = catalog.read_catalog(cache, columns=["state", "more"])
    assert dict(zip(*(ids.column(n).to_pylist() for n in ("video_id", "run_id")), strict=True)) == {
        "a": "r3", "b": "r9", "c": "r2", "d": "r9",
    }  # fmt: skip


def test_an_empty_cache_has_no_rows(tmp_path: Path) -> None:
    assert len(catalog.read_catalog(str(tmp_path))) == 0
    assert catalog.write_catalog(str(tmp_path), "r1", []) == 0
    assert len(catalog.read_catalog(str(tmp_path), columns=["state"])) == 0
    assert catalog.orphan_shards(str(tmp_path)) == []


def test_orphans_are_shards_of_a_run_that_died_before_its_catalog(tmp_path: Path) -> None:
    make_cache(str(tmp_path))
    make_shard(str(tmp_path), "r3-0", [make_extracted("e.mp4")], run_id="20261121-0300")
    assert catalog.orphan_shards(str(tmp_path)) == ["r3-0"]
    assert catalog.catalogued_shards(str(tmp_path)) == {"r1-0", "r1-1", "r2-0"}


def test_a_damaged_catalog_is_named(tmp_path: Path) -> None:
    catalog.write_catalog(str(tmp_path), "r1", [ROW])
    path = tmp_path / "catalog/r1.parquet"
    whole = path.read_bytes()
    for data in (b"", b"not parquet", whole[:-20], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(CacheError, match=r"r1\.parquet"):
            catalog.read_catalog(str(tmp_path))
    path.write_bytes(whole)
    pq.write_table(catalog.read_catalog(str(tmp_path)).drop_columns(["shard"]), path)
    with pytest.raises(CacheError, match="no column shard"):
        catalog.read_catalog(str(tmp_path))


def test_text_that_is_unicode_stays_as_it_is() -> None:
    assert catalog_text("ünï \\ \n") == "ünï \\ \n"
    assert catalog_text("a\udcff") == "a\\xff"
    assert catalog_text("a\ud800") == "a\\ud800"


def test_the_newest_of_many_rows_is_found_quickly() -> None:
    ids = [f"v{n % 40_000:06}" for n in range(100_000)]
    runs = [f"r{n // 40_000}" for n in range(100_000)]
    columns = {"video_id": ids, "run_id": runs, "time": [""] * len(ids), "place": range(len(ids))}
    newest = catalog.newest_rows(pa.table(columns)).column("place").to_numpy()
    assert len(newest) == 40_000
    assert newest[0] == 60_000 and newest[-1] == 99_999 and (np.diff(newest) > 0).all()


@pytest.mark.parametrize("name", ["video_id", "rows", "partial", "source_rate_fps", "shard"])
@pytest.mark.parametrize("kind", ["null", "other", "list", "bytes", "below", "no text"])
def test_a_catalog_with_values_that_no_run_writes_is_damaged(
    tmp_path: Path, name: str, kind: str
) -> None:
    cache = str(tmp_path)
    make_cache(cache)
    path = catalog.catalog_files(cache)[0]
    table = pq.read_table(path)
    count, field = len(table), table.schema.field(name)
    wrong = {
        "null": pa.nulls(count, field.type),
        "other": pa.array([7] * count) if name != "rows" else pa.array(["7"] * count),
        "list": pa.array([[1]] * count),
        "bytes": pa.array([b"\xff"] * count),
        "below": pa.array([-5] * count),
        "no text": pa.StringArray.from_buffers(count, *pa.array([b"\xff"] * count).buffers()[1:]),
    }[kind]
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, name, wrong), path)
    with pytest.raises(CacheError, match=f"the catalog {path} cannot be read"):
        catalog.read_catalog(cache)
    assert framebank.main(["verify", cache]) == 1
    assert framebank.main(["inspect", cache]) in (0, 1)  # which reads not every column
