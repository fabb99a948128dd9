"""The words of `--where`, and the columns they are about."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from framebank.features.browsing.columns import VideoTable
from framebank.features.browsing.conditions import select_rows
from framebank.features.cache.reader import open_cache
from framebank.features.errors import UsageError


@pytest.fixture(scope="module")
def table(looked_into: str) -> VideoTable:
    brought = {
        "score": pa.array([0.5, None, math.nan, 2.0, 1.0, None, 3.0, 4.0, 5.0]),
        "good": pa.array([True, False, None, True, True, False, None, True, True]),
        "a=b": pa.array(["x y", "z", "", None, "X", "ü", "Ü", "q", "q"]),
        "big": pa.array([2**53, 2**53 + 1, 0, 0, 0, 0, 0, 0, 0]),
        "nothing": pa.nulls(9),
    }
    catalogued = open_cache(looked_into).table()
    for name, column in brought.items():
        catalogued = catalogued.append_column(name, column)
    return VideoTable(catalogued)


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ([], range(9)),
        (["status=quarantined"], [4, 8]),
        (["state != done"], [4, 8]),  # the catalog's own name
        (["frames>=4", "label=odd"], [1, 5, 7]),
        (["video_id~A3"], [5]),
        (["folder=day"], [0, 1, 2, 5, 6]),
        (["label="], [4, 8]),  # no value
        (["label!="], [0, 1, 2, 3, 5, 6, 7]),
        (["score>1"], [3, 6, 7, 8]),
        (["score="], [1, 5]),
        (["score!=2"], [0, 1, 2, 4, 5, 6, 7, 8]),
        (["score<=-1e3"], []),
        (["good=true"], [0, 3, 4, 7, 8]),
        (["good!=yes"], [1, 2, 5, 6]),
        (["a=b=x y"], [0]),  # the column's own name has an operator in it
        (["a=b~x"], [0, 4]),
        (["a=b~ü"], [5, 6]),
        (["big=9007199254740993"], [1]),
        (["big==9007199254740992"], [0]),
        (["nothing="], range(9)),
        (["width = 64"], [0, 1, 2, 3, 5, 6, 7]),
        (["time<2026-11-22", "manifest.status=mine"], [7]),
        (["video_id=\udcff"], []),
    ],
)
def test_conditions(table: VideoTable, words: list[str], rows: list[int]) -> None:
    assert select_rows(table, words).tolist() == list(rows)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("durations>1", "did you mean duration_s"),
        ("nix>1", "no column 'nix'"),
        ("label", "COLUMN OPERATOR VALUE"),
        (">3", "COLUMN OPERATOR VALUE"),
        ("frames>many", "a number"),
        ("frames>nan", "a number"),
        ("frames~4", "which is for text"),
        ("good>true", "= or != true or false"),
        ("good=maybe", "= or != true or false"),
        ("evil\x1b[31m=3", r"x1b\[31m"),
    ],
)
def test_what_is_no_condition_is_told(table: VideoTable, words: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        select_rows(table, [words])


def test_columns_and_their_kinds(table: VideoTable) -> None:
    assert table.names[:5] == ["video_id", "status", "duration_s", "frames", "folder"]
    described = {one["name"]: one for one in table.described()}
    assert described["label"] == {"name": "label", "type": "text", "values": ["even", "odd"]}
    assert described["score"]["type"] == "number" and described["score"]["values"] is None
    assert described["good"]["type"] == "bool"
    assert "label" in table.colours()[:3]  # what was brought comes first
    assert {"video_id", "status"}.isdisjoint(table.colours())


def test_rows_are_json_and_sorted_with_those_without_a_value_last(table: VideoTable) -> None:
    everything = np.arange(9)
    order = table.ordered(everything, "score", descending=True)
    scores = [row["score"] for row in table.rows(order)]
    assert scores[:6] == [5.0, 4.0, 3.0, 2.0, 1.0, 0.5] and scores[6:] == [None, None, None]
    assert table.ordered(everything, None, descending=True).tolist() == list(range(8, -1, -1))
    with pytest.raises(UsageError, match="did you mean"):
        table.ordered(everything, "scor", descending=False)


def test_groups(table: VideoTable) -> None:
    names, numbers = table.grouped("label", np.arange(9), most=2)
    assert sorted(names[:2]) == ["even", "odd"] and names[2] == "other"
    assert numbers.count(2) == 2 and len(numbers) == 9


def test_an_empty_catalog() -> None:
    from framebank.features.cache.catalog import fixed_schema

    table = VideoTable(fixed_schema().empty_table())
    assert select_rows(table, ["frames>1"]).tolist() == [] and table.find("a") is None
    assert table.rows(np.arange(0)) == [] and table.colours() == []
