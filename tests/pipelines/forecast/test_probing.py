"""Probes: they count as extraction does, on clips of every kind, and no clip takes them down."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from framebank.features.decoders import slot
from framebank.features.decoders.pool import ClipDone, ClipRejected, DecoderPolicy, DecoderPool
from framebank.features.decoding import probe as probing
from framebank.features.decoding.container import DecodeLimits
from framebank.features.decoding.decode import DecodeRequest
from framebank.features.decoding.probe import Probe, probe_clip
from framebank.features.errors import VideoRejected
from framebank.features.spec import FeatureSpec
from framebank.features.video import VideoRef
from framebank.pipelines.forecast.survey import probe_all
from framebank.pipelines.inputs.listing import expand_inputs
from tests.clips.mixed_clips import write_mixed_clips
from tests.clips.plain_clips import write_clip
from tests.servers.fake_bucket import serve_bucket

RULES = ("fps=2", "fps=1/3", "fps=30000/1001", "uniform=8", "every=10", "every=1", "keyframes")


def spec_of(sample: str) -> FeatureSpec:
    return FeatureSpec(
        "mobilenet_v2", "avg_pool", "random:0", "", 64, "stretch", "", sample, None, "float32",
        "float16",
    )  # fmt: skip


def request(clip: Path, sample: str = "fps=2", **changes: object) -> DecodeRequest:
    asked = DecodeRequest(str(clip), sample, size=64)
    return dataclasses.replace(asked, **changes)  # type: ignore[arg-type]


def probe_refs(refs: Sequence[VideoRef], sample: str, *, decode_s: float) -> dict[str, Probe]:
    found = probe_all(
        refs,
        spec_of(sample),
        DecoderPolicy(),
        deadline_s=time.monotonic() + 60,
        decode_s=lambda number: decode_s,
    )
    return {ref.video_id: probe for ref, probe in found}


def probe_folder(folder: Path, sample: str = "fps=2", *, decode_s: float = 0.0) -> dict[str, Probe]:
    refs = expand_inputs([str(folder)], images=False).refs
    return probe_refs(refs, sample, decode_s=decode_s)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_clips(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module", params=RULES)
def rule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def decode_folder(folder: Path, sample: str) -> dict[str, tuple[str, int, int]]:
    """Return what the decoders of extraction make of a folder: (class, rows, frames)."""
    pool = DecoderPool(spec_of(sample), DecoderPolicy(decoders=2))
    found = {}
    try:
        for event in pool.decode(expand_inputs([str(folder)], images=False).refs):
            if isinstance(event, ClipDone):
                counts = (len(event.fields["tokens"]), event.fields["source"]["frames"])
                found[event.ref.video_id] = ("", *counts)
            elif isinstance(event, ClipRejected):
                found[event.ref.video_id] = (event.reason.error_class, 0, 0)
    finally:
        pool.close()
    return found


def test_rows_of_every_rule_are_those_of_extraction(mixed: Path, rule: str) -> None:
    made = decode_folder(mixed, rule)
    probed = probe_folder(mixed, rule)
    assert {name: (p.error_class, p.rows, p.frames) for name, p in probed.items()} == made
    assert {name for name, (bad, _, _) in made.items() if bad} == {
        "cut.mp4", "text.mp4", "empty.mp4",
    }  # fmt: skip


def test_what_is_decoded_whole_says_the_same(mixed: Path) -> None:
    probed = probe_folder(mixed, decode_s=30)
    by_packets = probe_folder(mixed)
    good = {name for name, probe in probed.items() if not probe.error_class}
    assert all(probed[name].decode_s for name in good)
    assert {
        n: dataclasses.replace(p, decode_s=None, sampled_s=None) for n, p in probed.items()
    } == by_packets


def test_a_frame_that_stands_for_many_rows_is_one_picture(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", frames=3)
    probe = probe_clip(request(clip, "uniform=8"))
    assert (probe.rows, probe.pictures, probe.frames) == (8, 3, 3)
    assert probe.duration_s == pytest.approx(0.3)


def test_max_frames_and_max_rows_hold(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=20)
    assert probe_clip(request(clip, "every=1", max_frames=7)).rows == 7
    with pytest.raises(VideoRejected, match="asks for 20 rows"):
        probe_clip(request(clip, "every=1", limits=DecodeLimits(max_rows=19)))


@pytest.mark.parametrize("sample", ["fps=2", "every=4", "keyframes"])
def test_a_large_clip_is_judged_by_its_first_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: str
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=600)
    whole = probe_clip(request(clip, sample))
    monkeypatch.setattr(probing, "READ_BYTES", clip.stat().st_size // 3)
    part = probe_clip(request(clip, sample))
    assert part.estimated and not whole.estimated
    assert part.rows == pytest.approx(whole.rows, rel=0.1)
    assert part.duration_s == pytest.approx(whole.duration_s, rel=0.1)


def test_decoding_a_part_tells_what_the_whole_costs(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=900, size=(320, 240))
    part = probe_clip(request(clip), decode_s=0.05).decode_s
    whole = probe_clip(request(clip), decode_s=60).decode_s
    assert part is not None and whole is not None and whole > 0.1
    assert 0.4 < part / whole < 2.5


@pytest.mark.parametrize(
    ("script", "error_class"),
    [
        ("read line; sleep 60", "hang"),
        ("read line; kill -9 $$", "crash"),
        ("read line; printf 'P\\014\\0\\0\\0{\"rows\": -1}'; sleep 60", "crash"),
        ('read line; printf \'P\\027\\0\\0\\0{"error_class": "fine"}\'; sleep 60', "crash"),
        ("read line; echo nonsense; sleep 60", "crash"),
        ("read line; yes | tr -d '\\n'", "crash"),
    ],
)
def test_a_clip_that_takes_its_process_down_costs_its_probe_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error_class: str
) -> None:
    false_python = tmp_path / "python"
    false_python.write_text(f"#!/bin/sh\n{script}\n")
    false_python.chmod(0o755)
    monkeypatch.setattr(slot, "_PROBE_S", 0.5)
    monkeypatch.setattr(sys, "executable", str(false_python))
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4", frames=3)
    start = time.monotonic()
    found = probe_folder(tmp_path)
    assert {probe.error_class for probe in found.values()} == {error_class}
    assert len(found) == 2 and time.monotonic() - start < 20


def test_when_the_time_is_up_no_more_clips_are_begun(mixed: Path) -> None:
    refs = expand_inputs([str(mixed)], images=False).refs
    over = probe_all(
        refs,
        spec_of("fps=2"),
        DecoderPolicy(),
        deadline_s=time.monotonic() - 1,
        decode_s=lambda number: 0.0,
    )
    assert list(over) == []


def test_a_clip_in_a_bucket_is_copied_probed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))
    (tmp_path / "staging").mkdir()
    clip = write_clip(tmp_path / "clip.mp4", frames=12)
    with serve_bucket("clips") as server:
        server.put("a/clip.mp4", clip.read_bytes())
        size, generation = clip.stat().st_size, str(server.objects["a/clip.mp4"][1])
        refs = [
            VideoRef("clip", "gs://clips/a/clip.mp4", size, generation),
            VideoRef("gone", "gs://clips/a/gone.mp4", size, "1"),
        ]
        found = probe_refs(refs, "fps=2", decode_s=0.0)
    assert found["clip"] == probe_clip(request(clip))
    assert found["gone"].error_class == "missing"
    assert not list((tmp_path / "staging").iterdir())
