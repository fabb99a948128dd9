"""Leaks between splits: the same bytes, nearly the same features, one video on two sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import pytest

from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.cache.record import FeatureRecord
from framebank.features.errors import CacheError
from framebank.train.evaluation.leaks import find_leaks
from tests.made.made_cache import SPEC, make_extracted, make_shard

_SIDES = {"a": ("train",), "b": ("test",), "c": ("test",), "d": ("test",), "e": ("test",)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """a and b are one file, a and c nearly the same, d is a backwards, the rest are others."""
    path = str(tmp_path_factory.mktemp("cache") / "cache")
    dice = np.random.default_rng(0)
    clip = dice.random((4, 64), np.float32)
    noise = dice.standard_normal((4, 64)) * 1e-3
    features = {"a": clip, "b": clip, "c": clip + noise, "d": clip[::-1]}
    names = ["a", "b", "c", "d", *"efghijklmnop"]
    videos = [
        dataclasses.replace(
            make_extracted(name, rows=4),
            features=features.get(name, dice.random((4, 64), np.float32)),
            content_sha256="1" if name in "ab" else name,
        )
        for name in names
    ]
    layout.write_spec(path, SPEC)
    rows = make_shard(path, "s", videos, run_id="20261121-0100")
    catalog.write_catalog(path, "20261121-0100", rows)
    return open_cache(path)


def test_leaks_are_named_with_their_reason(cache: Cache) -> None:
    found = find_leaks(cache, _SIDES)
    why = {tuple(leak["videos"]): leak["why"] for leak in found["pairs"]}
    assert why == {("a", "b"): "the same file", ("a", "c"): "nearly equal features"}
    assert found["pairs"][1]["splits"] == ["train", "test"]
    assert found["pairs"][1]["cosine"] == pytest.approx(1, abs=1e-3)
    assert (found["videos"], found["compared"], found["capped"]) == (5, 5, False)
    assert [leak["videos"] for leak in found["alike"]] == [["a", "d"]]  # the same mean


def test_features_that_are_not_finite_hide_no_leak(cache: Cache) -> None:
    class Damaged:
        done = staticmethod(cache.done)
        feature_dim = cache.feature_dim

        def read(self, names: Iterable[str]) -> Iterator[FeatureRecord]:
            for record in cache.read(names):
                value = np.nan if record.video_id == "e" else 0
                yield dataclasses.replace(record, features=record.features + np.float16(value))

    with pytest.raises(CacheError, match="'e' are not finite"):
        find_leaks(cast(Cache, Damaged()), _SIDES)


def test_one_side_has_no_leaks(cache: Cache) -> None:
    assert find_leaks(cache, dict.fromkeys(_SIDES, ("train",)))["pairs"] == []


def test_a_video_on_two_sides_is_a_leak(cache: Cache) -> None:
    [leak] = find_leaks(cache, {"d": ("train", "test"), "f": ("val",)})["pairs"]
    assert leak == {"videos": ["d", "d"], "splits": ["train", "test"], "why": "the same video"}


def test_more_videos_than_are_compared_are_drawn(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framebank.train.evaluation.leaks.MOST_VIDEOS", 2)
    found = find_leaks(cache, _SIDES)
    assert (found["videos"], found["compared"]) == (5, 2)
    assert found["pairs"][0]["why"] == "the same file"  # hashes are all compared


def test_pairs_are_capped(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framebank.train.evaluation.leaks._MOST_PAIRS", 1)
    monkeypatch.setattr("framebank.train.evaluation.leaks._NEAR_MEAN", -1.0)
    monkeypatch.setattr("framebank.train.evaluation.leaks._BLOCK", 2)
    found = find_leaks(cache, _SIDES)
    assert found["capped"]
    assert [leak["videos"] for leak in found["pairs"]][:1] == [["a", "b"]]
