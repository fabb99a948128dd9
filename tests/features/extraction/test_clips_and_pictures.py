"""Rows that are of several frames, and rows that are pictures, from engine to record."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from framebank.features.cache.record import decode_record, encode_record
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import CacheError, UsageError
from framebank.features.extraction.clip_windows import FrameSpool, clip_windows, place_windows
from framebank.features.extraction.engine import Engine
from framebank.features.extraction.one_clip import extract_features, make_spec
from framebank.features.network.picture_coder import PictureCoder
from framebank.features.pictures import Pictures, decode_picture, encode_picture
from framebank.features.spec import FeatureSpec, SpecChoice
from framebank.features.video import Extracted
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.features.extraction.test_engine import SPEC, ref_of

CLIPS = dataclasses.replace(SPEC, sample="every=1", clip_length=4, clip_stride=4)


@pytest.mark.parametrize(
    ("rows", "starts"),
    [(4, [0]), (5, [0, 1]), (8, [0, 4]), (11, [0, 4, 7])],
)
def test_no_row_is_left_out(rows: int, starts: list[int]) -> None:
    windows = clip_windows(rows, length=4, stride=4)
    assert windows == [list(range(start, start + 4)) for start in starts]
    assert {row for window in windows for row in window} == set(range(rows))


def test_strides_may_overlap_and_short_videos_hold_their_last_frame() -> None:
    assert [window[0] for window in clip_windows(10, length=4, stride=2)] == [0, 2, 4, 6]
    assert clip_windows(1, length=4, stride=4) == [[0, 0, 0, 0]]
    assert clip_windows(3, length=4, stride=4) == [[0, 1, 2, 2]]


def test_a_clip_lies_at_its_middle() -> None:
    windows = clip_windows(5, length=4, stride=4)
    placed = place_windows(windows, [0, 40, 80, 121, 160], [0, 2, 4, 6, 8])
    assert placed.span_ms.tolist() == [[0, 121], [40, 160]]
    assert placed.pts_ms.tolist() == [60, 100]  # 60.5 goes to the even one
    assert placed.frame_index.tolist() == [2, 4]  # shown at 60.5 and at 100
    (short,) = place_windows([[0, 1, 2, 2]], [0, 40, 80], [0, 1, 2]).frame_index.tolist()
    assert short == 1


class ClipNetwork(FakeNetwork):
    """A clip's feature is the mean of each of its frames."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.shape[1:] == (4, 32, 32, 3) and len(images) <= self.batch_size
        self.calls += 1
        return images.mean(axis=(2, 3, 4)).astype(np.float32)


def extract(path: Path, spec: FeatureSpec, network: FakeNetwork | PictureCoder) -> Extracted:
    engine = Engine(network, spec, DecoderPolicy(decoders=1))
    (result,) = engine.run([ref_of(path)])
    engine.close()
    assert isinstance(result, Extracted), result
    return result


def test_clips_are_made_of_the_sampled_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=11)
    for batch_size in (1, 2, 64):
        network = ClipNetwork(batch_size=batch_size, feature_dim=4)
        found = extract(path, CLIPS, network)
        pictures = np.asarray(extract(path, PIXELS, coder()).features)
        means = pictures.mean(axis=(1, 2, 3)).astype(np.float32)
        windows = clip_windows(11, length=4, stride=4)
        np.testing.assert_allclose(found.features, [means[window] for window in windows])
        assert network.calls == -(-3 // batch_size)
    assert found.span_ms is not None
    assert found.span_ms.tolist() == [[0, 300], [400, 700], [700, 1000]]
    assert found.pts_ms.tolist() == [150, 550, 850]
    record = decode_record(encode_record(found, spec=CLIPS)[0])
    assert record.span_ms is not None
    assert record.span_ms.tolist() == found.span_ms.tolist()


PIXELS = dataclasses.replace(SPEC, backbone="pixels:32", sample="every=1", dtype="png")


def coder(form: str = "png") -> PictureCoder:
    return PictureCoder(32, form, batch_size=4)


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_pictures_come_back(form: str, tmp_path: Path) -> None:
    spec = dataclasses.replace(PIXELS, dtype=form)
    path = write_clip(tmp_path / "a.mp4", frames=6)
    exact = np.asarray(extract(path, PIXELS, coder()).features)
    found = extract(path, spec, coder(form))
    record = decode_record(encode_record(found, spec=spec)[0])
    assert record.features.shape == (6, 32 * 32 * 3) and record.features.dtype == np.uint8
    assert record.pictures.shape == (6, 32, 32, 3)
    gap = np.abs(record.pictures.astype(int) - exact)
    assert gap.max() == 0 if form == "png" else 0 < gap.mean() < 4
    again = extract(path, spec, PictureCoder(32, form, batch_size=1))
    assert encode_record(again, spec=spec)[0] == encode_record(found, spec=spec)[0]
    with pytest.raises(UsageError, match="has features and no pictures"):
        _ = dataclasses.replace(record, dtype="float16").pictures


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_a_damaged_picture_is_told(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    data = encode_picture(noise, form)
    for bad in (b"", b"no picture", data[: len(data) // 2], encode_picture(noise[:8], form)):
        with pytest.raises(ValueError, match=r"picture|no"):
            decode_picture(bad, form, size=16)
    other = encode_picture(noise, "png" if form == "jpeg" else "jpeg")
    with pytest.raises(ValueError, match=f"no {form}"):
        decode_picture(other, form, size=16)


def test_a_record_of_a_damaged_picture_is_refused(tmp_path: Path) -> None:
    found = extract(write_clip(tmp_path / "a.mp4", frames=2), PIXELS, coder())
    bad = dataclasses.replace(found, features=Pictures([b"x", b"y"], "png", 32))
    with pytest.raises(CacheError, match="not a record"):
        decode_record(encode_record(bad, spec=PIXELS)[0])


def test_the_backbone_says_how_frames_are_kept(tmp_path: Path) -> None:
    spec, _ = make_spec(SpecChoice(backbone="pixels"))
    assert (spec.backbone, spec.dtype, spec.weights) == ("pixels:112", "jpeg", "none")
    spec, _ = make_spec(SpecChoice(backbone="c3d", weights="random:0"))
    assert (spec.sample, spec.resize, spec.clip_length) == ("every=1", "128x171", 16)
    spec, _ = make_spec(SpecChoice(weights="random:0"))
    assert (spec.sample, spec.resize, spec.dtype) == ("fps=1", "stretch", "float16")
    for choice, told in (
        (SpecChoice(backbone="pixels:4"), "pixels need a size"),
        (SpecChoice(backbone="pixels", dtype="float16"), "not for --backbone pixels"),
        (SpecChoice(weights="random:0", dtype="png"), "not for --backbone inception"),
        (SpecChoice(backbone="pixels", weights="random:0"), "have no weights"),
        (SpecChoice(backbone="pixels", layer="mixed7"), "no layers"),
        (SpecChoice(backbone="pixels", precision="bfloat16"), "not computed"),
        (SpecChoice(weights="random:0", resize="128x171"), "too small"),
    ):
        with pytest.raises(UsageError, match=told):
            make_spec(choice)
    path = write_clip(tmp_path / "a.mp4", frames=4)
    found = extract_features(path, backbone="pixels:32", sample="all")
    assert np.asarray(found.features).shape == (4, 32, 32, 3)


def test_specs_of_before_are_what_they_were() -> None:
    assert "clip_length" not in SPEC.to_json()
    assert FeatureSpec.from_json(SPEC.to_json()) == SPEC
    assert FeatureSpec.from_json(CLIPS.to_json()) == CLIPS
    assert CLIPS.fingerprint != dataclasses.replace(CLIPS, clip_stride=8).fingerprint


def test_frames_that_wait_go_to_the_disk_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framebank.features.extraction.clip_windows._MEMORY_BYTES", 1000)
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    spool = FrameSpool()
    for token in (7, 3, 9, 3, 0):  # one comes twice: its first stays
        spool.add(token, frames[token % 5])
    assert spool.missing([0, 3, 7, 9, 11]) == {11}
    found = np.zeros((16, 16, 3), np.uint8)
    for token in (9, 0, 7, 3):
        spool.read(token, found)
        np.testing.assert_array_equal(found, frames[token % 5])
    spool.close()
