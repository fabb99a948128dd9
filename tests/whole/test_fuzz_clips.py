"""Small clips of 12 formats, glued, cut and patched, among sound ones, through real decoders.

Whatever a file holds: the sound clips are done, no fault of ours stands in a verdict, and the time
is bounded. `FRAMEBANK_FUZZ=500 pytest tests/whole/test_fuzz_clips.py` makes more of them, from a
seed each (`FRAMEBANK_FUZZ_SEED`).
"""

from __future__ import annotations

import dataclasses
import os
import random
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framebank.features.decoders.pool import ClipDone, ClipRejected, DecoderPolicy, DecoderPool
from framebank.features.spec import FeatureSpec
from framebank.features.video import VideoRef
from tests.made.made_cache import SPEC

COUNT = int(os.environ.get("FRAMEBANK_FUZZ", "60"))
SEED = int(os.environ.get("FRAMEBANK_FUZZ_SEED", "11"))
RULES = ("all", "fps=4", "uniform=5", "keyframes")
SECONDS_EACH, SECONDS_IN_ALL = 20.0, 60.0 + 1.0 * COUNT
FORMATS: dict[str, dict[str, Any]] = {
    "a.mp4": {"codec": "libx264"},
    "b.mp4": {"codec": "libx264", "muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "c.mov": {"codec": "qtrle", "pix_fmt": "rgb24"},
    "d.mkv": {"codec": "libx264"},
    "e.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "f.avi": {"codec": "mpeg4"},
    "g.flv": {"codec": "flv1"},
    "h.ts": {"codec": "libx264"},
    "i.mpg": {"codec": "mpeg2video"},
    "j.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "k.nut": {"codec": "mpeg4"},
    "l.h264": {"codec": "libx264"},
}


def write(path: Path, *, codec: str, pix_fmt: str = "yuv420p", **how: Any) -> bytes:
    """Write 12 frames at 12.5 a second and return the file's bytes."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    options = how.get("options", {"preset": "ultrafast", "g": "4"} if codec == "libx264" else {})
    with av.open(str(path), "w", options=how.get("muxing", {})) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for number in range(12):
            picture = np.kron(np.roll(noise, number, (0, 1)), np.ones((4, 4, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(stream.encode(frame.reformat(format=pix_fmt)))
        out.mux(stream.encode(None))
    return path.read_bytes()


def spoil(seed: random.Random, clips: list[bytes]) -> bytes:
    """Return one or two clips glued, then perhaps cut, and with bytes of it changed."""
    data = bytearray(seed.choice(clips))
    for _ in range(seed.choice((0, 0, 1, 2))):
        data += bytes(data) if seed.random() < 0.5 else seed.choice(clips)
    if seed.random() < 0.4:
        start = seed.randrange(len(data) // 4) if seed.random() < 0.3 else 0
        data = data[start : seed.randrange(start + 1, len(data) + 1)]
    for _ in range(seed.choice((0, 1, 1, 4, 16))):
        # Headers stand at the start, or at the end where an index is written last.
        span = min(len(data), seed.choice((64, 512, 4096)))
        place = (
            seed.randrange(span) if seed.random() < 0.7 else len(data) - 1 - seed.randrange(span)
        )
        width = seed.choice((1, 1, 4, 8))
        value = seed.choice((b"\0", b"\xff", b"\x7f", b"\x80", bytes([seed.randrange(256)])))
        data[place : place + width] = value * width
    return bytes(data)


def make_spec(rule: str) -> FeatureSpec:
    return dataclasses.replace(SPEC, sample=rule, input_size=32)


def ref_of(path: Path) -> VideoRef:
    status = path.stat()
    return VideoRef(path.name, str(path), status.st_size, str(status.st_mtime_ns))


def decode(refs: list[VideoRef], spec: FeatureSpec) -> dict[str, ClipDone | ClipRejected]:
    policy = DecoderPolicy(decoders=2, timeout_s=SECONDS_EACH)
    last: dict[str, ClipDone | ClipRejected] = {}
    pool = DecoderPool(spec, policy, feature_dim=6)
    try:
        for event in pool.decode(refs):
            if isinstance(event, ClipDone | ClipRejected):
                assert event.ref.video_id not in last, "two last words"
                last[event.ref.video_id] = event
    finally:
        pool.close()
    return last


@pytest.mark.parametrize("rule", RULES)
def test_spoilt_clips_cost_no_other_and_meet_no_fault_of_ours(rule: str, tmp_path: Path) -> None:
    clips = [write(tmp_path / name, **how) for name, how in FORMATS.items()]
    sound = [tmp_path / name for name in FORMATS]
    seed = random.Random(f"{SEED} {rule}")
    spoilt = []
    for number in range(COUNT // len(RULES)):
        path = tmp_path / f"spoilt{number:04}"
        path.write_bytes(spoil(seed, clips))
        spoilt.append(path)
    mixed = [*sound, *spoilt]
    seed.shuffle(mixed)
    begun = time.monotonic()
    last = decode([ref_of(path) for path in mixed], make_spec(rule))
    assert time.monotonic() - begun < SECONDS_IN_ALL
    assert set(last) == {path.name for path in mixed}
    lost = [last[path.name] for path in sound if not isinstance(last[path.name], ClipDone)]
    assert lost == []
    verdicts = [event for event in last.values() if isinstance(event, ClipRejected)]
    ours = [v for v in verdicts if v.reason.error_class in ("internal", "hang", "crash")]
    assert [(v.ref.video_id, v.reason.message) for v in ours] == []
    words = ("Traceback", "IndexError", "OverflowError", "ValueError", "TypeError", "KeyError")
    assert [v.reason.message for v in verdicts if any(w in v.reason.message for w in words)] == []
