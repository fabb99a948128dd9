"""features/cache/reader.py: what readers see, and what they say of damage."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.cache.record import FeatureRecord
from framebank.features.errors import CacheError, UsageError
from tests import ROOT
from tests.made.made_cache import SPEC, make_cache, make_extracted, make_shard
from tests.servers.fake_bucket import serve_bucket

IDS = ["a.mp4", "c/ü.mp4", "d.mp4", "b.mp4"]


def _live_shards(cache: Cache) -> list[str]:
    return sorted({row.shard for row in cache.rows() if row.state == "done"})


@pytest.fixture
def path(tmp_path: Path) -> str:
    make_cache(str(tmp_path / "cache"))
    return str(tmp_path / "cache")


def test_readers_see_the_newest_done_rows_only(path: str) -> None:
    cache = open_cache(path)
    records = list(cache)
    assert [record.video_id for record in records] == cache.video_ids == IDS
    assert len(cache) == 4 and "b.mp4" in cache and "bad.mp4" not in cache
    assert _live_shards(cache) == ["r1-0", "r1-1", "r2-0"]
    assert (cache.spec, cache.fingerprint) == (SPEC, SPEC.fingerprint)
    assert cache.feature_dim == 8
    newest = make_extracted("b.mp4", rows=4, seed=1)
    assert records[3].features.dtype == np.float16
    assert np.array_equal(records[3].features, newest.features.astype(np.float16))
    assert records[3].pts_ms.tolist() == newest.pts_ms.tolist()
    assert records[3].partial and records[3].decode_errors == 2
    states = {row.video_id: (row.state, row.error_class) for row in cache.rows()}
    assert states["bad.mp4"] == ("quarantined", "missing") and len(states) == 5


def test_one_video_can_be_read_alone(path: str) -> None:
    cache = open_cache(path)
    for record in cache:
        assert np.array_equal(cache[record.video_id].features, record.features)
    with pytest.raises(KeyError, match=r"bad\.mp4"):
        cache["bad.mp4"]
    assert pickle.loads(pickle.dumps(cache))["a.mp4"].video_id == "a.mp4"


def test_some_videos_are_read_in_the_order_of_the_shards(path: str) -> None:
    cache = open_cache(path)
    wanted = [video_id for video_id in reversed(cache.video_ids) if video_id != "a.mp4"]
    found = list(cache.read([*wanted, wanted[0]]))
    assert [record.video_id for record in found] == wanted[::-1]
    for record in found:
        np.testing.assert_array_equal(record.features, cache[record.video_id].features)
    assert list(cache.read([])) == []
    with pytest.raises(KeyError):
        list(cache.read(["bad.mp4"]))


def test_the_catalog_is_read_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(path)
    monkeypatch.setattr(catalog, "read_file", None)
    assert len(cache) == len(list(cache)) == 4 and len(list(cache.rows())) == 5
    assert cache.table(["video_id", "no such column"]).column_names == ["video_id"]
    assert cache.catalogued_files == {"r1-0", "r1-1", "r2-0"}


def test_it_says_what_it_is(path: str) -> None:
    cache = open_cache(path)
    assert repr(cache) == (
        f"<Cache {path!r}: videos 4 done, 1 quarantined; frames 15; made with inception_v3 "
        "avg_pool, fps=1, float16, RANDOM weights (random:0)>"
    )
    html = cache._repr_html_()
    assert html.startswith("<table>") and cache.fingerprint in html
    cache.path = "<script>"
    assert "<script>" not in cache._repr_html_()
    shown = {"table", "to_pandas", "dataset", "torch", "video_ids", "rows", "read", "feature_dim"}
    assert shown <= set(dir(cache)) and os.fspath(open_cache(path)) == path


def test_an_unknown_id_is_told_with_what_comes_near(path: str) -> None:
    cache = open_cache(path)
    for video_id, told in (
        ("a.mp3", r"'a\.mp3' is no done video of [^~]*did you mean 'a\.mp4'"),
        ("bad.mp4", r"got:      quarantined as missing: no file"),
        ("nothing like it", r"see `cache\.video_ids`"),
        (0, r"0 is no done video"),
    ):
        with pytest.raises(UsageError, match=told) as caught:
            cache[video_id]  # type: ignore[index]
        assert isinstance(caught.value, KeyError)


def test_a_file_name_that_is_no_unicode_is_found_as_the_disk_has_it(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    layout.write_spec(str(tmp_path), SPEC)
    rows = make_shard(str(tmp_path), "s", [make_extracted(name)], run_id="r")
    catalog.write_catalog(str(tmp_path), "r", rows)
    cache = open_cache(tmp_path)
    assert name in cache and cache[name].key == cache[cache.video_ids[0]].key


def test_the_home_folder_is_meant_by_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cache(str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_cache("~/cache").path == str(tmp_path / "cache")


def test_pandas_takes_its_table_where_it_is(path: str) -> None:
    cache = open_cache(path)
    try:
        import pandas  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(UsageError, match="pip install pandas"):
            cache.to_pandas()
    else:
        found = cache.to_pandas(["video_id"])["video_id"].tolist()
        assert found == cache.table().column("video_id").to_pylist()
        assert sorted(found) == sorted([*IDS, "bad.mp4"])


def _same(element: dict[str, Any], record: FeatureRecord) -> None:
    assert element["video_id"] == record.video_id
    for name in ("features", "pts_ms", "frame_index"):
        np.testing.assert_array_equal(element[name], getattr(record, name))


def test_pytorch_takes_it_without_being_there(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(path)
    videos = pickle.loads(pickle.dumps(cache.torch()))
    records = list(cache)
    assert len(videos) == 4
    for elements in (videos, [videos[n] for n in range(4)], videos.__getitems__([0, 1, 2, 3])):
        for element, record in zip(elements, records, strict=True):
            _same(element, record)
    for element, number in zip(videos.__getitems__([2, 0, 2]), [2, 0, 2], strict=True):
        _same(element, records[number])
    _same(videos[-1], records[3])
    with pytest.raises(IndexError):
        videos[4]
    assert "torch" not in sys.modules or sys.modules["torch"].__file__
    shares = []
    for worker in range(3):
        info = types.SimpleNamespace(id=worker, num_workers=3)
        data = types.SimpleNamespace(get_worker_info=lambda info=info: info)
        monkeypatch.setitem(sys.modules, "torch.utils.data", cast(types.ModuleType, data))
        shares.append([element["video_id"] for element in videos])
    assert sum(shares, []) == IDS and max(map(len, shares)) == 2  # noqa: RUF017


def test_pytorchs_own_loader_takes_it(path: str) -> None:
    data = pytest.importorskip("torch.utils.data")
    cache = open_cache(path)
    loaded = list(data.DataLoader(cache.torch(), batch_size=None, num_workers=2))
    for element, record in zip(loaded, cache, strict=True):
        _same(element, record)
    loader = data.DataLoader(cache.torch(), batch_size=2, shuffle=True, collate_fn=list)
    assert sorted(one["video_id"] for batch in loader for one in batch) == sorted(IDS)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_other_dtypes_come_out_as_float32(tmp_path: Path, dtype: str) -> None:
    make_cache(str(tmp_path), spec=dataclasses.replace(SPEC, dtype=dtype))
    record = open_cache(str(tmp_path))["a.mp4"]
    assert record.features.dtype == np.float32
    assert np.abs(record.features - make_extracted("a.mp4").features).max() < 0.01


def test_it_is_a_dataset_too(path: str) -> None:
    tf = pytest.importorskip("tensorflow")
    cache = open_cache(path)
    dataset = cache.dataset()
    assert dataset.element_spec["features"] == tf.TensorSpec([None, 8], tf.float16)
    for element, record in zip(dataset.as_numpy_iterator(), cache, strict=True):
        assert element["video_id"].decode() == record.video_id
        for name in ("features", "pts_ms", "frame_index"):
            assert np.array_equal(element[name], getattr(record, name))
    padded = dataset.map(lambda element: element["features"]).padded_batch(4)
    assert next(iter(padded)).shape == (4, 5, 8)
    shuffled = cache.dataset(shuffle_seed=3)
    ids = [[e["video_id"].decode() for e in shuffled.as_numpy_iterator()] for _ in range(4)]
    assert all(sorted(epoch) == sorted(IDS) for epoch in ids)
    assert len({tuple(epoch) for epoch in ids}) > 1


def _flip(path: str, shard: str, place: int) -> None:
    file = Path(layout.tfrecord_path(path, shard))
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_a_flipped_byte_is_named_by_shard_record_and_video(path: str) -> None:
    second = open_cache(path)["d.mp4"]
    _flip(path, "r1-1", -100)
    cache = open_cache(path)
    assert second.video_id not in _live_shards(cache)
    words = r"record 1 .* of .*r1-1\.tfrecord, video 'd\.mp4'"
    with pytest.raises(CacheError, match=words):
        list(cache)
    with pytest.raises(CacheError, match=words):
        cache["d.mp4"]
    assert cache["a.mp4"].video_id == "a.mp4"


def test_a_flipped_byte_ends_the_dataset_with_the_same_words(path: str) -> None:
    tf = pytest.importorskip("tensorflow")
    _flip(path, "r1-1", -100)
    for dataset in (open_cache(path).dataset(), open_cache(path).dataset(shuffle_seed=0)):
        with pytest.raises(tf.errors.OpError, match=r"r1-1\.tfrecord, video 'd\.mp4'"):
            list(dataset)


def test_a_shard_that_is_missing_cut_or_anothers_is_named(path: str) -> None:
    shard = Path(layout.tfrecord_path(path, "r1-0"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:50])
    with pytest.raises(CacheError, match="r1-0"):
        list(open_cache(path))
    shard.unlink()
    with pytest.raises(CacheError, match=r"r1-0\.tfrecord is missing"):
        list(open_cache(path))
    shard.write_bytes(whole)
    # Another version of a video in the place of the one meant: whole, but not what was meant.
    changed = [make_extracted("c/ü.mp4", seed=5), make_extracted("d.mp4", rows=5)]
    make_shard(path, "r1-1", changed, run_id="20261121-0100")
    with pytest.raises(CacheError, match="not the one that the catalog names"):
        list(open_cache(path))


def test_what_is_no_cache_gets_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no cache at") as caught:
        open_cache(str(tmp_path / "nowhere"))
    assert caught.value.todo
    with pytest.raises(UsageError, match=r"without spec\.json"):
        open_cache(str(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="got:      a file"):
        open_cache(str(tmp_path / "file"))
    with pytest.raises(UsageError, match="ftp://"):
        open_cache("ftp://bucket/cache")


def test_an_interrupted_extraction_says_to_run_it_again(tmp_path: Path) -> None:
    make_cache(str(tmp_path / "c"), with_catalog=False)
    with pytest.raises(CacheError, match="interrupted after 3 shards") as caught:
        open_cache(str(tmp_path / "c"))
    assert "again" in str(caught.value.todo)
    layout.write_spec(str(tmp_path / "d"), SPEC)
    with pytest.raises(CacheError, match="before its first shard"):
        open_cache(str(tmp_path / "d"))


def test_reading_needs_no_tensorflow(path: str) -> None:
    code = (
        "import sys, framebank.features.cache.reader\n"
        f"print([r.features.shape for r in framebank.features.cache.reader.open_cache({path!r})])\n"
        "assert 'tensorflow' not in sys.modules and 'apache_beam' not in sys.modules"
    )
    root = ROOT
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()


def test_a_cache_in_a_bucket_reads_the_same(path: str) -> None:
    pytest.importorskip("google.cloud.storage")
    with serve_bucket("features") as bucket:
        for folder, _, names in os.walk(path):
            for name in names:
                file = Path(folder) / name
                bucket.put(f"my/cache/{file.relative_to(path)}", file.read_bytes())
        shutil.rmtree(path)
        cache = open_cache("gs://features/my/cache")
        assert [record.video_id for record in cache] == IDS
        assert cache["d.mp4"].features.shape == (5, 8)
        with pytest.raises(UsageError, match="there is no cache"):
            open_cache("gs://features/other")
