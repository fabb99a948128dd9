from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from framebank.features.decoding.container import DecodeLimits, open_clip
from framebank.features.decoding.damage import ffmpeg_messages
from framebank.features.decoding.decode import DecodeRequest, decode_video
from framebank.features.errors import VideoRejected
from tests.clips.barcode import write_barcode_clip

TICKS = range(0, 400, 40)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_barcode_clip(tmp_path_factory.mktemp("good") / "good.mp4", ticks=TICKS).path


def verdict(path: Path, limits: DecodeLimits | None = None) -> tuple[str, str]:
    """Return stage and class of a clip that must be refused."""
    request = DecodeRequest(path=str(path), sample="all", size=16, limits=limits or DecodeLimits())
    with pytest.raises(VideoRejected) as caught:
        decode_video(request, emit_frame=lambda token, picture: None, beat=lambda frames: None)
    return caught.value.stage, caught.value.error_class


# What is at the path.


def test_a_good_clip_opens(good: Path) -> None:
    with ffmpeg_messages(), open_clip(str(good), DecodeLimits()) as clip:
        assert (clip.format, clip.stream.width, clip.stream.height) == ("mov", 192, 128)
        assert clip.nominal_rate == 25
        with clip.reopened() as again:
            assert sum(packet.size > 0 for packet in again.container.demux(again.stream)) == 10


def test_what_is_no_file_is_seen_before_it_is_opened(good: Path, tmp_path: Path) -> None:
    pipe, link, circle = (tmp_path / name for name in ("pipe.mp4", "link.mp4", "circle.mp4"))
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere.mp4")
    circle.symlink_to(circle)
    door = tmp_path / "door.mp4"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door))
        begun = time.monotonic()
        for path in (pipe, link, circle, door, tmp_path, Path("/dev/null"), Path("/dev/zero")):
            assert verdict(path) == ("open", "not_a_file"), path
    to_pipe = tmp_path / "to_pipe.mp4"
    to_pipe.symlink_to(pipe)
    assert verdict(to_pipe) == ("open", "not_a_file")
    assert time.monotonic() - begun < 2
    to_good = tmp_path / "to_good.mp4"
    to_good.symlink_to(good)
    with open_clip(str(to_good), DecodeLimits()):
        pass


def test_missing_empty_large_and_locked_files(good: Path, tmp_path: Path) -> None:
    empty, locked = tmp_path / "empty.mp4", tmp_path / "locked.mp4"
    empty.touch()
    assert verdict(tmp_path / "none.mp4") == ("open", "missing")
    assert verdict(tmp_path / "no" / "folder.mp4") == ("open", "missing")
    assert verdict(empty) == ("open", "empty")
    assert verdict(good, DecodeLimits(max_size_bytes=1000)) == ("open", "too_large")
    locked.write_bytes(good.read_bytes())
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # the superuser reads it all the same
        assert verdict(locked) == ("open", "unreadable")
    assert verdict(Path("bad\0name.mp4")) == ("open", "unreadable")


def test_the_name_does_not_matter(good: Path, tmp_path: Path) -> None:
    for name in ("clip.txt", "clip", "frame%03d.png", "http:clip.m3u8", "concat:a|b.ts"):
        path = tmp_path / name
        path.write_bytes(good.read_bytes())
        with open_clip(str(path), DecodeLimits()) as clip:
            assert clip.format == "mov"


# What is in the file.


def test_bytes_that_are_no_video(tmp_path: Path) -> None:
    cases = {
        "text.mp4": b"hello, this is no film\n" * 30,
        "subtitles.mp4": b"1\n00:00:01,000 --> 00:00:04,000\nHello\n\n" * 5,
        "noise.mp4": bytes((97 * n * n + 31 * n) % 251 for n in range(5000)),
        "json.mp4": b'{"video": "a.mp4"}',
        "zeros.mp4": bytes(100_000),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        assert verdict(tmp_path / name) == ("probe", "not_a_video"), name


def test_sound_alone_has_no_video_stream(tmp_path: Path) -> None:
    for name, codec in (("a.wav", "pcm_s16le"), ("a.m4a", "aac"), ("a.mp3", "libmp3lame")):
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=44100)
            layout = stream.codec_context.layout.name
            frame = av.AudioFrame(format=stream.codec_context.format, layout=layout, samples=1024)
            frame.sample_rate = 44100
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            for number in range(40):
                frame.pts = 1024 * number
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        path.rename(tmp_path / "sound.mp4")
        assert verdict(tmp_path / "sound.mp4") == ("probe", "no_video_stream"), name


def test_an_encrypted_track(tmp_path: Path) -> None:
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "ab" * 16}
    muxing = {**keys, "encryption_kid": "cd" * 16}
    clip = write_barcode_clip(tmp_path / "locked.mp4", ticks=TICKS, muxing=muxing)
    assert verdict(clip.path) == ("probe", "encrypted")


def test_a_track_without_decoder(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "unknown.mp4"
    path.write_bytes(good.read_bytes().replace(b"avc1", b"zz0q"))
    assert verdict(path) == ("probe", "unsupported_codec")


def test_the_first_track_that_is_no_cover_counts(tmp_path: Path) -> None:
    path = tmp_path / "covered.mp4"
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        film = out.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        for packet in cover.encode(av.VideoFrame(64, 64, "yuvj420p")):
            out.mux(packet)
        for _ in range(5):
            out.mux(film.encode(av.VideoFrame(96, 64, "yuv420p")))
        out.mux(film.encode(None))
    with open_clip(str(path), DecodeLimits()) as clip:
        assert (clip.stream.width, clip.stream.height) == (96, 64)


def test_pictures_over_the_limit_are_refused(tmp_path: Path) -> None:
    limits = DecodeLimits(max_pixels=100 * 100)
    for name, codec, pix_fmt in (
        *(("a.mp4", "libx264", "yuv420p"), ("a.mkv", "ffv1", "yuv420p")),
        *(("a.ts", "mpeg2video", "yuv420p"), ("a.flv", "flv1", "yuv420p")),
        *(("a.mpg", "mpeg1video", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")),
        *(("a.gif", "gif", "rgb8"), ("a.webm", "libvpx-vp9", "yuv420p")),
    ):
        clip = write_barcode_clip(
            tmp_path / name,
            ticks=range(4),
            time_base=Fraction(1, 100 if codec == "gif" else 25),
            last_ticks=1,
            codec=codec,
            pix_fmt=pix_fmt,
            options={},
        )
        assert verdict(clip.path, limits)[1] == "too_large", name


def _chunk(kind: bytes, content: bytes) -> bytes:
    sum_ = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + sum_


@pytest.mark.parametrize(("width", "height"), [(16_000, 12_000), (65_535, 65_535)])
def test_a_declared_giant_takes_no_memory(tmp_path: Path, width: int, height: int) -> None:
    gif, png = tmp_path / "giant.gif", tmp_path / "giant.png"
    gif.write_bytes(
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + struct.pack("<BHHHHB", 0x2C, 0, 0, 1, 1, 0)
        + b"\x02\x02\x44\x01\x00;"
    )
    png.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(bytes(1000)))
        + _chunk(b"IEND", b"")
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in (gif, png):
        assert verdict(path)[1] == "too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; 576 MB else


def _peak_kib(path: Path) -> int:
    """Return what a process of its own took at most to decode `path`, which is too_large."""
    code = (
        "import sys; from framebank.features.decoding import container, decode\n"
        "from framebank.features.errors import VideoRejected\n"
        "try:\n"
        "    request = decode.DecodeRequest(path=sys.argv[1], sample='all', size=16)\n"
        "    decode.decode_video(request, emit_frame=print, beat=lambda frames: None)\n"
        "except VideoRejected as bad: assert bad.error_class == 'too_large', bad\n"
        "else: raise AssertionError\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_text_that_unpacks_to_very_much_is_refused(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(1 << 28), 9)
    rows = zlib.compress((b"\0" + bytes(24)) * 8)
    for kind in (b"zTXt", b"iCCP"):
        (tmp_path / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
            + _chunk(kind, b"name\0\0" + packed)
            + _chunk(b"IDAT", rows)
            + _chunk(b"IEND", b"")
        )
        assert _peak_kib(tmp_path / "a.png") < 300_000  # 900,000 where it is unpacked
    with av.open(str(tmp_path / "a.mov"), "w") as out:  # and in another container
        track = out.add_stream("png", rate=25)
        track.width, track.height, track.pix_fmt = 8, 8, "rgb24"
        packet = av.Packet((tmp_path / "a.png").read_bytes())
        packet.stream, packet.pts, packet.dts, packet.time_base = track, 0, 0, Fraction(1, 25)
        out.mux(packet)
    assert _peak_kib(tmp_path / "a.mov") < 300_000


def test_an_index_that_unpacks_to_very_much_is_refused(tmp_path: Path) -> None:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    packed = struct.pack(">I", 1 << 30) + zlib.compress(bytes(1 << 26), 9)
    index = box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", packed))
    content = box(b"ftyp", b"qt  \0\0\0\0") + box(b"mdat", bytes(100)) + box(b"moov", index)
    (tmp_path / "a.mov").write_bytes(content)
    assert verdict(tmp_path / "a.mov") == ("probe", "too_large")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        size = int.from_bytes(data[:4], "big")
        yield data[4:8], data[:size]
        data = data[size:]


def test_very_many_tracks_are_refused_before_each_has_a_decoder(tmp_path: Path) -> None:
    write_barcode_clip(tmp_path / "a.mp4", ticks=range(4), time_base=Fraction(1, 25), last_ticks=1)
    boxes = dict(_boxes((tmp_path / "a.mp4").read_bytes()))
    moov = list(_boxes(boxes.pop(b"moov")[8:]))
    for tracks in (900, 2000):  # FFmpeg's own bound is 1000
        inside = b"".join(box * (tracks if kind == b"trak" else 1) for kind, box in moov)
        content = b"".join(boxes.values()) + struct.pack(">I", 8 + len(inside)) + b"moov" + inside
        (tmp_path / "many.mp4").write_bytes(content)
        assert verdict(tmp_path / "many.mp4")[1] == "too_large"
        assert _peak_kib(tmp_path / "many.mp4") < 150_000


# Nothing else is opened.


@contextlib.contextmanager
def untouched(path: Path) -> Iterator[None]:
    """Fail if anything opens or reads `path` meanwhile; its name may be looked at."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0:
        pytest.skip("no inotify here to watch a file with")
    opened_or_read = 0x20 | 0x1
    assert libc.inotify_add_watch(watch, os.fsencode(path), opened_or_read) >= 0
    try:
        yield
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
    finally:
        os.close(watch)


@contextlib.contextmanager
def unvisited_server() -> Iterator[str]:
    """Listen at http://127.0.0.1 and fail if anybody calls."""
    visits: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    call, who = listener.accept()
                    visits.append(who)
                    call.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()
        assert not visits


def test_the_watchers_see_what_they_watch_for(good: Path) -> None:
    with pytest.raises(BaseException), untouched(good):  # noqa: B017 - pytest's own failure
        good.read_bytes()
    with pytest.raises(AssertionError), unvisited_server() as address:
        host, port = address.removeprefix("http://").split(":")
        socket.create_connection((host, int(port))).close()
        time.sleep(0.2)


def test_a_list_that_poses_as_a_clip_opens_nothing(good: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(good.read_bytes())
    segment = write_barcode_clip(tmp_path / "segment.ts", ticks=TICKS, options={}).path
    with unvisited_server() as web:
        lists = {
            "playlist": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:9,\n{segment}\n#EXT-X-ENDLIST\n",
            "web playlist": f"#EXTM3U\n#EXTINF:9,\n{web}/a.ts\n#EXT-X-ENDLIST\n",
            "master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{web}/b.m3u8\n",
            "concat": f"ffconcat version 1.0\nfile '{other}'\n",
            "web concat": f"ffconcat version 1.0\nfile '{web}/c.mp4'\n",
            "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
            "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            f"<Period><AdaptationSet><Representation id='1'><BaseURL>{web}/d.mp4</BaseURL>"
            "</Representation></AdaptationSet></Period></MPD>",
            "smil": f'<smil><body><video src="{web}/e.mp4"/></body></smil>',
            "reference": f"[Reference]\nRef1={web}/f.asf\n",
            "stream": f"rtsptext{web}/g\n",
        }
        for name, text in lists.items():
            path = tmp_path / f"{name}.mp4"
            path.write_text(text)
            with untouched(other), untouched(segment):
                assert verdict(path) == ("probe", "not_a_video"), name


def test_an_mp4_that_refers_to_another_file_opens_nothing(good: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(good.read_bytes())
    for place in (str(other), "other.mp4"):
        path = tmp_path / "referring.mp4"
        path.write_bytes(_with_reference(good.read_bytes(), place))
        with untouched(other):
            assert verdict(path)[1] in ("no_frames", "not_a_video", "corrupt", "truncated")


def _with_reference(mp4: bytes, place: str) -> bytes:
    """Return the mp4 with its samples said to lie in the file `place`, by a QuickTime alias."""
    target = place.encode()
    name = Path(place).name.encode()
    record = bytes(10 + 4) + bytes(28) + bytes(12) + bytes([len(name)]) + name.ljust(63, b"\0")
    record += bytes(16) + struct.pack(">hh", 0, 1) + bytes(16)
    record += struct.pack(">hh", 2, len(target)) + target + bytes(len(target) % 2)
    record += struct.pack(">hh", -1, 0) + bytes(64)
    alias = struct.pack(">I", 12 + len(record)) + b"alis" + bytes(4) + record
    at = mp4.index(b"url ", mp4.index(b"dref")) - 4
    grown = mp4[:at] + alias + mp4[at + 12 :]
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start = grown.index(kind, mp4.index(b"moov")) - 4
        size = int.from_bytes(grown[start : start + 4], "big") + len(alias) - 12
        grown = grown[:start] + size.to_bytes(4, "big") + grown[start + 4 :]
    return grown


def test_an_animated_webp_has_no_decoder_rather_than_a_cut_end(tmp_path: Path) -> None:
    still, moving = tmp_path / "still.webp", tmp_path / "moving.webp"
    for path, codec, count in ((still, "libwebp", 1), (moving, "libwebp_anim", 4)):
        with av.open(str(path), "w", format="webp") as out:
            stream = out.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for number in range(count):
                picture = np.full((32, 32, 3), 60 * number, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode(None))
    with open_clip(str(still), DecodeLimits()) as clip:
        assert clip.stream.width == 32
    with (
        pytest.raises(VideoRejected, match="animated WebP") as rejected,
        open_clip(str(moving), DecodeLimits()),
    ):
        pass
    assert rejected.value.error_class == "unsupported_codec"


def test_bytes_from_wherever_a_file_says(good: Path) -> None:
    with open_clip(str(good), DecodeLimits()) as clip:
        size_bytes = clip.file.size_bytes
        for offset in (size_bytes, 2**63 - 1, 2**63, 2**90, -1):
            assert clip.file.peek(offset, 8) == b""
        assert len(clip.file.peek(size_bytes - 3, 8)) == 3
