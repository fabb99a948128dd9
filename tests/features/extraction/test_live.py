"""Clips that are submitted one by one: mixed in batches, done without waiting for others, and each
failure its own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoding.container import DecodeLimits
from framebank.features.errors import JobError
from framebank.features.extraction.engine import Engine
from framebank.features.extraction.live import LiveEngine, Results
from framebank.features.network.picture_coder import PictureCoder
from framebank.features.video import Extracted, Rejected
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.features.extraction.test_engine import SPEC, ref_of, run

POLICY = DecoderPolicy(decoders=2, timeout_s=20, limits=DecodeLimits(max_duration_s=5))
PIXELS = dataclasses.replace(SPEC, backbone="pixels", dtype="jpeg", input_size=48)


@pytest.fixture(scope="module")
def network() -> FakeNetwork:
    return FakeNetwork(batch_size=64)  # more than all frames: nothing fills it


@pytest.fixture(scope="module")
def live(network: FakeNetwork) -> Iterator[LiveEngine]:
    coder = PictureCoder(48, "jpeg", batch_size=4)
    with contextlib.closing(
        LiveEngine(lambda: Engine(network, SPEC, POLICY, also=[(coder, PIXELS)]))
    ) as engine:
        yield engine


def only(outcome: Future[Results]) -> Extracted | Rejected:
    found, pictures = outcome.result(timeout=60)
    assert pictures is None and found is not None
    return found


def test_clips_come_without_others_as_one_by_one(live: LiveEngine, clips: Path) -> None:
    paths = sorted(clips.glob("a*.mp4"))
    alone = run([ref_of(path) for path in paths], POLICY, FakeNetwork())
    first = only(live.submit(ref_of(paths[0]), [True, False]))  # nobody else comes
    assert isinstance(first, Extracted)
    outcomes = [live.submit(ref_of(path), [True, False]) for path in paths]
    for path, outcome in zip(paths, outcomes, strict=True):
        found, expected = only(outcome), alone[path.name]
        assert isinstance(found, Extracted) and isinstance(expected, Extracted)
        assert np.array_equal(found.features, expected.features)
        assert found.pts_ms.tolist() == expected.pts_ms.tolist()


def test_pictures_come_beside_features_or_alone(live: LiveEngine, clips: Path) -> None:
    path = clips / "a0.mp4"
    both = live.submit(ref_of(path), [True, True]).result(timeout=60)
    none, alone = live.submit(ref_of(path), [False, True]).result(timeout=60)
    assert none is None and isinstance(alone, Extracted) and isinstance(both[1], Extracted)
    assert len(alone.features) == len(both[1].features) == len(both[0].features)
    assert alone.features.encoded == both[1].features.encoded


def test_a_bad_clip_costs_itself(live: LiveEngine, clips: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    outcomes = [live.submit(ref_of(path), [True, False]) for path in (bad, clips / "a1.mp4")]
    found = only(outcomes[0])
    assert isinstance(found, Rejected) and found.error_class == "not_a_video"
    assert isinstance(only(outcomes[1]), Extracted)


def test_a_clip_that_lasts_too_long_is_refused(live: LiveEngine, tmp_path: Path) -> None:
    found = only(live.submit(ref_of(write_clip(tmp_path / "long.mp4", frames=52)), [True, False]))
    assert isinstance(found, Rejected) and "5.2 s, the limit is 5 s" in found.message


def test_an_engine_that_fails_fails_what_it_has_and_the_next_clip_gets_another(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build() -> Engine:
        built.append(Engine(FakeNetwork(), SPEC, POLICY))
        return built[-1]

    with contextlib.closing(LiveEngine(build)) as engine:
        with monkeypatch.context() as patch:

            def fail(memory_bytes: int) -> None:
                raise OSError("no processes left")

            patch.setattr("framebank.features.decoders.slot.spawn", fail)
            outcome = engine.submit(ref_of(clips / "a0.mp4"), [True])
            with pytest.raises(JobError, match="cannot start a decoder"):
                outcome.result(timeout=60)
        found = engine.submit(ref_of(clips / "a0.mp4"), [True]).result(timeout=60)
        assert isinstance(found[0], Extracted) and len(built) == 2
    with pytest.raises(JobError, match="closed"):
        engine.submit(ref_of(clips / "a0.mp4"), [True])
