"""Files that say other than they are: glued ones, key flags, stated ends, too much work."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framebank.features.decoding.container import DecodeLimits
from framebank.features.decoding.decode import DecodeRequest, DecodeResult, decode_video
from framebank.features.decoding.frames import WorkBudget
from framebank.features.decoding.parts import MOST_PARTS
from framebank.features.decoding.probe import probe_clip
from framebank.features.errors import VideoRejected

X264 = {"preset": "veryfast", "g": "12", "bf": "2"}
PARTS = 20  # frames, 0.8 s
KINDS: dict[str, dict[str, Any]] = {
    "ts": {"codec": "libx264", "options": X264},
    "mpg": {"codec": "mpeg2video"},
    "webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mkv": {"codec": "libx264", "options": X264, "muxing": {"live": "1"}},
    "flv": {"codec": "flv1"},
    "avi": {"codec": "mpeg4"},
    "gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "mxf": {"codec": "mpeg2video"},
    "mp4": {"codec": "libx264", "options": X264},
    "wmv": {"codec": "msmpeg4"},
    "ivf": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "apng": {"codec": "apng", "pix_fmt": "rgb24"},
    "nut": {"codec": "mpeg4"},
    "rm": {"codec": "rv10"},
    "swf": {"codec": "flv1"},
    "wtv": {"codec": "mpeg2video"},
    "y4m": {"codec": "rawvideo"},
}


def write(path: Path, *, codec: str, seed: int = 0, pix_fmt: str = "yuv420p", **how: Any) -> bytes:
    """Write 20 frames at 25 a second, all of one grey that rises by `seed`."""
    width, height = how.get("size", (96, 64))
    first = how.get("first", 0)
    with av.open(str(path), "w", options=how.get("muxing", {})) as out:
        stream = out.add_stream(codec, rate=25, options=how.get("options", {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for number in range(PARTS):
            picture = np.full((height, width, 3), 40 + 100 * seed + number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = first + number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


def run(path: Path, sample: str = "all", **more: Any) -> tuple[DecodeResult, list[float]]:
    """Return the result and the mean grey of each row."""
    grey: dict[int, float] = {}

    def take(token: int, picture: np.ndarray[Any, Any]) -> None:
        grey[token] = float(picture.mean())

    request = DecodeRequest(path=str(path), sample=sample, size=16, **more)
    result = decode_video(request, emit_frame=take, beat=lambda frames: None)
    return result, [grey[token] for token in result.tokens.tolist()]


def verdict(path: Path, sample: str = "all", **more: Any) -> VideoRejected:
    with pytest.raises(VideoRejected) as caught:
        run(path, sample, **more)
    return caught.value


@pytest.mark.parametrize("size", [(96, 64), (64, 96)])
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_glued_parts_are_shown_one_after_the_other(
    kind: str, parts: int, size: tuple[int, int], tmp_path: Path
) -> None:
    first = write(tmp_path / f"a.{kind}", **KINDS[kind])
    second = write(tmp_path / f"b.{kind}", seed=1, size=size, **KINDS[kind])
    glued = tmp_path / f"glued.{kind}"
    glued.write_bytes(b"".join((first, second, first)[:parts]))
    result, grey = run(glued)
    assert len(grey) == parts * PARTS and not result.partial
    assert [value > 115 for value in grey] == [n // PARTS == 1 for n in range(len(grey))]
    assert sorted(result.tokens.tolist()) == result.tokens.tolist()
    steps = np.diff(result.pts_ms)
    assert steps.min() >= 30 and steps.max() <= 90
    assert result.source.duration_s == pytest.approx(parts * PARTS / 25, abs=0.1)
    _, few_grey = run(glued, f"uniform={parts}")
    assert [value > 115 for value in few_grey] == [n == 1 for n in range(parts)]


def ogg_with_sound(path: Path, *, rate: int) -> bytes:
    """Write an Ogg of a second of sound and `rate` frames (0: of sound alone)."""
    with av.open(str(path), "w", format="ogg") as out:
        sound = out.add_stream("flac", rate=48000)
        if rate:
            film = out.add_stream("libvpx", rate=rate, options=KINDS["webm"]["options"])
            film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        for number in range(rate):
            frame = av.VideoFrame(96, 64, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            out.mux(film.encode(frame))
        for number in range(50):
            quiet = av.AudioFrame(format="s16", layout="stereo", samples=960)
            quiet.planes[0].update(bytes(quiet.planes[0].buffer_size))
            quiet.sample_rate, quiet.pts = 48000, 960 * number
            out.mux(sound.encode(quiet))
        for stream in out.streams:
            out.mux(stream.encode(None))
    return path.read_bytes()


def test_each_link_of_a_chained_ogg_has_its_own_clock_and_sound(tmp_path: Path) -> None:
    slow, fast = (ogg_with_sound(tmp_path / "a.ogg", rate=rate) for rate in (25, 30))
    sound = ogg_with_sound(tmp_path / "a.ogg", rate=0)
    path = tmp_path / "chain.ogg"
    path.write_bytes(sound + slow + fast + sound + slow)
    result, _ = run(path)
    assert not result.partial and result.source.frames == 80
    steps = np.diff(result.pts_ms).tolist()
    assert steps[:25] == [40] * 25 and set(steps[25:54]) == {33, 34} and steps[55:] == [40] * 24
    for end in (-40, len(slow) + len(sound) + 100):
        path.write_bytes((sound + slow + fast)[:end])
        assert verdict(path).error_class == "truncated"
        assert run(path, allow_partial=True)[0].source.frames >= 25


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_later_part_that_was_cut_is_no_silent_loss(name: str, tmp_path: Path) -> None:
    whole = write(tmp_path / name, codec="libx264", options=X264)
    for length in (len(whole) // 3, len(whole) - 300):
        (tmp_path / name).write_bytes(whole + whole + whole[:length])
        assert verdict(tmp_path / name).error_class == "truncated"
        result, _ = run(tmp_path / name, allow_partial=True)
        assert result.partial and 2 * PARTS <= result.source.frames < 3 * PARTS


def test_more_parts_than_are_read_is_no_silent_loss(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.ivf", **KINDS["ivf"])
    (tmp_path / "a.ivf").write_bytes(whole * (MOST_PARTS + 1))
    refused = verdict(tmp_path / "a.ivf")
    assert refused.error_class == "too_large" and "glued" in refused.message


@pytest.mark.parametrize("index_first", [False, True])
def test_glued_quicktime_without_a_type(index_first: bool, tmp_path: Path) -> None:
    muxing = {"movflags": "faststart"} if index_first else {}
    parts = []
    for seed in (0, 1):
        content = write(tmp_path / "a.mov", codec="mpeg4", seed=seed, muxing=muxing)
        size = int.from_bytes(content[:4], "big")
        parts.append(b"\0\0\0" + bytes([size]) + b"wide" + content[8:])  # where ftyp was
    (tmp_path / "a.mov").write_bytes(parts[0] + parts[1] + parts[0])
    _, grey = run(tmp_path / "a.mov")
    assert [value > 115 for value in grey] == [n // PARTS == 1 for n in range(3 * PARTS)]


def test_an_edit_list_that_leaves_no_key_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    content = bytearray(write(path, codec="qtrle", pix_fmt="rgb24", options={"g": "100"}))
    place = content.index(b"elst") + 12  # five frames are left out
    duration = int.from_bytes(content[place : place + 4], "big") - 200
    with av.open(str(path)) as container:
        ticks = int(Fraction(1, 5) / Fraction(container.streams.video[0].time_base or 1))
    content[place : place + 8] = duration.to_bytes(4, "big") + ticks.to_bytes(4, "big")
    path.write_bytes(content)
    refused = verdict(path, "keyframes")
    assert refused.error_class == "no_keyframes" and "of its 15 frames" in refused.message
    with pytest.raises(VideoRejected, match="no_keyframes"):  # `plan` counts it so too
        probe_clip(DecodeRequest(path=str(path), size=32, sample="keyframes"))
    result, grey = run(path)
    assert result.pts_ms.tolist() == [40 * n for n in range(15)] and not result.warning
    assert round(grey[0]) == 45 and round(grey[-1]) == 59
    assert [round(value) for value in run(path, "fps=5")[1]] == [45, 50, 55]


def test_no_hours_are_invented_between_parts(tmp_path: Path) -> None:
    first = write(tmp_path / "a.ts", **KINDS["ts"])
    second = write(tmp_path / "b.ts", seed=1, first=25 * 40_000, **KINDS["ts"])
    (tmp_path / "glued.ts").write_bytes(first + second)
    result, _ = run(tmp_path / "glued.ts")
    assert result.source.duration_s == pytest.approx(2 * PARTS / 25, abs=0.1)


def test_a_clock_that_wraps_is_no_seam(tmp_path: Path) -> None:
    first = int((2**33 / 90_000 - 1.4 - 0.4) * 25)  # the muxer adds 1.4 s
    write(tmp_path / "a.ts", first=first, **KINDS["ts"])
    result, _ = run(tmp_path / "a.ts")
    assert result.pts_ms.tolist() == [40 * number for number in range(PARTS)]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [
    ("a.mov", "qtrle", "rgb24"), ("a.flv", "flashsv", "bgr24"), ("a.avi", "msvideo1", "rgb555le"),
    ("b.mov", "cfhd", "yuv422p10le"),
])  # fmt: skip
def test_key_frames_are_those_of_the_packets(
    name: str, codec: str, pix_fmt: str, tmp_path: Path
) -> None:
    write(tmp_path / name, codec=codec, pix_fmt=pix_fmt, options={"g": "5"})
    with av.open(str(tmp_path / name)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    result, _ = run(tmp_path / name, "keyframes")
    assert result.frame_index.tolist() == keys and keys


def test_a_clip_without_a_key_frame_is_told(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.mov", codec="qtrle", pix_fmt="rgb24"))
    table = content.index(b"stss")  # an index of sync frames that lists a frame out of reach
    content[table + 8 : table + 16] = (1).to_bytes(4, "big") + (9999).to_bytes(4, "big")
    (tmp_path / "none.mov").write_bytes(content)
    refused = verdict(tmp_path / "none.mov", "keyframes")
    assert refused.error_class == "no_keyframes" and "key frame" in refused.message


def test_an_avi_without_its_count_is_whole(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.avi", codec="mpeg4"))
    for mark, ahead in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = content.index(mark) + ahead
        content[place : place + 4] = (1 << 30).to_bytes(4, "little")
    (tmp_path / "pipe.avi").write_bytes(content)
    result, _ = run(tmp_path / "pipe.avi")
    assert result.source.frames == PARTS and not result.warning


def test_a_fragmented_clip_may_start_late(tmp_path: Path) -> None:
    muxing = {"movflags": "frag_keyframe+empty_moov", "output_ts_offset": "3"}
    write(tmp_path / "a.mp4", codec="libx264", options=X264, first=75, muxing=muxing)
    assert run(tmp_path / "a.mp4")[0].source.frames == PARTS


def test_a_stated_end_that_is_not_so_warns_and_strict_refuses(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.mkv", codec="libx264", options=X264))
    place = content.rindex(b"00:00:00.8")
    content[place : place + 8] = b"00:00:09"
    (tmp_path / "a.mkv").write_bytes(content)
    result, _ = run(tmp_path / "a.mkv")
    assert result.source.frames == PARTS and not result.partial
    assert "9.80 s stated" in result.warning
    assert verdict(tmp_path / "a.mkv", strict=True).error_class == "corrupt"


def test_much_work_from_few_bytes_is_too_large_before_it_is_done(tmp_path: Path) -> None:
    write(tmp_path / "a.gif", codec="gif", pix_fmt="rgb8", size=(4096, 2048))
    limits = DecodeLimits(free_pixels=2**25, pixels_per_byte=0)
    refused = verdict(tmp_path / "a.gif", limits=limits)
    assert refused.error_class == "too_large" and "pixels in all" in refused.message
    WorkBudget(DecodeLimits(), 67_000).spend(8191**2)
    budget = WorkBudget(DecodeLimits(), 67_000)
    with pytest.raises(VideoRejected):
        for _ in range(3000):
            budget.spend(8191**2)


@pytest.mark.parametrize(
    ("name", "codec", "more"),
    [
        ("a.ts", "libx264", {"options": X264}),
        ("b.ts", "mpeg2video", {}),
        ("a.ogg", "libtheora", {}),
        ("a.mxf", "mpeg2video", {}),
    ],
)
def test_a_cut_within_a_packet_is_truncated(
    name: str, codec: str, more: dict[str, Any], tmp_path: Path
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    content = write(tmp_path / name, codec=codec, **more)
    assert run(tmp_path / name)[0].source.frames == PARTS
    (tmp_path / name).write_bytes(content[: len(content) * 4 // 5 // 188 * 188 + 51])
    assert verdict(tmp_path / name).error_class == "truncated"


def test_a_segment_without_its_initialisation_says_so(tmp_path: Path) -> None:
    muxing = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    content = write(tmp_path / "a.mp4", codec="libx264", options=X264, muxing=muxing)
    place = content.index(b"moof") - 4
    (tmp_path / "a.m4s").write_bytes(b"\0\0\0\x10styp" + b"msdh\0\0\0\0" + content[place:])
    refused = verdict(tmp_path / "a.m4s")
    assert refused.error_class == "truncated" and "initialisation" in refused.message


def test_an_mpjpeg_is_whole(tmp_path: Path) -> None:
    parts = []
    for number in range(5):
        picture = np.full((48, 64, 3), 40 * number, np.uint8)
        with av.open(str(tmp_path / "a.jpg"), "w", format="mjpeg") as out:
            stream = out.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(stream.encode(frame.reformat(format="yuvj420p")))
            out.mux(stream.encode(None))
        content = (tmp_path / "a.jpg").read_bytes()
        head = f"--ffmpeg\r\nContent-type: image/jpeg\r\nContent-length: {len(content)}\r\n\r\n"
        parts.append(head.encode() + content + b"\r\n")
    (tmp_path / "a.mpjpeg").write_bytes(b"".join(parts) + b"--ffmpeg\r\n")
    assert run(tmp_path / "a.mpjpeg")[0].source.frames == 5


def test_a_track_that_appears_late_costs_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "late.flv"
    with av.open(str(path), "w") as out:
        film = out.add_stream("flv1", rate=25)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        sound = out.add_stream("mp3", rate=44100)
        for number in range(200):
            frame = av.VideoFrame(96, 64, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(film.encode(frame))
        for number in range(40):
            quiet = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
            for plane in quiet.planes:
                plane.update(bytes(plane.buffer_size))
            quiet.sample_rate, quiet.pts = 44100, 44100 * 7 + 1152 * number
            out.mux(sound.encode(quiet))
        for stream in (film, sound):
            out.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    content[4] = 1  # the header names the picture track only
    path.write_bytes(content)
    for rule in ("all", "uniform=200"):
        result, _ = run(path, rule)
        assert len(result.tokens) == 200 and not result.partial


def test_a_cut_within_a_later_fragment_keeps_what_came_before(tmp_path: Path) -> None:
    muxing = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    content = write(tmp_path / "a.mp4", codec="libx264", options={"g": "5"}, muxing=muxing)
    place = content.index(b"moof", content.index(b"moof") + 4)
    (tmp_path / "cut.mp4").write_bytes(content[: place + 20])
    assert verdict(tmp_path / "cut.mp4").error_class == "truncated"
    result, grey = run(tmp_path / "cut.mp4", allow_partial=True)
    assert result.partial and len(grey) == 5


@pytest.mark.parametrize("jumps", [{13: 1500}, dict.fromkeys(range(1, PARTS), 300)])
@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_a_clock_that_jumps_amid_pictures_costs_none_of_them(
    name: str, jumps: dict[int, int], tmp_path: Path
) -> None:
    """A time lapse, or a recorder whose clock was set: what follows needs what came before."""
    write(tmp_path / name, **KINDS[name[2:]] | {"options": {"g": "250", "bf": "0"}})
    with av.open(str(tmp_path / name)) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        stream = source.streams.video[0]
        with av.open(str(tmp_path / f"jumping.{name[2:]}"), "w") as out:
            copy = out.add_stream_from_template(stream)
            shift = 0
            for number, packet in enumerate(packets):
                shift += jumps.get(number, 0) * 3600
                packet.stream = copy
                if packet.dts is not None and packet.pts is not None:
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                out.mux(packet)
    result, _ = run(tmp_path / f"jumping.{name[2:]}")
    assert len(result.tokens) == PARTS and not result.partial


def test_glued_streams_of_hevc_are_whole_and_of_two_codecs_no_silent_loss(tmp_path: Path) -> None:
    hevc = {"codec": "libx265", "options": {"x265-params": "keyint=10:bframes=2:log-level=none"}}
    one = write(tmp_path / "one.ts", **hevc)
    other = write(tmp_path / "other.ts", codec="mpeg2video", seed=1)
    (tmp_path / "same.ts").write_bytes(one + one + one)
    result, _ = run(tmp_path / "same.ts")
    assert len(result.tokens) == 3 * PARTS and not result.partial
    (tmp_path / "mixed.ts").write_bytes(one + other)
    assert "without a picture" in verdict(tmp_path / "mixed.ts").message


def test_a_raw_stream_has_the_rate_that_it_states(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.h264"), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(25, 2), options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(10):
            out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(stream.encode(None))
    result, _ = run(tmp_path / "a.h264")
    assert np.diff(result.pts_ms).tolist() == [80] * 9


def test_an_mp4_cut_within_its_index_is_truncated(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4", **KINDS["mp4"])
    for place in range(data.index(b"moov") + 4, len(data) - 1, 29):
        (tmp_path / "cut.mp4").write_bytes(data[:place])
        try:
            assert len(run(tmp_path / "cut.mp4")[0].tokens) == PARTS  # all but its metadata
        except VideoRejected as rejected:
            assert rejected.error_class == "truncated", place
