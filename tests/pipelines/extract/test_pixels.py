"""`extract --backbone pixels`: the promises of any cache, on the local runner and on Prism."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import framebank as fb
from tests.made import built


def test_pixels_are_a_cache_like_any_other(clips: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "clips", str(tmp_path / "cache")
    shutil.copytree(clips, folder)
    (folder / "bad.mp4").write_bytes(b"no video")
    words = {"cache": cache, "backbone": "pixels:24", "sample": "every=4", "max_bad_ratio": 1.0}
    summary = fb.extract(str(folder), **words)  # type: ignore[arg-type]
    assert summary is not None
    assert (summary["done"], summary["quarantined"]) == (6, 1)
    assert summary["spec"]["dtype"] == "jpeg" and summary["random_weights"] is False
    found = fb.open_cache(cache)
    record = found["a5.mp4"]
    assert record.pictures.shape == (4, 24, 24, 3) and record.frame_index.tolist() == [0, 4, 8, 12]
    one = fb.extract_features(folder / "a5.mp4", backbone="pixels:24", sample="every=4")
    np.testing.assert_array_equal(np.asarray(one.features), record.pictures)
    again = fb.extract(str(folder), **words)  # type: ignore[arg-type]
    assert again is not None and "frames" not in again and again["already_done"] == 6
    with pytest.raises(fb.SpecMismatchError, match=r"\* dtype +jpeg +png"):
        fb.extract(str(folder), **words, dtype="png")  # type: ignore[arg-type]
    assert fb.verify(cache).faults == []
    assert found.torch()[0]["features"].dtype == np.uint8


def test_prism_gives_the_same_bytes(clips: Path, tmp_path: Path) -> None:
    made = []
    for words in ({}, {"runner": "PrismRunner", "prism_location": str(built.prism())}):
        cache = tmp_path / str(len(made))
        fb.extract(str(clips), cache=cache, backbone="pixels:24", sample="uniform=2", **words)
        made.append({file.name for file in cache.glob("shards/*.tfrecord")})  # names have a hash
    assert made[0] == made[1] and made[0]
