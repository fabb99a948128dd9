"""Vectors of clips, which are kept, and what is found by them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from framebank.features.browsing import beside, moments, neighbours
from framebank.features.browsing.moments import Moments, clip_vector, record_vector, unit
from framebank.features.browsing.neighbours import Neighbours, principal_components
from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.errors import CacheError
from framebank.features.video import Extracted
from tests.made.made_cache import SPEC, make_extracted, make_shard

WIDTH, PER_SHARD = 12, 40


def made(cache: str, count: int, *, run: int = 1, first: int = 0) -> Cache:
    """Write one more run of `count` videos; every tenth is nearly the one before."""
    if run == 1:
        layout.write_spec(cache, SPEC)
    videos: list[Extracted] = []
    for number in range(first, first + count):
        video = make_extracted(f"v{number:04d}", rows=1 + number % 4, width=WIDTH)
        if number % 10 == 9:
            features = videos[-1].features + np.float32(1e-3)
            shape = {name: getattr(videos[-1], name) for name in ("pts_ms", "frame_index")}
            video = dataclasses.replace(video, features=features, **shape)
        videos.append(video)
    rows = []
    for start in range(0, count, PER_SHARD):
        its = videos[start : start + PER_SHARD]
        rows += make_shard(cache, f"r{run}-{start}", its, run_id=f"2026112{run}-0100")
    catalog.write_catalog(cache, f"2026112{run}-0100", rows)
    return open_cache(cache)


def units(cache: Cache) -> NDArray[np.float32]:
    """Return what the vectors should be, in 32 bits."""
    found = np.stack([clip_vector(record.features) for record in cache])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return made(str(tmp_path_factory.mktemp("near") / "cache"), 300)


@pytest.fixture(scope="module")
def near(cache: Cache) -> Neighbours:
    its = Moments(cache)
    its.make()
    return Neighbours(its)


def test_a_vector_is_mean_and_mean_difference() -> None:
    rows = np.array([[1, 0], [3, 0], [2, 4]], np.float16)
    np.testing.assert_allclose(clip_vector(rows), [2, 4 / 3, 1.5, 2], rtol=1e-6)
    np.testing.assert_allclose(clip_vector(rows[:1]), [1, 0, 0, 0])
    assert not clip_vector(np.full((2, 3), np.nan)).any()
    wide = np.random.default_rng(0).random((2, 2, 30_000), np.float32)
    one, other = (clip_vector(features) for features in wide)
    assert one.shape == (8192,)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    whole = wide.mean(axis=1)
    assert abs(cosine - whole[0] @ whole[1] / np.prod(np.linalg.norm(whole, axis=1))) < 0.1


def test_the_nearest_are_those_of_all_pairs(cache: Cache, near: Neighbours) -> None:
    true = units(cache) @ units(cache).T
    for place in (0, 9, 150):
        found = near.nearest(near.moments.vector(place), 10, but=place)
        assert (found.method, found.of, len(found.places)) == ("exact", 300, 10)
        np.testing.assert_allclose(found.cosines, true[place, found.places], atol=2e-3)
        others = np.sort(np.delete(true[place], place))[::-1]
        np.testing.assert_allclose(found.cosines, others[:10], atol=2e-3)
    everyone = near.nearest(near.moments.vector(3), 1000)
    assert len(everyone.places) == 300 and everyone.places[0] == 3
    assert everyone.cosines[0] == pytest.approx(1, abs=1e-5)
    with pytest.raises(CacheError, match="not those of the cache"):
        near.nearest(np.ones(5, np.float32), 1)


def test_an_index_finds_what_comparing_all_finds(near: Neighbours) -> None:
    pytest.importorskip("faiss")
    indexed = Neighbours(near.moments, most_exact=100)
    assert indexed.make_index() and not near.make_index()
    for place in (0, 77):
        vector = near.moments.vector(place)
        exact = near.nearest(vector, 5, but=place)
        found = indexed.nearest(vector, 5, but=place)
        assert found.method == "index" and found.places == exact.places
        assert found.cosines == pytest.approx(exact.cosines, abs=1e-5)


@pytest.mark.parametrize("least", [0.999, 0.97])
def test_near_duplicates_are_those_of_all_pairs(
    near: Neighbours, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_ROWS", 32)
    rows = np.arange(300)
    true = near._units(rows) @ near._units(rows).T
    true[np.tril_indices(300)] = 0
    pairs = near.duplicates(least, wait_s=30)
    found = {frozenset(pair[:2]) for pair in pairs.found}
    assert pairs.complete and len(found) == len(pairs.found) >= 30
    assert found == {frozenset(pair) for pair in np.argwhere(true >= least - 1e-6).tolist()}
    assert [pair[2] for pair in pairs.found] == sorted((p[2] for p in pairs.found), reverse=True)


def test_principal_components() -> None:
    rows = np.random.default_rng(1).standard_normal((200, 6)).astype(np.float32)
    rows *= np.array([9, 5, 3, 2, 1, 0.5], np.float32)
    rows -= rows.mean(axis=0)
    found = principal_components(rows, 2)
    _, _, true = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(found * true[:2].T, axis=0)), 1, atol=1e-3)


def test_what_was_made_is_kept_and_a_new_run_adds_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = made(str(tmp_path / "cache"), 50)
    first = Moments(cache)
    first.make()
    assert first.count == 50 and first.vectors is not None
    made_now: list[str] = []

    def told(record):  # type: ignore[no-untyped-def]
        made_now.append(record.video_id)
        return record_vector(record)

    monkeypatch.setattr(moments, "record_vector", told)
    again = Moments(made(str(tmp_path / "cache"), 10, run=2, first=50))
    again.make()
    assert again.count == 60 and sorted(made_now) == [f"v{number:04d}" for number in range(50, 60)]
    np.testing.assert_array_equal(again.vectors[:50], first.vectors)  # type: ignore[index]
    assert len(list((tmp_path / "cache" / "moments").iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None])
def test_packs_that_are_damaged_are_made_again(tmp_path: Path, damage: bytes | None) -> None:
    cache = made(str(tmp_path / "cache"), 20)
    Moments(cache).make()
    (pack,) = (tmp_path / "cache" / "moments").iterdir()
    if damage is None:
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 255
        damage = bytes(data)
    pack.write_bytes(damage)
    again = Moments(cache)
    again.make()
    assert again.count == 20
    np.testing.assert_allclose(unit(again.vectors[3]), units(cache)[3], atol=5e-3)  # type: ignore[index]


def test_a_damaged_shard_costs_its_videos_alone(tmp_path: Path) -> None:
    cache = made(str(tmp_path / "cache"), 100)
    (tmp_path / "cache" / "shards" / "r1-40.tfrecord").unlink()
    its = Moments(cache)
    its.make()
    assert (its.count, its.lost) == (60, 40)
    near = Neighbours(its)
    assert not near.duplicates(0.99, wait_s=30).complete
    assert set(near.nearest(its.vector(0), 100).places) <= {*range(40), *range(80, 100)}
    with pytest.raises(CacheError, match="is missing"):
        its.vector(41)


def test_a_cache_that_cannot_be_written_has_its_vectors_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = made(str(tmp_path / "cache"), 20)
    (tmp_path / "cache" / "moments").write_text("in the way")  # also for root
    Moments(cache).make()
    (pack,) = (path for path in beside.home().rglob("*") if path.is_file())
    assert pack.suffix == ".npz" and os.stat(beside.home()).st_mode & 0o077 == 0
    shutil.rmtree(tmp_path / "cache" / "shards")
    again = Moments(cache)
    again.make()
    assert again.count == 20
