"""features/cache/sidecar.py: rows and sidecars come back as they were."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.cache import layout, sidecar
from framebank.features.errors import CacheError
from framebank.features.stores import storage
from framebank.features.video import Rejected, VideoRef
from tests.made.made_cache import SPEC, make_extracted, make_shard

RUN = "20261121-0100"


def test_a_sidecar_is_read_back(tmp_path: Path) -> None:
    cache = str(tmp_path)
    strange = dataclasses.replace(
        make_extracted("a.mp4"),
        ref=VideoRef("id", "/clips/caf\udce9.mp4", 3, "9", columns={"n": 1, "x": None, "t": "ü"}),
    )
    rejected = Rejected(VideoRef("b", "/b", 0, "1", attempt=3), "open", "empty", "zero bytes")
    rows = make_shard(cache, "s", [strange, rejected], run_id=RUN)
    found = sidecar.read_sidecar(cache, "s")
    assert list(found.rows) == rows
    assert found.rows[0].columns == {"n": 1, "x": None, "t": "ü"}
    assert found.rows[0].uri == "/clips/caf\udce9.mp4"
    assert (found.rows[1].state, found.rows[1].record, found.rows[1].attempt) == (
        "quarantined", -1, 3,
    )  # fmt: skip
    assert found.fingerprint == SPEC.fingerprint
    assert found.tfrecord_bytes == (tmp_path / "shards/s.tfrecord").stat().st_size
    assert found.quantisation.values == 24


def test_a_damaged_sidecar_is_named(tmp_path: Path) -> None:
    cache = str(tmp_path)
    make_shard(cache, "s", [make_extracted("a.mp4")], run_id=RUN)
    path = layout.sidecar_path(cache, "s")
    good = json.loads(storage.read_bytes(path))
    row = good["rows"][0]
    wrongs: tuple[dict[str, Any], ...] = (
        {"shard": "t"}, {"run_id": "../x"}, {"tfrecord_bytes": "many"}, {"rows": [{}]},
        {"rows": [row | {"more": 1}]}, {"rows": [row | {"state": "odd"}]}, {"quantisation": None},
    )  # fmt: skip
    for wrong in wrongs:
        storage.write_atomic(path, json.dumps(good | wrong).encode())
        with pytest.raises(CacheError):
            sidecar.read_sidecar(cache, "s")
    storage.write_atomic(path, b'{"shard": "s"')
    with pytest.raises(CacheError, match="is damaged"):
        sidecar.read_sidecar(cache, "s")
    with pytest.raises(storage.FileMissingError):
        sidecar.read_sidecar(cache, "absent")


def test_a_sidecar_from_before_seconds_and_hosts_is_read(tmp_path: Path) -> None:
    make_shard(str(tmp_path), "s", [make_extracted("a.mp4")], run_id=RUN)
    path = Path(layout.sidecar_path(str(tmp_path), "s"))
    fields = json.loads(path.read_text())
    for name in ("seconds", "host", "sha256"):
        del fields[name]
    del fields["rows"][0]["checked"]
    path.write_text(json.dumps(fields | {"sha256": sidecar.checksum(fields)}))
    found = sidecar.read_sidecar(str(tmp_path), "s")
    assert (found.seconds, found.host, len(found.rows)) == (0.0, "", 1)
    assert found.rows[0].checked == ""
