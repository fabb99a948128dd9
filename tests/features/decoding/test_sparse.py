"""A clip that is decoded only where rows need it gives the rows and bytes of one decoded wholly."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from framebank.features.decoding import sparse
from framebank.features.decoding.decode import DecodeRequest, DecodeResult, decode_video
from framebank.features.decoding.sampling import parse_rule
from framebank.features.errors import VideoRejected
from tests import ROOT
from tests.clips.barcode import CLOSED_GOP, GIF, OPEN_GOP, BarcodeClip, write_barcode_clip

DATA = ROOT / "../shared/data/clips"
STEADY = tuple(range(0, 2400, 40))
UNEVEN = tuple(np.cumsum(np.random.default_rng(3).integers(10, 120, 60)).tolist())
RULES = ("fps=1", "fps=1/4", "uniform=5", "every=7", "keyframes", "all")
PYRAMID = {
    "preset": "veryfast",
    "x264-params": "bframes=5:b-adapt=0:b-pyramid=normal:keyint=24:scenecut=0",
}
HEVC = "log-level=none:pools=1:frame-threads=1:bframes=3:keyint=12:min-keyint=12:open-gop="
TRANSPORT = {"time_base": Fraction(1, 90000), "last_ticks": 3600}
VPX = {
    "deadline": "realtime",
    "cpu-used": "8",
    "auto-alt-ref": "1",
    "lag-in-frames": "8",
    "g": "12",
}
CLIPS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"options": CLOSED_GOP},
    "open.mkv": {"options": OPEN_GOP},
    "pyramid.mp4": {"options": PYRAMID},
    "variable.mp4": {"ticks": UNEVEN, "options": CLOSED_GOP, "last_ticks": 900},
    "edited.mp4": {  # what lies before zero is cut by an edit list
        "ticks": [tick - 200 for tick in STEADY],
        "options": CLOSED_GOP,
        "muxing": {"avoid_negative_ts": "disabled"},
    },
    "fragments.mp4": {
        "options": CLOSED_GOP,
        "muxing": {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
    },
    "live.mkv": {"options": CLOSED_GOP, "muxing": {"live": "1"}},  # without an index
    "late.ts": {"ticks": [90 * t + 123_456 for t in STEADY], "options": CLOSED_GOP, **TRANSPORT},
    "closed_hevc.mp4": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": f"{HEVC}0"},
    },
    "open_hevc.mkv": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": f"{HEVC}1"},
    },
    "vp8.webm": {"codec": "libvpx", "options": VPX},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VPX},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "13", "svtav1-params": "keyint=12"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}, "pace": 1},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}, "pace": 1},
    "jpeg.mp4": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}},
}
# What packets cannot tell of is decoded wholly: no times of showing, or nothing but differences.
WHOLE: dict[str, dict[str, Any]] = {
    "packed.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}, "pace": 1},
    "drawn.gif": {**GIF, "ticks": [tick // 10 for tick in STEADY]},
}
EVERY = CLIPS | WHOLE


@dataclasses.dataclass
class Decoded:
    """What came of a clip, with the hashes of its pictures, and how many frames were decoded."""

    result: DecodeResult
    pictures: dict[int, str]
    frames: int
    restarts: int

    @property
    def rows(self) -> list[tuple[int, int, int, str]]:
        numbers = (self.result.tokens, self.result.frame_index, self.result.pts_ms)
        each = zip(*(array.tolist() for array in numbers), strict=True)
        return [(token, index, pts_ms, self.pictures[token]) for token, index, pts_ms in each]

    @property
    def told(self) -> tuple[Any, ...]:
        """Return all that has to be the same, however the clip was decoded."""
        result = self.result
        told = (result.source, result.partial, result.decode_errors, result.capped, result.warning)
        return (self.rows, *told)


def run(path: Path, sample: str, check: str, **settings: Any) -> Decoded:
    pictures: dict[int, str] = {}
    frames = [0]
    restarts: list[int] = []

    def take(token: int, picture: NDArray[np.uint8]) -> None:
        assert token not in pictures, "a frame was handed out twice"
        pictures[token] = hashlib.md5(picture.tobytes()).hexdigest()

    def restart() -> None:
        restarts.append(1)
        pictures.clear()

    request = DecodeRequest(path=str(path), sample=sample, size=32, check=check, **settings)
    result = decode_video(
        request, emit_frame=take, beat=lambda count: frames.append(count), restart=restart
    )
    return Decoded(result, pictures, max(frames), len(restarts))


def write(path: Path, how: dict[str, Any]) -> BarcodeClip:
    how = {"ticks": STEADY, "size": (96, 64), **how}
    if how.pop("pace", 0):  # these have no finer clock than their rate
        how |= {"ticks": range(60), "time_base": Fraction(1, 25), "last_ticks": 1}
    scheduling = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        return write_barcode_clip(path, **how)
    finally:  # SVT-AV1 gives a thread of root real-time priority, and leaves it at that
        os.sched_setscheduler(0, *scheduling)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sparse")
    return {name: write(folder / name, how).path for name, how in EVERY.items()}


@pytest.mark.parametrize("name", EVERY)
def test_rows_and_bytes_are_those_of_decoding_wholly(name: str, made: dict[str, Path]) -> None:
    for sample in RULES:
        sampled = run(made[name], sample, "sampled")
        assert sampled.told == run(made[name], sample, "whole").told, sample
        assert sampled.result.checked == ("sampled" if name in CLIPS else "whole"), sample
        if name in CLIPS:  # no picture that no row has, as the first for its size
            assert sampled.pictures.keys() == set(sampled.result.tokens.tolist()), sample


@pytest.mark.parametrize("name", [name for name in CLIPS if not name.endswith(".ts")])
def test_going_to_a_place_gives_what_reading_up_to_it_does(
    name: str, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "_SEEK_OVER", 0)
    for sample in ("fps=1/2", "uniform=3", "keyframes"):
        sampled = run(made[name], sample, "sampled")
        assert sampled.told == run(made[name], sample, "whole").told, sample
        assert sampled.result.checked == "sampled"


@pytest.mark.parametrize("name", [name for name in CLIPS if name != "open.mkv"])
def test_only_what_is_needed_is_decoded(name: str, made: dict[str, Path]) -> None:
    sampled, whole = (run(made[name], "fps=1/2", check) for check in ("sampled", "whole"))
    assert sampled.frames < whole.frames / 2


def test_max_frames_cuts_the_same_rows(made: dict[str, Path]) -> None:
    cut = run(made["closed.mp4"], "every=3", "sampled", max_frames=4)
    assert cut.told == run(made["closed.mp4"], "every=3", "whole", max_frames=4).told
    assert cut.result.capped and cut.result.checked == "sampled"


def test_a_clip_that_begins_amid_a_group_is_decoded_wholly(
    made: dict[str, Path], tmp_path: Path
) -> None:
    data = made["late.ts"].read_bytes()
    amid = tmp_path / "amid.ts"
    amid.write_bytes(data[: 3 * 188] + data[40 * 188 :])
    sampled = run(amid, "fps=2", "sampled")
    assert sampled.told == run(amid, "fps=2", "whole").told
    assert sampled.result.checked == "whole" and sampled.restarts == 1


def test_a_doubt_that_comes_late_leaves_nothing_behind(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(made["closed.mp4"], "every=2", "whole")
    take, calls = sparse._Decoding._take, itertools.count()

    def doubting(self: Any, *words: Any, **more: Any) -> None:
        if next(calls) == 20:
            raise sparse.Doubt("late")
        take(self, *words, **more)

    monkeypatch.setattr(sparse._Decoding, "_take", doubting)
    sampled = run(made["closed.mp4"], "every=2", "sampled")
    assert sampled.restarts == 1 and sampled.result.checked == "whole"
    assert sampled.told == whole.told


def test_what_is_damaged_and_wanted_is_decoded_wholly_with_partial_results(
    made: dict[str, Path], tmp_path: Path
) -> None:
    data = bytearray(made["closed.mp4"].read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(data)
    sampled = run(bad, "all", "sampled", allow_partial=True)
    assert sampled.told == run(bad, "all", "whole", allow_partial=True).told
    assert sampled.result.partial and sampled.result.checked == "whole"


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shares_have_each_picture_once(count: int, made: dict[str, Path]) -> None:
    path = str(made["closed.mp4"])
    request = DecodeRequest(path=path, sample="fps=2", size=32, check="sampled")
    whole = run(made["closed.mp4"], "fps=2", "whole")
    found: dict[int, str] = {}

    def take(token: int, picture: NDArray[np.uint8]) -> None:
        assert token not in found
        found[token] = hashlib.md5(picture.tobytes()).hexdigest()

    for number in range(count):
        result = sparse.decode_needed(
            request,
            parse_rule("fps=2"),
            emit_frame=take,
            beat=lambda frames: None,
            share=(number, count),
        )
        assert result.tokens.tolist() == whole.result.tokens.tolist()
        assert result.source == whole.result.source
    assert [found[token] for token in result.tokens.tolist()] == [row[3] for row in whole.rows]


def damaged(data: bytes, cases: int) -> Iterator[bytes]:
    """Yield a file with something wrong with it, in the same ways each time."""
    chance = random.Random(7)
    for case in range(cases):
        bad, at = bytearray(data), chance.randrange(len(data))
        if case % 5 == 0:
            del bad[at : at + chance.choice([1, 188, 2000])]
        elif case % 5 == 1:
            bad[at : at + 100] = bytes(len(bad[at : at + 100]))
        elif case % 5 == 2:  # where an index is
            at = chance.choice([chance.randrange(1500), len(data) - 1 - chance.randrange(1500)])
            bad[at] ^= 1 << chance.randrange(8)
        else:
            bad[at] ^= 1 << chance.randrange(8)
        yield bytes(bad)


@pytest.mark.parametrize("name", ["closed.mp4", "late.ts"])
def test_a_damaged_clip_gives_no_picture_that_it_does_not_have(
    name: str, made: dict[str, Path], tmp_path: Path
) -> None:
    """Where decoding wholly takes a clip its rows are the same; where it refuses it, so does the
    other, or every row is one of the clip as it was: the damage lay outside."""
    sound = {row[1:] for row in run(made[name], "all", "whole").rows}
    path = tmp_path / name
    in_part = 0
    for bad in damaged(made[name].read_bytes(), 60):
        path.write_bytes(bad)
        answers: list[Decoded | VideoRejected] = []
        for check in ("sampled", "whole"):
            try:
                answers.append(run(path, "fps=1", check))
            except VideoRejected as err:
                answers.append(err)
        sampled, whole = answers
        in_part += not isinstance(sampled, VideoRejected) and sampled.result.checked == "sampled"
        if isinstance(sampled, VideoRejected):
            assert isinstance(whole, VideoRejected)
            assert str(sampled) == str(whole)
        elif isinstance(whole, VideoRejected):
            assert sampled.result.checked == "sampled"
            assert {row[1:] for row in sampled.rows} <= sound
        else:
            assert sampled.told == whole.told
    assert in_part


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the project")
@pytest.mark.parametrize("seek_over", [0, sparse._SEEK_OVER])
@pytest.mark.parametrize("folder", ["natural", "odd"])
def test_real_clips_give_the_same(
    folder: str, seek_over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "_SEEK_OVER", seek_over)
    checked = []
    for path in sorted((DATA / folder).iterdir()):
        if path.stat().st_size > 3_000_000:
            continue
        answers: list[Any] = []
        for check in ("sampled", "whole"):
            try:
                decoded = run(path, "fps=1/2", check)
                checked.append(decoded.result.checked)
                answers.append(decoded.told)
            except VideoRejected as err:
                answers.append((str(err),))
        assert answers[0] == answers[1], path.name
    assert checked.count("sampled") >= 10
