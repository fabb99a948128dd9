from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framebank.features.decoding.container import DecodeLimits, open_clip
from framebank.features.decoding.damage import StatedEnd, ffmpeg_messages, stated_end
from framebank.features.decoding.decode import DecodeRequest, DecodeResult, decode_video
from framebank.features.errors import VideoRejected

X264 = {"preset": "veryfast", "x264-params": "keyint=12:bframes=2:scenecut=0"}
MJPEG = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
FORMATS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"codec": "libx264", "options": X264},
    "h264.mkv": {"codec": "libx264", "options": X264},
    "h264.avi": {"codec": "libx264", "options": X264},
    "h264.flv": {"codec": "libx264", "options": X264},
    "h264.ts": {"codec": "libx264", "options": X264},
    "h264.h264": {"codec": "libx264", "options": X264},
    "fragmented.mp4": {
        "codec": "libx264",
        "options": X264,
        "muxing": {"movflags": "frag_keyframe+empty_moov"},
    },
    "index_first.mp4": {"codec": "libx264", "options": X264, "muxing": {"movflags": "faststart"}},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "flv1.flv": {"codec": "flv1"},
    "mjpeg.avi": MJPEG,
    "ffv1.mkv": {"codec": "ffv1", "options": {"slicecrc": "1"}},
    "png.mov": {"codec": "png", "pix_fmt": "rgb24"},
    "anim.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
}
NO_END_STATED = ("h264.ts", "h264.h264", "mpeg2.ts", "mpeg2.mpg")
HIDES_DAMAGE = ("vp9.webm",)  # its decoder has nothing to check against
LENGTHS_AMID = ("h264.flv", "fragmented.mp4")  # a length that is hit may point past the file's end
FRAMES = 50


def write(path: Path, *, codec: str, pix_fmt: str = "yuv420p", **how: Any) -> Path:
    """Write 50 frames of moving noise, 2 s (a GIF: 100 frames a second is its finest)."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    with av.open(str(path), "w", options={"fflags": "+bitexact", **how.get("muxing", {})}) as out:
        stream = out.add_stream(codec, rate=25, options=how.get("options", {}))
        stream.width, stream.height, stream.pix_fmt = 128, 96, pix_fmt
        for number in range(FRAMES):
            picture = np.kron(np.roll(noise, number, (0, 1)), np.ones((4, 4, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(stream.encode(frame.reformat(format=pix_fmt)))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: write(folder / name, **how) for name, how in FORMATS.items()}


def run(path: Path, *, allow_partial: bool = False) -> DecodeResult:
    request = DecodeRequest(path=str(path), sample="all", size=16, allow_partial=allow_partial)
    return decode_video(request, emit_frame=lambda token, picture: None, beat=lambda frames: None)


def verdict(path: Path) -> str:
    with pytest.raises(VideoRejected) as caught:
        run(path)
    return caught.value.error_class


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_clip_is_no_false_alarm(name: str, whole: dict[str, Path]) -> None:
    result = run(whole[name])
    assert (result.source.frames, result.partial, result.decode_errors) == (FRAMES, False, 0)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in HIDES_DAMAGE])
def test_damage_in_the_middle_is_corrupt(name: str, whole: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(whole[name].read_bytes())
    for offset in range(len(content) * 2 // 5, len(content) * 3 // 5, 97):
        content[offset] ^= 0x41
    damaged = tmp_path / name
    damaged.write_bytes(content)
    allowed = ("corrupt", "truncated") if name in LENGTHS_AMID else ("corrupt",)
    assert verdict(damaged) in allowed
    part = run(damaged, allow_partial=True)
    assert part.partial and part.decode_errors > 0
    assert 0 < part.source.frames < FRAMES


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_was_cut_is_truncated(
    name: str, share: float, whole: dict[str, Path], tmp_path: Path
) -> None:
    content = whole[name].read_bytes()
    cut = tmp_path / name
    cut.write_bytes(content[: int(len(content) * share)])
    if name in NO_END_STATED:  # where the cut falls between two packets nothing shows it
        try:
            assert run(cut).source.frames < FRAMES
        except VideoRejected as refused:
            assert refused.error_class == "truncated"
        return
    assert verdict(cut) == "truncated"


def test_a_file_cut_between_two_clusters_is_truncated(tmp_path: Path) -> None:
    muxing = {"cluster_time_limit": "400"}
    path = write(tmp_path / "a.mkv", codec="libx264", options=X264, muxing=muxing)
    content = path.read_bytes()
    cluster = content.index(b"\x1f\x43\xb6\x75", len(content) // 2)
    path.write_bytes(content[:cluster])
    assert verdict(path) == "truncated"


def test_a_recording_may_begin_in_the_middle(whole: dict[str, Path], tmp_path: Path) -> None:
    for name in ("h264.ts", "mpeg2.ts", "h264.h264", "mpeg2.mpg"):
        content = whole[name].read_bytes()
        joined = tmp_path / name
        joined.write_bytes(content[len(content) // 3 :])
        result = run(joined)
        assert not result.partial and FRAMES // 4 < result.source.frames < FRAMES, name


def test_sound_that_goes_on_is_no_cut(tmp_path: Path) -> None:
    for name, codec in (("a.flv", "aac"), ("a.mkv", "aac"), ("a.mp4", "aac")):
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            film = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
            film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
            sound = out.add_stream(codec, rate=44100)
            layout, kind = sound.codec_context.layout.name, sound.codec_context.format
            for number in range(25):
                frame = av.VideoFrame(64, 48, "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(film.encode(frame))
            for number in range(300):
                quiet = av.AudioFrame(format=kind, layout=layout, samples=1024)
                for plane in quiet.planes:
                    plane.update(bytes(plane.buffer_size))
                quiet.sample_rate, quiet.pts = 44100, 1024 * number
                out.mux(sound.encode(quiet))
            for stream in (film, sound):
                out.mux(stream.encode(None))
        result = run(path)
        assert not result.partial and result.source.frames == 25, name


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("h264.mp4", StatedEnd(Fraction(2), False)),
        ("h264.mkv", StatedEnd(Fraction(2), False)),
        ("mpeg4.avi", StatedEnd(Fraction(2), False)),
        ("h264.ts", None),
        ("anim.gif", None),
    ],
)
def test_the_stated_end(name: str, end: StatedEnd | None, whole: dict[str, Path]) -> None:
    with ffmpeg_messages(), open_clip(str(whole[name]), DecodeLimits()) as clip:
        got = stated_end(clip)
    if end is None or got is None:
        assert got is end
    else:
        assert abs(got.end_s - end.end_s) < Fraction(1, 10) and got.whole_file == end.whole_file


def test_messages_are_collected_and_the_level_is_put_back(tmp_path: Path) -> None:
    before = av.logging.get_level()
    with ffmpeg_messages() as messages:
        av.logging.log(av.logging.ERROR, "test", "twice")
        av.logging.log(av.logging.ERROR, "test", "twice")
        av.logging.log(av.logging.WARNING, "test", "too quiet")
        assert [text for _, _, text in messages] == ["twice", "twice"]
    assert av.logging.get_level() == before
