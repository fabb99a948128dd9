from __future__ import annotations

import dataclasses
import resource
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from framebank.features.decoding import decode
from framebank.features.decoding.container import DecodeLimits
from framebank.features.decoding.decode import DecodeRequest, DecodeResult, decode_video
from framebank.features.errors import UsageError, VideoRejected
from tests import ROOT
from tests.clips.barcode import (
    CLOSED_GOP,
    GIF,
    OPEN_GOP,
    BarcodeClip,
    barcode_picture,
    read_number,
    write_barcode_clip,
)
from tests.clips.sampling_reference import reference_rows

DATA = ROOT / "../shared/data/clips"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the project")

STEADY = tuple(range(0, 1600, 40))
UNEVEN = (0, 10, 27, 67, 400, 410, 450, 800, 1500, 1517, 1520, 1990, 2400, 2407, 2700, 3333, 3400)
RULES = (
    *("fps=1", "fps=4", "fps=60", "fps=30000/1001", "uniform=1", "uniform=7", "uniform=50"),
    *("every=1", "every=3", "keyframes"),
)
VP9 = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "8"}
CLIPS: dict[str, dict[str, Any]] = {
    "constant.mp4": {"ticks": STEADY},
    "variable.mp4": {"ticks": UNEVEN},
    "closed_gop.mp4": {"ticks": STEADY, "options": CLOSED_GOP},
    "open_gop.mkv": {"ticks": STEADY, "options": OPEN_GOP},
    "open_gop_variable.mp4": {"ticks": UNEVEN, "options": OPEN_GOP, "last_ticks": 900},
    "late_start.mp4": {"ticks": [tick + 5000 for tick in UNEVEN], "options": CLOSED_GOP},
    "late_start.ts": {
        "ticks": [90 * tick + 123_456 for tick in STEADY],
        "time_base": Fraction(1, 90000),
        "last_ticks": 3600,
        "options": OPEN_GOP,
    },
    "vp9.webm": {"ticks": UNEVEN, "codec": "libvpx-vp9", "options": VP9},
    "packed.avi": {
        "ticks": range(60),
        "time_base": Fraction(1001, 30000),
        "last_ticks": 1,
        "codec": "mpeg4",
        "options": {"bf": "2"},
    },
    "hevc.mp4": {
        "ticks": STEADY,
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:open-gop=1"},
    },
    "palette.gif": {**GIF, "ticks": [tick // 10 for tick in STEADY]},
}


@dataclasses.dataclass
class Decoded:
    """A clip's result with the numbers read off the pictures of its rows."""

    result: DecodeResult
    pictures: dict[int, NDArray[np.uint8]]

    @property
    def numbers(self) -> list[int]:
        return [read_number(self.pictures[token]) for token in self.result.tokens.tolist()]


def run(path: Path, sample: str = "all", **settings: Any) -> Decoded:
    pictures: dict[int, NDArray[np.uint8]] = {}

    def take(token: int, picture: NDArray[np.uint8]) -> None:
        assert token not in pictures, "a frame was handed out twice"
        pictures[token] = picture.copy()

    settings = {"size": 96, **settings}
    request = DecodeRequest(path=str(path), sample=sample, **settings)
    return Decoded(decode_video(request, emit_frame=take, beat=lambda frames: None), pictures)


def rejection(path: Path, sample: str = "all", **settings: Any) -> VideoRejected:
    with pytest.raises(VideoRejected) as caught:
        run(path, sample, **settings)
    return caught.value


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BarcodeClip]:
    folder = tmp_path_factory.mktemp("barcodes")
    return {name: write_barcode_clip(folder / name, **how) for name, how in CLIPS.items()}


def check_rows(decoded: Decoded, clip: BarcodeClip, rows: list[int], first: int = 0) -> None:
    """Hold a result against the rows of the reference; `first` is the number first shown."""
    start = clip.times[first]
    assert decoded.numbers == [first + row for row in rows]
    assert decoded.result.frame_index.tolist() == rows
    shown = [round((clip.times[first + row] - start) * 1000) for row in rows]
    assert decoded.result.pts_ms.tolist() == shown


@pytest.mark.parametrize("name", CLIPS)
def test_every_rule_picks_the_frames_of_the_reference(
    name: str, made: dict[str, BarcodeClip]
) -> None:
    clip = made[name]
    with av.open(str(clip.path)) as container:
        frames = [(frame.duration, frame.key_frame) for frame in container.decode(video=0)]
        last = frames[-1][0] * container.streams.video[0].time_base
    keys = [key for _, key in frames]
    assert sum(keys) >= 1
    # An mp4 states durations between decoding times: with B-frames the last one's is not the gap
    # to anything that is shown. What the container says counts.
    states_decoding = name in ("open_gop_variable.mp4", "late_start.mp4")
    end = clip.times[-1] + last if states_decoding else clip.end
    for sample in RULES:
        decoded = run(clip.path, sample)
        check_rows(decoded, clip, reference_rows(sample, clip.times, end, keys))
        assert not decoded.result.partial and decoded.result.decode_errors == 0
        assert decoded.result.source.frames == len(clip)
        duration = float(end - clip.times[0])
        assert decoded.result.source.duration_s == pytest.approx(duration, abs=1e-6)


def test_frames_outside_the_edit_list_do_not_count(tmp_path: Path) -> None:
    ticks = [tick - 1000 for tick in STEADY]  # what lies before zero is cut by an edit list
    clip = write_barcode_clip(
        tmp_path / "edited.mp4",
        ticks=ticks,
        options=CLOSED_GOP,
        muxing={"avoid_negative_ts": "disabled"},
    )
    first = ticks.index(0)
    for sample in ("all", "fps=10", "uniform=5"):
        decoded = run(clip.path, sample)
        rows = reference_rows(sample, clip.times[first:], clip.end)
        check_rows(decoded, clip, rows, first)
        assert decoded.result.source.frames == len(clip) - first


def test_max_frames_cuts_and_marks(made: dict[str, BarcodeClip]) -> None:
    clip = made["variable.mp4"]
    for sample in ("fps=60", "uniform=50", "every=3", "all"):
        rows = reference_rows(sample, clip.times, clip.end)
        for most in (1, 5, len(rows), len(rows) + 1):
            decoded = run(clip.path, sample, max_frames=most)
            check_rows(decoded, clip, rows[:most])
            assert decoded.result.capped == (len(rows) > most)


@pytest.mark.parametrize("name", ["open_gop_variable.mp4", "late_start.ts", "packed.avi"])
def test_without_its_forecast_the_result_is_the_same(
    name: str, made: dict[str, BarcodeClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sample in RULES:
        forecast = run(made[name].path, sample)
        with monkeypatch.context() as patch:
            patch.setattr(decode.Forecast, "needs", lambda *_: False)
            scanned = run(made[name].path, sample)
        np.testing.assert_array_equal(forecast.result.tokens, scanned.result.tokens)
        np.testing.assert_array_equal(forecast.result.pts_ms, scanned.result.pts_ms)
        for token in set(scanned.result.tokens.tolist()):
            np.testing.assert_array_equal(forecast.pictures[token], scanned.pictures[token])


def test_the_forecast_fetches_nothing_twice_on_orderly_clips(made: dict[str, BarcodeClip]) -> None:
    for name in ("closed_gop.mp4", "open_gop_variable.mp4", "late_start.ts", "vp9.webm"):
        for sample in RULES:
            decoded = run(made[name].path, sample)
            assert set(decoded.pictures) == set(decoded.result.tokens.tolist())


def test_timestamps_that_go_back_are_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "shuffled.mkv"
    order = [0, 3, 1, 2, 6, 5, 4, 7, 9, 8]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuvj420p"
        for place, number in enumerate(order):
            picture = barcode_picture(number, (192, 128))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            for packet in stream.encode(frame.reformat(format="yuvj420p")):
                packet.time_base = Fraction(1, 1000)
                packet.dts, packet.pts, packet.duration = 40 * place, 40 * number + 200, 40
                out.mux(packet)
        out.mux(stream.encode(None))
    times = [Fraction(40 * number, 1000) for number in range(10)]
    for sample in ("all", "fps=5", "uniform=3", "every=4"):
        decoded = run(path, sample)
        rows = reference_rows(sample, times, Fraction(400, 1000))
        assert decoded.numbers == rows
        assert decoded.result.frame_index.tolist() == rows
        assert decoded.result.pts_ms.tolist() == [40 * row for row in rows]


def test_frames_without_timestamps_follow_the_nominal_rate(tmp_path: Path) -> None:
    path = tmp_path / "raw.h264"
    write_barcode_clip(path, ticks=range(20), time_base=Fraction(1, 25), last_ticks=1)
    decoded = run(path)
    assert decoded.numbers == list(range(20))
    rate = decoded.result.source.rate_fps
    expected = [round(1000 * index / rate) for index in range(20)]
    assert np.abs(decoded.result.pts_ms - expected).max() <= 1


def test_slice_threads_change_no_byte(made: dict[str, BarcodeClip]) -> None:
    for name in ("open_gop.mkv", "vp9.webm", "hevc.mp4"):
        one, three = (run(made[name].path, threads=threads) for threads in (1, 3))
        assert one.result.tokens.tolist() == three.result.tokens.tolist()
        for token, picture in one.pictures.items():
            np.testing.assert_array_equal(picture, three.pictures[token])


def test_a_damaged_clip_is_refused_or_stored_in_part(tmp_path: Path) -> None:
    clip = write_barcode_clip(tmp_path / "a.mkv", ticks=STEADY, options=CLOSED_GOP)
    content = bytearray(clip.path.read_bytes())
    for offset in range(len(content) // 2, len(content) // 2 + 600, 7):
        content[offset] ^= 0x5A
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(content)
    refused = rejection(damaged)
    assert (refused.stage, refused.error_class) == ("decode", "corrupt")
    assert "errors" in refused.message and " s" in refused.message
    decoded = run(damaged, allow_partial=True)
    assert decoded.result.partial and decoded.result.decode_errors > 0
    assert 0 < len(decoded.result.tokens) < len(clip)
    numbers = decoded.numbers  # every picture that is left can be read
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("name", ["constant.mp4", "open_gop.mkv", "packed.avi", "palette.gif"])
def test_a_clip_that_was_cut_is_refused_or_stored_in_part(
    name: str, made: dict[str, BarcodeClip], tmp_path: Path
) -> None:
    content = made[name].path.read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(content[: len(content) * 6 // 10])
    refused = rejection(cut)
    assert refused.error_class == "truncated"
    if name != "constant.mp4":  # an mp4 with its index at the end has no part to keep
        decoded = run(cut, allow_partial=True)
        assert decoded.result.partial
        numbers = decoded.numbers  # of the last group a frame in between may be lost
        assert numbers == sorted(numbers) and numbers[:8] == list(range(8))
        assert len(numbers) < len(made[name])


def test_a_resolution_that_changes_in_the_middle(tmp_path: Path) -> None:
    small, large = (tmp_path / name for name in ("small.ts", "large.ts"))
    ticks = [3600 * number for number in range(10)]
    write_barcode_clip(small, ticks=ticks, time_base=Fraction(1, 90000), last_ticks=3600)
    write_barcode_clip(
        large,
        ticks=[tick + 90000 for tick in ticks],
        time_base=Fraction(1, 90000),
        last_ticks=3600,
        size=(320, 256),
    )
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    decoded = run(both)
    assert decoded.numbers == [*range(10), *range(10)]
    assert (decoded.result.source.width, decoded.result.source.height) == (192, 128)
    refused = rejection(both, limits=DecodeLimits(max_pixels=192 * 160))
    assert (refused.stage, refused.error_class) == ("decode", "too_large")


def test_too_many_rows_are_refused_before_they_are_made(
    made: dict[str, BarcodeClip], tmp_path: Path
) -> None:
    assert rejection(made["constant.mp4"].path, "uniform=300000").error_class == "too_large"
    far = write_barcode_clip(tmp_path / "far.mkv", ticks=[0, 40, 80, 40_000_000_000])
    assert rejection(far.path, "fps=100").error_class == "too_large"
    assert run(far.path, "fps=100", max_frames=3).numbers == [0, 0, 0]
    refused = rejection(far.path, "uniform=6", limits=DecodeLimits(max_rows=5))
    assert refused.error_class == "too_large"


def test_a_rule_that_is_none_is_a_usage_error(made: dict[str, BarcodeClip]) -> None:
    with pytest.raises(UsageError):
        run(made["constant.mp4"].path, "fps=fast")


def test_the_beat_is_heard_for_every_frame(made: dict[str, BarcodeClip]) -> None:
    beats: list[int] = []
    request = DecodeRequest(path=str(made["closed_gop.mp4"].path), sample="fps=1", size=32)
    decode_video(request, emit_frame=lambda token, picture: None, beat=beats.append)
    assert beats == sorted(beats) and beats[-1] >= len(STEADY) - 8
    assert len(beats) >= len(STEADY)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    def peak_kib(frames: int) -> int:
        clip = write_barcode_clip(
            tmp_path / f"{frames}.mp4",
            ticks=[40 * number for number in range(frames)],
            options={"preset": "ultrafast"},
            size=(96, 64),
        )
        request = DecodeRequest(path=str(clip.path), sample="fps=1", size=32)
        decode_video(request, emit_frame=lambda token, picture: None, beat=lambda frames: None)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak_kib(300)
    assert peak_kib(4000) - before < 20_000  # the frames themselves would be 37 MB


@needs_data
def test_real_clips_end_as_they_should() -> None:
    expected = {
        "ExoPlayer-full_blocks.mkv": "no_video_stream",
        "ExoPlayer-sample.text.mp4": "no_video_stream",
        "ExoPlayer-sample_ac3.mp4": "no_video_stream",
        "ExoPlayer-subsample_encrypted_altref.webm": "encrypted",
        "decord-corrupted.mp4": "corrupt",
        "empty.mp4": "empty",
        "random-bytes.mp4": "not_a_video",
        "small-Mpeg4.mp4": "no_video_stream",
        "small-gif.gif": "no_frames",
        "small-mp3.mp3": "not_a_video",
        "text file ünïcode.mp4": "not_a_video",
        "truncated-demo.mp4": "truncated",
    }
    verdicts: dict[str, str] = {}
    for path in sorted((DATA / "odd").iterdir()):
        try:
            assert not run(path, "fps=2", size=32).result.partial
        except VideoRejected as refused:
            verdicts[path.name] = refused.error_class
    assert verdicts == expected
    for path in sorted((DATA / "natural").iterdir()):
        if path.stat().st_size < 1_000_000:  # the few large ones take long and are alike
            result = run(path, "fps=1", size=32).result
            assert not result.partial and len(result.tokens) >= 1


@pytest.mark.parametrize("matrix", ["ictcp", "chroma-derived-nc"])
def test_colours_that_ffmpeg_does_not_convert_have_words(matrix: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        options = {"x264-params": f"colormatrix={matrix}"}
        stream = out.add_stream("libx264", rate=5, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(stream.encode(None))
    with pytest.raises(VideoRejected, match="does not convert colours of the matrix") as rejected:
        decode_video(
            DecodeRequest(str(path), "all"), emit_frame=lambda *_: None, beat=lambda _: None
        )
    assert rejected.value.error_class == "unsupported_codec"
