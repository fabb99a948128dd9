"""features/cache/verify.py: a sound cache is sound, and each kind of damage is named."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.cache import catalog, layout, sidecar
from framebank.features.cache.verify import verify_cache
from framebank.features.errors import UsageError
from framebank.features.stores import storage
from tests.made.made_cache import SPEC, make_cache, make_extracted, make_shard


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    make_cache(str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_sound_cache_is_sound(cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = verify_cache(str(cache), progress=lambda done, total: calls.append((done, total)))
    assert (report.faults, report.remarks) == ([], [])
    assert (report.shards, report.records, report.frames) == (3, 5, 17)
    assert report.size_bytes == sum(f.stat().st_size for f in cache.glob("shards/*.tfrecord"))
    assert report.feature_dim == 8
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_what_a_killed_run_left_is_a_remark(cache: Path) -> None:
    (cache / "shards/r9-0.tfrecord").write_bytes(b"half")
    make_shard(str(cache), "r3-0", [make_extracted("e.mp4")], run_id="20261121-0300")
    report = verify_cache(str(cache))
    assert report.faults == [] and len(report.remarks) == 2
    assert "r3-0 is committed but in no catalog" in report.remarks[0]
    assert "r9-0.tfrecord" in report.remarks[1]
    for path in cache.glob("catalog/*"):
        path.unlink()
    assert verify_cache(str(cache)).faults == []


def test_every_byte_of_every_file_counts(cache: Path) -> None:
    """Flip one byte at a time, all over the cache: each flip is a fault that names its file."""
    for path in sorted(cache.rglob("*")):
        if path.is_dir():
            continue
        good = path.read_bytes()
        # A sidecar's `time` or a catalog's padding means nothing to a reader; shards are all meant.
        step = 37 if path.suffix == ".tfrecord" else len(good)
        for place in range(5, len(good), step):
            data = bytearray(good)
            data[place] ^= 1
            path.write_bytes(data)
            faults = verify_cache(str(cache)).faults
            if path.suffix == ".tfrecord":
                assert any(path.name in fault for fault in faults), (path, place)
        path.write_bytes(good)
    assert verify_cache(str(cache)).faults == []


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    fields = json.loads(path.read_bytes())
    change(fields)
    if fields.pop("sha256", None):  # a sidecar: made so on purpose, not by a flipped bit
        fields["sha256"] = sidecar.checksum(fields)
    path.write_text(json.dumps(fields))


def test_faults_of_a_shards_bytes(cache: Path) -> None:
    shard = cache / "shards/r1-1.tfrecord"
    good = shard.read_bytes()
    shard.write_bytes(good + good[:600])
    faults = " ".join(verify_cache(str(cache)).faults)
    assert "600 bytes at the end are of no video" in faults and "SHA-256" in faults
    shard.write_bytes(good[:-1])
    faults = " ".join(verify_cache(str(cache)).faults)
    assert "'d.mp4'" in faults and f"it has {len(good) - 1} bytes" in faults
    shard.unlink()
    assert any(
        "r1-1.tfrecord is missing, with 2 videos" in f for f in verify_cache(str(cache)).faults
    )


def test_one_damaged_record_does_not_hide_the_others(cache: Path) -> None:
    shard = cache / "shards/r1-1.tfrecord"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1  # the length of the first record
    data[-50] ^= 1
    shard.write_bytes(data)
    faults = verify_cache(str(cache)).faults
    assert len(faults) == 3
    assert "'c/ü.mp4'" in faults[0] and "'d.mp4'" in faults[1] and "SHA-256" in faults[2]


def test_faults_of_a_sidecar(cache: Path) -> None:
    path = cache / "shards/r1-0.index.json"
    good = path.read_bytes()

    def faults(change: Callable[[Any], None]) -> str:
        path.write_bytes(good)
        _edit(path, change)
        return "\n".join(verify_cache(str(cache)).faults)

    assert "made with another spec" in faults(lambda f: f.update(fingerprint="0" * 32))
    assert "its place (byte 7" in faults(lambda f: f["rows"][1].update(offset=7))
    assert "offset is" in faults(lambda f: f["rows"][1].update(offset=7))
    assert "not in its sidecar" in faults(lambda f: f["rows"].pop(0))
    assert "bytes before byte" in faults(lambda f: f["rows"].pop(0))
    assert "two rows of one video" in faults(lambda f: f["rows"].append(f["rows"][2]))
    assert "is in its sidecar, not in the catalog" in faults(
        lambda f: f["rows"].append(f["rows"][2] | {"video_id": "new"})
    )
    assert "key is" in faults(lambda f: f["rows"][0].update(key="1" * 32))
    assert "not the one" in faults(lambda f: f["rows"][0].update(key="1" * 32))
    assert "its sidecar says 3" in faults(lambda f: f["rows"][0].update(decode_errors=3))
    path.write_bytes(good.replace(b'"attempt": 1', b'"attempt": 3', 1))
    assert any("its checksum does not hold" in f for f in verify_cache(str(cache)).faults)
    path.write_bytes(good[:100])
    assert any("r1-0.index.json is damaged" in f for f in verify_cache(str(cache)).faults)
    path.unlink()
    report = verify_cache(str(cache))
    assert any("shard r1-0" in f and "it has no sidecar" in f for f in report.faults)


def test_faults_of_a_catalog_and_of_the_spec(cache: Path) -> None:
    name = "20261121-0100"
    rows = list(
        catalog.catalog_rows(catalog.read_file(str(cache / f"catalog/{name}.parquet"), None))
    )
    wrong = [dataclasses.replace(rows[0], length=5), *rows[1:], rows[1]]
    catalog.write_catalog(str(cache), name, wrong)
    faults = "\n".join(verify_cache(str(cache)).faults)
    assert "length is 5 in the catalog" in faults and "'b.mp4' has 2 rows of run" in faults
    storage.write_atomic(str(cache / f"catalog/{name}.parquet"), b"PAR1")
    assert any(f"{name}.parquet cannot be read" in f for f in verify_cache(str(cache)).faults)
    catalog.write_catalog(str(cache), name, rows)
    spec = (cache / "spec.json").read_bytes()
    (cache / "spec.json").unlink()
    assert "spec.json is missing" in verify_cache(str(cache)).faults[0]
    (cache / "spec.json").write_bytes(spec)
    _edit(cache / "spec.json", lambda fields: fields.update(sample="fps=2"))
    assert any("changed by hand" in fault for fault in verify_cache(str(cache)).faults)


def test_values_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that were written wrong, with all checksums right."""
    cache = str(tmp_path)
    layout.write_spec(cache, SPEC)
    back = dataclasses.replace(make_extracted("back.mp4"), pts_ms=np.array([0, 2000, 1000]))
    videos = [make_extracted("a.mp4"), back, make_extracted("wide.mp4", width=9)]
    rows = make_shard(cache, "s", videos, run_id="r")
    other = dataclasses.replace(SPEC, dtype="float32")
    rows += make_shard(cache, "t", [make_extracted("b.mp4")], run_id="r", spec=other)
    catalog.write_catalog(cache, "r", rows)
    faults = "\n".join(verify_cache(cache).faults)
    assert "'back.mp4': pts_ms does not ascend" in faults
    assert "'wide.mp4': 9 features wide, others are 8" in faults
    assert "'b.mp4': dtype float32, the spec says float16" in faults


def test_a_run_summary_must_be_json(cache: Path) -> None:
    storage.write_atomic(str(cache / "runs/20261121-0100.json"), b"{}")
    assert verify_cache(str(cache)).faults == []
    storage.write_atomic(str(cache / "runs/20261121-0200.json"), b"{")
    assert "20261121-0200.json is no JSON" in verify_cache(str(cache)).faults[0]


def test_no_cache_at_all_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cache"):
        verify_cache(str(tmp_path / "absent"))


def test_a_pipe_in_the_place_of_a_file_is_a_fault_and_is_not_waited_for(cache: Path) -> None:
    places = [*cache.glob("shards/*"), *cache.glob("catalog/*"), cache / "spec.json"]
    for path in [*places, cache / "shards/x.tfrecord", cache / "shards/x.index.json"]:
        data = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        assert any("pipe" in fault for fault in verify_cache(str(cache)).faults), path
        path.unlink()
        if data is not None:
            path.write_bytes(data)
    assert verify_cache(str(cache)).faults == []
