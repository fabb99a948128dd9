"""features/cache/layout.py: names, spec.json, leftovers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from framebank.features.cache import layout
from framebank.features.errors import CacheError, UsageError
from tests.made.made_cache import SPEC, make_cache


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".a", "a\n", "a" * 201, 7, None])
def test_no_name_leads_out_of_the_cache(name: object) -> None:
    with pytest.raises(CacheError):
        layout.check_name(name)


def test_spec_is_read_back_and_not_written_twice(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    assert layout.read_spec(cache) is None
    assert layout.write_spec(cache, SPEC)
    assert not layout.write_spec(cache, dataclasses.replace(SPEC, sample="fps=2"))
    assert layout.read_spec(cache) == SPEC


def test_a_damaged_spec_is_named(tmp_path: Path) -> None:
    cache = str(tmp_path)
    layout.write_spec(cache, SPEC)
    path = tmp_path / "spec.json"
    good = json.loads(path.read_bytes())
    for text in ("", "{", "[]", "{}", "null", json.dumps(good | {"sample": "fps=2"})):
        path.write_text(text)
        with pytest.raises(CacheError, match=r"spec\.json"):
            layout.read_spec(cache)
    del good["fingerprint"]
    newer = json.dumps(good | {"colour": "blue"}, sort_keys=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(newer.encode()).hexdigest()[:32]
    path.write_text(json.dumps(json.loads(newer) | {"fingerprint": fingerprint}))
    with pytest.raises(UsageError, match="another version"):
        layout.read_spec(cache)


def test_leftovers_are_found_and_nothing_else(tmp_path: Path) -> None:
    make_cache(str(tmp_path))
    assert layout.committed_shards(str(tmp_path)) == ["r1-0", "r1-1", "r2-0"]
    assert layout.find_leftovers(str(tmp_path)) == []
    left = [
        "shards/.x.tfrecord.77-0123abcd.tmp", "catalog/.r.parquet.1-00000000.tmp",
        ".spec.json.12-aaaaaaaa.tmp", "shards/r9-9.tfrecord",
    ]  # fmt: skip
    for name in left:
        (tmp_path / name).write_bytes(b"half")
    found = layout.find_leftovers(str(tmp_path))
    assert sorted(found) == sorted(str(tmp_path / name) for name in left)
