"""What a precision "auto" becomes: by the processor, by how near features stay, by what gains."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import UsageError
from framebank.features.extraction import one_clip, precision
from framebank.features.network.weights import Weights
from tests.features.extraction.test_engine import SPEC, ref_of

WEIGHTS = Weights("random:0", "0" * 64, "random:0", seed=0)
ONE = DecoderPolicy(decoders=1)


def test_the_least_cosine_is_taken() -> None:
    one = np.array([[1, 0], [0, 0], [3, 4]], np.float32)
    assert precision.least_cosine(one, one) == 1.0
    other = np.array([[1, 0], [0, 0], [4, 3]], np.float32)
    assert precision.least_cosine(one, other) == pytest.approx(24 / 25)
    assert np.isnan(precision.least_cosine(one, np.full_like(one, np.nan)))


def test_what_is_measured_with_are_the_first_frames_of_the_input(clips: Path) -> None:
    spec = dataclasses.replace(SPEC, sample="every=3")
    refs = [ref_of(clips / f"a{number}.mp4") for number in range(2)]
    found = precision.first_images(spec, refs, ONE, frames=4)
    again = precision.first_images(spec, refs, ONE, frames=4)
    assert found.shape == (4, spec.input_size, spec.input_size, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, again)
    few = precision.first_images(spec, refs[:1], ONE, frames=64)
    assert len(few) == 3 and few.any(axis=(1, 2, 3)).all()  # no filling of a batch
    np.testing.assert_array_equal(few, found[:3])


def test_of_clips_that_cannot_be_used_nothing_is_measured(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    refs = [ref_of(tmp_path / "bad.mp4")]
    assert len(precision.first_images(SPEC, refs, ONE)) == 0


class Measured:
    """A network whose features are off by `off` and that takes `took_s` a call."""

    batch_size, feature_dim = 8, 4

    def __init__(self, clock: list[float], off: float, took_s: float) -> None:
        self._clock, self._off, self._took_s = clock, off, took_s

    def compute(self, images: np.ndarray) -> np.ndarray:
        self._clock[0] += self._took_s
        rows = np.ones((len(images), 4), np.float32)
        rows[:, 0] += self._off
        return rows


def settle(*, keep: bool = False) -> precision.Settled:
    measure = functools.partial(precision.measured, batch_size=8, keep=keep)
    return precision.settle(SPEC, WEIGHTS, [], ONE, measure=measure)


@pytest.mark.parametrize(
    ("off", "took_s", "expected", "word"),
    [
        (0.01, 0.5, "bfloat16", "2.00 ×"),
        (0.5, 0.5, "float32", "0.999 is needed"),
        (np.nan, 0.5, "float32", "0.999 is needed"),
        (0.01, 0.95, "float32", "no gain"),
    ],
)
def test_bfloat16_is_taken_where_it_is_near_and_faster(
    monkeypatch: pytest.MonkeyPatch, off: float, took_s: float, expected: str, word: str
) -> None:
    clock = [0.0]
    networks = {
        "float32": Measured(clock, 0.0, 1.0),
        "bfloat16": Measured(clock, off, took_s),
    }
    _able(monkeypatch, clock)
    monkeypatch.setattr(precision, "_build", lambda spec, weights, size: networks[spec.precision])
    found = settle(keep=True)
    assert found.precision == expected and word in found.why and found.frames == 5
    chosen = dataclasses.replace(SPEC, precision=expected)
    assert one_clip.build_network(chosen, WEIGHTS, batch_size=8) is networks[expected]
    assert not one_clip._KEPT  # the network is given out once


def test_where_it_cannot_be_or_is_no_gain_it_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*args: Any) -> Any:
        raise UsageError("TensorFlow does not compute in bfloat16 on this machine")

    _able(monkeypatch, [0.0])
    monkeypatch.setattr(precision, "_build", cannot)
    found = settle()
    assert found.precision == "float32" and "does not compute" in found.why
    monkeypatch.setattr(precision, "multiplying_gain", lambda: 0.8)
    monkeypatch.setattr(precision, "_build", None)
    found = settle()
    assert found.precision == "float32" and "0.80 ×" in found.why
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    monkeypatch.setattr(precision, "first_images", None)
    found = settle()
    assert found.precision == "float32" and found.speedup is None


def test_the_gain_of_multiplying_is_a_number() -> None:
    assert precision.multiplying_gain() > 0


def _able(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    """Have a machine with bfloat16, five frames to measure with, and a clock."""
    images = np.zeros((5, SPEC.input_size, SPEC.input_size, 3), np.uint8)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "multiplying_gain", lambda: 2.0)
    monkeypatch.setattr(precision, "first_images", lambda *args: images)
    monkeypatch.setattr(precision.time, "process_time", lambda: clock[0])
