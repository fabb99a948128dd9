"""features/cache/record.py: the record's bytes, its laws, and damage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from framebank.features.cache.reader import open_cache
from framebank.features.cache.record import (
    QuantisationError,
    decode_record,
    encode_record,
    framed_record,
    most_rows,
)
from framebank.features.cache.tf_example import Value, decode_example, encode_example
from framebank.features.cache.tfrecord import frame_record
from framebank.features.errors import CacheError, VideoRejected
from framebank.features.spec import DTYPES
from framebank.features.video import Extracted, SourceInfo, VideoRef
from tests import ROOT
from tests.made.made_cache import SPEC, make_cache, make_extracted

GOLDEN = ROOT / "tests" / "golden"


def _golden_video() -> Extracted:
    return Extracted(
        ref=VideoRef("some folder/ünï.mp4", "/clips/some folder/ünï.mp4", 4711, "17", attempt=2),
        features=np.array([[0, 0.1, -3, 1000.25], [0, 0.2, 5, 0.5], [0, 0.3, 7, 2]], np.float32),
        pts_ms=np.array([0, 40, 86_400_000]),
        frame_index=np.array([0, 1, 2_160_000]),
        source=SourceInfo("mov,mp4", "h264", 640, 360, 29.97, 86_400.04, 2_160_001),
        content_sha256="c" * 64,
        partial=True,
        decode_errors=3,
        capped=False,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bytes_are_the_golden_ones(dtype: str) -> None:
    """A change here makes every cache unreadable or unequal: raise SCHEMA_VERSION with it."""
    data, _ = encode_record(_golden_video(), spec=dataclasses.replace(SPEC, dtype=dtype))
    assert data == (GOLDEN / f"record_{dtype}.bin").read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_encoded_is_decoded(dtype: str) -> None:
    video = _golden_video()
    spec = dataclasses.replace(SPEC, dtype=dtype)
    data, error = encode_record(video, spec=spec)
    found = decode_record(data)
    assert found.video_id == video.ref.video_id and found.key == video.ref.key(spec.fingerprint)
    assert found.dtype == dtype
    assert found.features.dtype == (np.float16 if dtype == "float16" else np.float32)
    assert np.array_equal(found.pts_ms, video.pts_ms) and found.pts_ms.dtype == np.int64
    assert np.array_equal(found.frame_index, video.frame_index)
    assert (found.partial, found.decode_errors, found.capped) == (True, 3, False)
    assert dataclasses.asdict(found.source) == pytest.approx(dataclasses.asdict(video.source))
    gap = np.abs(found.features.astype(np.float64) - video.features)
    assert error == QuantisationError(gap.max(), gap.mean(), gap.size)
    assert not found.features[:, 0].any()


def test_tensorflow_parses_it_with_decode_raw() -> None:
    tf = pytest.importorskip("tensorflow")
    video = make_extracted("a.mp4", rows=5, width=16)
    parsed = tf.io.parse_single_example(
        encode_record(video, spec=SPEC)[0],
        {
            "features": tf.io.FixedLenFeature([], tf.string),
            "shape": tf.io.FixedLenFeature([2], tf.int64),
            "pts_ms": tf.io.VarLenFeature(tf.int64),
            "source_rate_fps": tf.io.FixedLenFeature([1], tf.float32),
        },
    )
    features = tf.reshape(tf.io.decode_raw(parsed["features"], tf.float16), parsed["shape"])
    assert np.array_equal(features.numpy(), video.features.astype(np.float16))
    assert parsed["pts_ms"].values.numpy().tolist() == video.pts_ms.tolist()
    assert parsed["source_rate_fps"].numpy() == [25.0]


def test_no_path_run_or_attempt_is_in_the_record() -> None:
    video = _golden_video()
    data, _ = encode_record(video, spec=SPEC)
    assert b"/clips" not in data
    again = dataclasses.replace(video, ref=dataclasses.replace(video.ref, attempt=9))
    assert encode_record(again, spec=SPEC)[0] == data


def test_uint8_is_within_half_a_step_and_constants_are_exact() -> None:
    random = np.random.default_rng(0)
    features = (random.normal(size=(50, 64)) * 10 ** random.uniform(-6, 6, 64)).astype(np.float32)
    features[:, 3] = 1 / 3
    features[:, 4] = 0
    features[:, 5] = -1e-30
    video = dataclasses.replace(make_extracted("a.mp4", rows=50), features=features)
    data, error = encode_record(video, spec=dataclasses.replace(SPEC, dtype="uint8"))
    found = decode_record(data).features
    assert np.array_equal(found[:, 3:6], features[:, 3:6])
    gap = np.abs(found.astype(np.float64) - features)
    step = (features.max(axis=0) - features.min(axis=0)) / 255
    assert (gap <= step * 0.5001 + np.abs(features).max(axis=0) * 1e-6).all()
    assert error.max_abs == gap.max() and error.values == features.size
    one = dataclasses.replace(make_extracted("a.mp4", rows=1), features=features[:1])
    data, error = encode_record(one, spec=dataclasses.replace(SPEC, dtype="uint8"))
    assert error.max_abs == 0 and np.array_equal(decode_record(data).features, features[:1])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *(("float16", value) for value in (65520.0, -1e6, np.inf, np.nan)),
        *((dtype, value) for dtype in ("float32", "uint8") for value in (np.inf, np.nan)),
    ],
)
def test_what_does_not_fit_is_never_stored(dtype: str, value: float) -> None:
    video = make_extracted("a.mp4")
    video.features[1, 2] = value
    with pytest.raises(VideoRejected) as caught:
        encode_record(video, spec=dataclasses.replace(SPEC, dtype=dtype))
    assert (caught.value.stage, caught.value.error_class) == ("write", "bad_features")


def test_arrays_that_do_not_fit_together_are_a_bug_of_the_caller() -> None:
    video = make_extracted("a.mp4")
    with pytest.raises(ValueError, match="pts_ms"):
        encode_record(dataclasses.replace(video, pts_ms=video.pts_ms[:-1]), spec=SPEC)
    with pytest.raises(ValueError, match="n, d >= 1"):
        encode_record(dataclasses.replace(video, features=np.empty((0, 8), np.float32)), spec=SPEC)


def test_quantisation_errors_add_up() -> None:
    one, other = QuantisationError(1.0, 0.5, 10), QuantisationError(3.0, 0.25, 30)
    assert one + QuantisationError() == QuantisationError() + one == one
    assert one + other == other + one == QuantisationError(3.0, 0.3125, 40)
    assert QuantisationError.from_json(dataclasses.asdict(one + other)) == one + other


def test_each_missing_or_wrong_field_is_named() -> None:
    spec = dataclasses.replace(SPEC, dtype="uint8")
    fields = decode_example(encode_record(_golden_video(), spec=spec)[0])
    for name in fields:
        cut = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(CacheError, match=f"no field '{name}'"):
            decode_record(encode_example(cut))
    wrong: dict[str, Value] = {
        "schema_version": np.array([2], np.int64),
        "features": [b"123"],
        "scale": [b"1234"],
        "pts_ms": np.array([1], np.int64),
        "shape": np.array([3, 5], np.int64),
        "dtype": [b"float64"],
        "capped": np.array([1, 2], np.int64),
        "key": [],
    }
    for name, value in wrong.items():
        with pytest.raises(CacheError, match="record 3 of x"):
            decode_record(encode_example(fields | {name: value}), where="record 3 of x")
    with pytest.raises(CacheError, match="is not a record"):
        decode_record(b"\xff" * 40)


def test_a_record_that_no_reader_reads_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real limit is 2 GiB, of protocol buffers: here it is 70,000 bytes."""
    monkeypatch.setattr("framebank.features.cache.record.MOST_PAYLOAD_BYTES", 70_000)
    monkeypatch.setattr("framebank.features.cache.tfrecord.MOST_PAYLOAD_BYTES", 70_000)
    for dtype in DTYPES:
        spec = dataclasses.replace(SPEC, dtype=dtype)
        fits = most_rows(dtype, 8)
        payload, _ = encode_record(make_extracted("a.mp4", rows=fits), spec=spec)
        assert len(payload) <= 70_000
        with pytest.raises(VideoRejected, match="a record holds") as caught:
            encode_record(make_extracted("a.mp4", rows=fits + 1), spec=spec)
        assert (caught.value.stage, caught.value.error_class) == ("write", "too_large")
    long = make_extracted("a" * 80_000, rows=2)
    with pytest.raises(VideoRejected, match="bytes, the limit is"):
        encode_record(long, spec=SPEC)
    with pytest.raises(ValueError, match="at most 70000"):
        frame_record(bytes(70_001))


def test_whatever_cannot_be_stored_costs_its_video_only(
    monkeypatch: pytest.MonkeyPatch, expects_internal: list[str]
) -> None:
    video = make_extracted("a.mp4")
    framed, error = framed_record(video, spec=SPEC)
    assert framed == frame_record(encode_record(video, spec=SPEC)[0]) and error.values
    trials = {
        "internal": {"pts_ms": video.pts_ms[:-1]},
        "bad_features": {"features": video.features * np.float32("inf")},
    }
    for error_class, changes in trials.items():
        with pytest.raises(VideoRejected) as caught:
            framed_record(dataclasses.replace(video, **changes), spec=SPEC)  # type: ignore[arg-type]
        assert (caught.value.stage, caught.value.error_class) == ("write", error_class)
    wide = dataclasses.replace(video.source, width=2**70)
    with pytest.raises(VideoRejected, match=r"OverflowError.* at features/cache/record\.py:"):
        framed_record(dataclasses.replace(video, source=wide), spec=SPEC)

    def full(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("framebank.features.cache.record.encode_example", full)
    with pytest.raises(VideoRejected) as caught:
        framed_record(video, spec=SPEC)
    assert (caught.value.stage, caught.value.error_class) == ("write", "too_large")


def test_one_record_that_no_reader_reads_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions wrote them as done."""
    cache = str(tmp_path / "cache")
    make_cache(cache)
    with pytest.MonkeyPatch.context() as small:
        longest = max(open_cache(cache).table(["length"]).column("length").to_pylist())
        small.setattr("framebank.features.cache.tfrecord.MOST_FRAME_BYTES", longest - 1)
        with pytest.warns(UserWarning, match="1 videos of .* are left out"):
            readable = open_cache(cache)
    assert [found.video_id for found in readable] == readable.video_ids
    assert len(readable) == len(open_cache(cache)) - 1


def test_a_number_out_of_range_is_no_record() -> None:
    fields = decode_example(encode_record(_golden_video(), spec=SPEC)[0])
    endless = encode_example(fields | {"source_width": np.array([np.inf], np.float32)})
    with pytest.raises(CacheError, match="is not a record"):
        decode_record(endless)
