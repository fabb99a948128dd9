"""Time on this machine: the sums, and a real measurement that does not hang on slow clips."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoding.probe import Probe
from framebank.features.extraction.one_clip import make_spec
from framebank.features.spec import SpecChoice
from framebank.pipelines.forecast import measuring
from framebank.pipelines.forecast.estimate import Estimate, draw, forecast, priced, probing_order
from framebank.pipelines.forecast.measuring import (
    Load,
    Measured,
    load_of,
    measure,
    process_age_s,
    wall_s,
)
from framebank.pipelines.inputs.listing import expand_inputs
from tests.clips.plain_clips import FakeNetwork, write_clip

MEASURED = Measured(start_s=10, frame_s=0.05, busy=2.0, alone=2.0, frames=100, cores=2, unsure=0.0)


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def load(pictures: float, decode_s: float, *, longest_s: float = 0.0) -> Load:
    return Load(exactly(pictures), exactly(decode_s), longest_s, 0)


def test_network_and_decoders_share_the_cores() -> None:
    took = wall_s(MEASURED, load(2000, 20), decoders=2)
    assert took.value == pytest.approx(10 + measuring._LEAVE_S + (2000 * 0.05 + 20) / 2)
    assert took.low == took.high == took.value


def test_a_clip_that_decodes_for_long_holds_up_the_end() -> None:
    took = wall_s(MEASURED, load(10, 300, longest_s=280), decoders=2)
    assert took.value == pytest.approx(10 + measuring._LEAVE_S + 280)
    one = wall_s(MEASURED, load(10, 300), decoders=1)
    assert one.value == pytest.approx(10 + measuring._LEAVE_S + 300)


def test_the_low_end_is_without_what_else_the_machine_does() -> None:
    held_up = Measured(10, 0.05, busy=0.5, alone=2.0, frames=100, cores=2, unsure=0.25)
    took = wall_s(held_up, load(2000, 0), decoders=2)
    fixed_s = 10 + measuring._LEAVE_S
    assert took.value == pytest.approx(fixed_s + 200)
    assert took.low == pytest.approx((fixed_s + 50) / 1.25)
    assert took.high == pytest.approx((fixed_s + 200) * 1.25)


def test_each_shard_ends_with_a_batch_that_is_filled_up(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=4)
    strata = draw(expand_inputs([str(tmp_path)], images=False).refs)
    probes = priced({ref.video_id: Probe(4, 4, 4, 0.4, "h264", 9, 1.0)
                     for ref in probing_order(strata)})  # fmt: skip
    work = load_of(forecast(strata, probes), shards=1, batch_size=32)
    assert work.pictures.value == 4 + 16 and work.decode_s.value == 1.0


@pytest.mark.parametrize("pictures", [40, 1])
def test_a_run_of_the_engine_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: int
) -> None:
    """With few pictures it is the network by itself that is timed."""
    spec, weights = make_spec(
        SpecChoice(backbone="mobilenet_v2", weights="random:0", sample=f"every={40 // pictures}")
    )
    monkeypatch.setattr(measuring, "build_network", lambda *_, **__: FakeNetwork(batch_size=8))
    for seed, name in enumerate("abc"):  # no picture comes twice: it is computed once
        write_clip(tmp_path / f"{name}.mp4", frames=40, seed=seed)
    refs = expand_inputs([str(tmp_path)], images=False).refs
    probe = Probe(pictures, pictures, 40, 4.0, "h264", 64 * 48, 0.02)
    found = measure(
        spec, weights, DecoderPolicy(decoders=2), batch_size=8,
        clips=[(ref, probe) for ref in refs], spent_s=1.5,
    )  # fmt: skip
    assert found.start_s > 1.5 and 0 < found.frame_s < 1
    assert 0 < found.busy <= found.alone <= found.cores
    assert found.frames == (112 if pictures == 40 else 24)


def test_the_run_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "RUN_S", 0.5)
    monkeypatch.setattr(measuring, "_GRACE_S", 0.5)
    spec, _ = make_spec(
        SpecChoice(backbone="mobilenet_v2", weights="random:0", sample="every=100000")
    )
    clip = write_clip(tmp_path / "long.mp4", frames=3000, size=(320, 240))
    refs = expand_inputs([str(clip)], images=False).refs * 50
    start = time.monotonic()
    network = FakeNetwork(batch_size=4)
    member = measuring._Member(network, spec, np.zeros((4, 224, 224, 3), np.uint8))
    measuring._run_engine([member], DecoderPolicy(decoders=2), refs)
    assert time.monotonic() - start < 15


def test_the_age_of_this_process() -> None:
    before = process_age_s()
    time.sleep(0.2)
    assert 0.1 < process_age_s() - before < 5
