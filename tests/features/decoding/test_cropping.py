"""features/decoding/structure.py: what containers say is cut off, in the rows and in the pixels."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np

from framebank.features.decoding.container import DecodeLimits, open_clip
from framebank.features.decoding.decode import DecodeRequest, decode_video
from framebank.features.decoding.pixels import PictureScaler
from framebank.features.decoding.structure import Crop, stated_crop
from tests.clips.plain_clips import write_clip


def add_clap(data: bytes, *, shown: tuple[int, int], off_centre: tuple[int, int]) -> bytes:
    """Put a clean aperture into the one picture track of an mp4 whose moov comes last."""
    (width, height), (x, y) = shown, off_centre
    clap = struct.pack(">I4s4IiIiI", 40, b"clap", width, 1, height, 1, x, 2, y, 2)
    at = data.index(b"avcC") - 4
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = data.index(name, data.index(b"moov")) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(clap)
        data = data[:place] + size.to_bytes(4, "big") + data[place + 4 :]
    return data[:at] + clap + data[at:]


def element(kind: int, content: bytes) -> bytes:
    id_bytes = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return id_bytes + (len(content) | 1 << 56).to_bytes(8, "big") + content


def peeking(data: bytes):  # type: ignore[no-untyped-def]
    return lambda offset, size: data[offset : offset + size]


def test_a_clean_aperture_is_cut_out_of_the_pictures(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", frames=3, size=(96, 64))
    path = tmp_path / "clap.mp4"
    # 60 x 40 around a point that lies 4 to the right of the middle and 2 above it.
    path.write_bytes(add_clap(plain.read_bytes(), shown=(60, 40), off_centre=(8, -4)))
    crop = Crop(top=10, bottom=14, left=22, right=14)
    for clip, expected in ((plain, Crop()), (path, crop)):
        with open_clip(str(clip), DecodeLimits()) as opened:
            assert opened.crop == expected
    rows: list[np.ndarray] = []
    request = DecodeRequest(str(path), "all", size=32)
    result = decode_video(request, emit_frame=lambda _, rgb: rows.append(rgb), beat=lambda _: None)
    assert (result.source.width, result.source.height, len(rows)) == (60, 40, 3)
    with av.open(str(plain)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    places = [(top, left) for top in (8, 10, 12) for left in (20, 22, 24)]
    for frame, row in zip(frames, rows, strict=True):
        gaps = {}
        for top, left in places:
            cut = np.ascontiguousarray(frame[top : top + 40, left : left + 60])
            near = PictureScaler(32, resize="stretch")(av.VideoFrame.from_ndarray(cut, "rgb24"))
            gaps[top, left] = np.abs(near.astype(int) - row).mean()
        assert min(gaps, key=lambda place: gaps[place]) == (10, 22), gaps


def test_the_crop_of_matroska_is_that_of_the_track() -> None:
    def track(kind: int, *margins: bytes) -> bytes:
        video = element(0xE0, b"".join(margins))
        return element(0xAE, element(0x83, bytes([kind])) + video)

    sides = [element(kind, bytes([n])) for kind, n in
             ((0x54BB, 20), (0x54AA, 40), (0x54CC, 10), (0x54DD, 30))]  # fmt: skip
    tracks = track(2) + track(1) + track(1, *sides)
    data = element(0x1A45DFA3, b"") + element(0x18538067, element(0x1654AE6B, tracks))
    crops = [stated_crop("matroska", peeking(data), len(data), track=n) for n in range(3)]
    assert crops == [Crop(), Crop(top=20, bottom=40, left=10, right=30), Crop()]


def test_a_damaged_container_states_no_crop_and_ends(tmp_path: Path) -> None:
    data = add_clap(
        write_clip(tmp_path / "a.mp4", frames=2).read_bytes(), shown=(20, 20), off_centre=(0, 0)
    )
    moov = data.index(b"moov") - 4
    for place in range(moov, len(data), 3):
        for broken in (data[:place], data[:place] + b"\xff" * 9 + data[place + 9 :]):
            stated_crop("mov", peeking(broken), len(broken), track=0)


def test_a_crop_that_leaves_nothing_is_none() -> None:
    assert Crop(left=5, right=5).within(10, 9) == Crop()
    assert Crop(left=5, right=4).within(10, 9) == Crop(left=5, right=4)


def test_pixels_are_those_of_the_picture_that_is_shown() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    scaler = PictureScaler(24, resize="stretch")
    scaler.cut_off = Crop(top=3, bottom=7, left=11, right=5)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
    cut = np.ascontiguousarray(noise[3:33, 11:55])
    shown = av.VideoFrame.from_ndarray(cut, format="rgb24")
    assert scaler.shown_size(frame) == (44, 30)
    expected = PictureScaler(24, resize="stretch")(shown)
    assert (scaler(frame) == expected).all()
