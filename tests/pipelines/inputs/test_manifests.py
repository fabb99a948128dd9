"""pipelines/inputs/manifests.py: the three formats, and each fault by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.pipelines.inputs.manifests import read_manifest

pa = pytest.importorskip("pyarrow")


def _read(tmp_path: Path, name: str, content: str | bytes) -> list[tuple[str, str | None, Any]]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(row.uri, row.video_id, dict(row.columns)) for row in read_manifest(str(path))]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_csv(tmp_path: Path, delimiter: str) -> None:
    lines = ["uri,video_id,label", 'a.mp4,"id, or; ""not""\t",x', "", "ü.mp4,,"]
    text = "\ufeff" + "\r\n".join(lines)
    if delimiter != ",":
        text = text.replace("uri,video_id,label", delimiter.join(("uri", "video_id", "label")))
        text = text.replace('a.mp4,"', f'a.mp4{delimiter}"').replace('",x', f'"{delimiter}x')
        text = text.replace("ü.mp4,,", f"ü.mp4{delimiter}{delimiter}")
    assert _read(tmp_path, "m.CSV", text) == [
        ("a.mp4", 'id, or; "not"\t', {"label": "x"}),
        ("ü.mp4", None, {"label": ""}),
    ]


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {"uri": "a.mp4", "score": 1.5, "ok": True, "n": None, "tags": ["x", 1]},
        {"video_id": 7, "uri": "b\u2028.mp4"},
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    assert _read(tmp_path, "m.jsonl", text) == [
        ("a.mp4", None, {"score": 1.5, "ok": True, "n": None, "tags": '["x", 1]'}),
        ("b\u2028.mp4", "7", {}),
    ]


def test_parquet(tmp_path: Path) -> None:
    import datetime

    import pyarrow.parquet as pq

    day = datetime.date(2026, 11, 21)
    columns = {"uri": ["a", "b"], "n": [1, None], "day": [day, None], "raw": [b"\xff", b""]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    rows = list(read_manifest(str(tmp_path / "m.parquet")))
    assert [dict(row.columns) for row in rows] == [
        {"n": 1, "day": "2026-11-21", "raw": "ff"}, {"n": None, "day": None, "raw": ""},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.csv", "video,label\na,b\n", "a column 'uri'"),
        ("m.csv", "", "a column 'uri'"),
        ("m.csv", "uri,x,x\na,b,c\n", "column 'x' twice"),
        ("m.jsonl", '{"uri": "a", "uri": "b"}\n', "column 'uri' twice"),
        ("m.csv", "uri,key,state\na,b,c\n", "column 'key', 'state', which the catalog has"),
        ("m.csv", "uri,x\na,b\nc\n", "line 3"),
        ("m.csv", "uri,x\na,b,c\n", "line 2"),
        ("m.csv", "uri\n\n\n\"\"\n", "line 4"),
        ("m.csv", 'uri\n"a\n', "line 2"),
        ("m.csv", b"uri\na\n\xff\xfe\n", "line 3"),
        ("m.csv", "uri\na\0b\n", "line 2"),
        ("m.jsonl", '{"uri": "a"}\n{"uri": \n', "line 2"),
        ("m.jsonl", '["a"]', "line 1"),
        ("m.jsonl", '{"url": "a"}', "a column 'uri'"),
        ("m.jsonl", '{"uri": "a"}\n{"uri": "b", "shard": 1}', "column 'shard'"),
        ("m.jsonl", '{"uri": 7}', "uri 7"),
        ("m.jsonl", '{"uri": "a\\u0000"}', "line 1"),
        ("m.jsonl", '{"uri": "a\\ud800"}', "no Unicode text"),
        ("m.jsonl", '{"uri": "a", "video_id": [1]}', "video_id"),
        ("m.jsonl", "[" * 100_000, "line 1"),
        ("m.parquet", b"PAR1 not", "a Parquet file"),
        ("m.parquet", b"", "a Parquet file"),
    ],
)  # fmt: skip
def test_each_fault_is_named(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, name, content)
    assert words in str(caught.value) and name in str(caught.value)


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    assert _read(tmp_path, "m.csv", ",uri\n0,a\n") == [("a", None, {"column_0": "0"})]
