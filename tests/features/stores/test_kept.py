"""features/stores/kept.py: what was kept comes back whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from framebank.features.stores import kept


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "framebank" / "kept"


def test_what_was_kept_comes_back() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.empty(0, np.uint8),
              "c": np.array(7, "<i8"), "d": np.arange(5, dtype=np.uint8)[::2]}  # fmt: skip
    key = kept.key_of("graph", ("inception_v3", 8))
    assert kept.load(key) is None
    kept.keep(key, {"names": ["x", "ü"]}, arrays)
    found = kept.load(key)
    assert found is not None
    about, back = found
    assert about == {"names": ["x", "ü"]} and back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)
    assert kept.load(kept.key_of("graph", ("inception_v3", 9))) is None


def test_a_key_follows_from_its_parts_and_from_the_sources(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("one")
    keys = {kept.key_of("x"), kept.key_of("x", "y"), kept.key_of("x", sources=[source])}
    source.write_text("two")
    assert len(keys | {kept.key_of("x", sources=[source])}) == 4


@pytest.mark.parametrize("fault", ["cut", "changed", "others", "shared folder", "link"])
def test_what_cannot_be_trusted_is_not_taken(home: Path, fault: str) -> None:
    kept.keep("k", 1, {"a": np.ones(1000)})
    (entry,) = home.iterdir()
    data = bytearray(entry.read_bytes())
    if fault == "cut":
        os.truncate(entry, len(data) - 1)
    elif fault == "changed":
        data[-1] ^= 1
        entry.write_bytes(data)
    elif fault == "others":
        entry.chmod(0o666)
    elif fault == "shared folder":
        home.chmod(0o777)
        entry.unlink()
        kept.keep("k", 1, {"a": np.ones(1000)})  # and nothing is written there
        assert not list(home.iterdir())
    else:
        target = home.parent / "elsewhere"
        entry.rename(target)
        entry.symlink_to(target)
    assert kept.load("k") is None


def test_a_place_that_cannot_be_written_costs_nothing(home: Path) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("a file")
    kept.keep("k", 1, {})
    assert kept.load("k") is None


def test_what_was_used_last_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST_BYTES", 25_000)
    for number, key in enumerate("abc"):
        kept.keep(key, 1, {"a": np.ones(1000)})
        for entry in home.glob(f"{key}-*"):
            os.utime(entry, (number, number))
    assert kept.load("a") is not None  # from now on used last
    kept.keep("d", 1, {"a": np.ones(1000)})
    assert [key for key in "abcd" if kept.load(key)] == ["a", "c", "d"]
    monkeypatch.setattr(kept, "MOST_ENTRY_BYTES", 7999)
    kept.keep("e", 1, {"a": np.ones(1000)})
    assert kept.load("e") is None
