"""features/export: each format is opened by the library that it is for, with the same features."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.errors import UsageError
from framebank.features.export import command, formats
from tests.made.made_cache import SPEC, make_cache, make_extracted, make_shard

Videos = dict[str, tuple[Any, Any, Any]]


@pytest.fixture(params=["float16", "uint8"])
def cache(tmp_path: Path, request: pytest.FixtureRequest) -> Cache:
    path = str(tmp_path / "cache")
    make_cache(path, spec=dataclasses.replace(SPEC, dtype=request.param))
    return open_cache(path)


def export(cache: Cache, to: str, out: Path | str, *more: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args([cache.path, "--to", to, str(out), *more])
    return command.execute(args, [])


def digest(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _opened_npz(out: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    for path in sorted(out.glob("*.npz")):
        held = np.load(path)
        for number, video_id in enumerate(held["video_ids"].tolist()):
            rows = slice(*held["starts"][number : number + 2])
            yield video_id, *(held[name][rows] for name in ("features", "pts_ms", "frame_index"))


def _opened_parquet(out: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    for row in parquet.read_table(out).to_pylist():
        yield row["video_id"], np.array(row["features"]), row["pts_ms"], row["frame_index"]


def _opened_webdataset(out: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(out.glob("*.tar"))]
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode():
        names = ("features.npy", "pts_ms.npy", "frame_index.npy")
        yield sample["json"]["video_id"], *(sample[name] for name in names)


def _opened_tfds(out: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(out))
    for one in tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False)):
        yield one["video_id"].decode(), one["features"], one["pts_ms"], one["frame_index"]


OPENED = {
    "npz": _opened_npz,
    "parquet": _opened_parquet,
    "webdataset": _opened_webdataset,
    "tfds": _opened_tfds,
}


@pytest.mark.parametrize("to", OPENED)
def test_its_own_library_opens_it(cache: Cache, tmp_path: Path, to: str) -> None:
    summary = export(cache, to, tmp_path / "out", "--file-bytes", "600")
    assert (summary["videos"], summary["frames"]) == (4, 15) and summary["files"] > 1
    found = list(OPENED[to](tmp_path / "out"))
    for (video_id, features, pts_ms, frame_index), record in zip(found, cache, strict=True):
        assert video_id == record.video_id
        np.testing.assert_array_equal(features, record.features)
        assert list(pts_ms) == record.pts_ms.tolist()
        assert list(frame_index) == record.frame_index.tolist()


def test_youtube_8ms_readers_parse_it(cache: Cache, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    export(cache, "yt8m", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.tfrecord")
    for data, record in zip(tf.data.TFRecordDataset(str(path)), cache, strict=True):
        # As YT8MFrameFeatureReader of the starter code does.
        context, features = tf.io.parse_single_sequence_example(
            data,
            context_features={
                "id": tf.io.FixedLenFeature([], tf.string),
                "labels": tf.io.VarLenFeature(tf.int64),
            },
            sequence_features={"rgb": tf.io.FixedLenSequenceFeature([], dtype=tf.string)},
        )
        decoded = tf.reshape(
            tf.cast(tf.io.decode_raw(features["rgb"], tf.uint8), "float32"), [-1, 8]
        )
        values = decoded.numpy() * (4.0 / 255) + 4.0 / 512 - 2
        assert context["id"].numpy().decode() == record.video_id
        assert np.abs(values - record.features).max() <= 4.0 / 510 + 1e-6


def test_youtube_8ms_bytes_end_where_they_end(capsys: pytest.CaptureFixture[str]) -> None:
    step, low = 4 / 255, 4 / 512 - 2
    ends = np.array([[low - 1, low, low + 255 * step, 9, 0]], np.float32)
    assert formats.quantise(ends).tolist() == [[0, 0, 255, 255, 127]]
    assert formats.count_outside(ends) == 2


@pytest.mark.parametrize("to", formats.FORMATS)
def test_the_same_cache_gives_the_same_bytes(cache: Cache, tmp_path: Path, to: str) -> None:
    first = export(cache, to, tmp_path / "one", "--file-bytes", "600")
    second = export(cache, to, tmp_path / "two", "--file-bytes", "600")
    assert first == second and digest(tmp_path / "one") == digest(tmp_path / "two")
    assert export(cache, to, tmp_path / "one", "--file-bytes", "600") == first  # done already


def test_a_run_that_was_ended_goes_on(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export(cache, "webdataset", tmp_path / "whole", "--file-bytes", "600")
    read, asked = cache.read_places, []

    def ends(self: Cache, rows: Any) -> Any:
        asked.append(len(rows))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return read(rows)

    monkeypatch.setattr(Cache, "read_places", ends)
    with pytest.raises(KeyboardInterrupt):
        export(cache, "webdataset", tmp_path / "out", "--file-bytes", "600")
    assert not (tmp_path / "out").exists()
    left = len(list((tmp_path / "out.partial").glob("*.tar")))
    assert left == 2
    assert export(cache, "webdataset", tmp_path / "out", "--file-bytes", "600") == whole
    assert len(asked) == 3 + whole["files"] - left
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def test_a_link_may_say_where(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    export(cache, "npz", tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and list((tmp_path / "there").glob("*.npz"))


def test_a_mounted_disk_is_refused_before_any_work(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: True)
    with pytest.raises(UsageError, match=r"give a folder in it: .*/out/npz"):
        export(cache, "npz", tmp_path / "out")
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


def test_what_it_did_not_make_is_left_alone(cache: Cache, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(UsageError, match="with other things in it"):
        export(cache, "npz", out)
    export(cache, "npz", tmp_path / "other")
    with pytest.raises(UsageError, match="with another export in it"):
        export(cache, "parquet", tmp_path / "other")
    with pytest.raises(UsageError, match="a local folder"):
        export(cache, "npz", "gs://bucket/out")
    with pytest.raises(UsageError, match="--file-bytes"):
        export(cache, "npz", tmp_path / "third", "--file-bytes", "0")
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize("to", ["npz", "parquet"])
def test_the_spans_of_clips_go_along(tmp_path: Path, to: str) -> None:
    spec = dataclasses.replace(SPEC, clip_length=16, clip_stride=16)
    path, spans = str(tmp_path / "cache"), np.array([[0, 600], [640, 1240], [900, 1500]])
    video = dataclasses.replace(make_extracted("a.mp4"), span_ms=spans)
    layout.write_spec(path, spec)
    rows = make_shard(path, "s", [video], run_id="20261121-0100", spec=spec)
    catalog.write_catalog(path, "20261121-0100", rows)
    export(open_cache(path), to, tmp_path / "out")
    (file,) = (tmp_path / "out").glob(f"*.{to}")
    if to == "npz":
        np.testing.assert_array_equal(np.load(file)["span_ms"], spans)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(file).to_pylist()[0]["span_ms"] == spans.tolist()
