"""Makes clips in which every frame carries its own number, and reads the number back off a picture.

The upper half of a frame is a bar code of twelve bits, the lower half is red on the left and blue
on the right, so that a picture that is turned or mirrored is not read by mistake.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS = 12
CLOSED_GOP = {"preset": "veryfast", "x264-params": "bframes=3:b-adapt=0:keyint=12:open-gop=0"}
OPEN_GOP = {
    "preset": "veryfast",
    "x264-params": "bframes=3:b-adapt=0:keyint=12:min-keyint=12:open-gop=1:scenecut=0",
}
GIF = {
    "time_base": Fraction(1, 100),
    "last_ticks": 4,
    "codec": "gif",
    "pix_fmt": "rgb8",
    "options": {},
}
# The eight ways to hold a camera, as the nine numbers of a display matrix.
_ONE = 1 << 16
ORIENTATIONS: dict[str, tuple[int, int, int, int]] = {  # a, b, c, d
    "upright": (1, 0, 0, 1),
    "rotated 90": (0, 1, -1, 0),
    "rotated 180": (-1, 0, 0, -1),
    "rotated 270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}


@dataclasses.dataclass(frozen=True)
class BarcodeClip:
    """What `write_barcode_clip` wrote: when each number is shown, in seconds, and until when."""

    path: Path
    times: tuple[Fraction, ...]
    end: Fraction

    def __len__(self) -> int:
        return len(self.times)


def write_barcode_clip(
    path: Path,
    *,
    ticks: Sequence[int],
    time_base: Fraction = Fraction(1, 1000),
    last_ticks: int = 40,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (192, 128),
    options: Mapping[str, str] | None = None,
    orientation: str = "upright",
    muxing: Mapping[str, str] | None = None,
    colours: tuple[int, int] | None = None,
) -> BarcodeClip:
    """Write frames 0, 1, 2 ... shown at `ticks` of `time_base`, the last for `last_ticks`.

    `size` is (width, height) as shown, `colours` the (matrix, range) to convert by and to state.
    """
    a, b, c, d = ORIENTATIONS[orientation]
    durations = [after - now for now, after in itertools.pairwise(ticks)] + [last_ticks]
    length = dict(zip(ticks, durations, strict=True))
    with av.open(str(path), "w", options={"fflags": "+bitexact", **(muxing or {})}) as out:
        stream = out.add_stream(codec, rate=25, options=dict(options or {"preset": "veryfast"}))
        stored = stored_picture(barcode_picture(0, size), (a, b, c, d))
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        if colours is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        if orientation != "upright":
            stream.set_display_matrix([a * _ONE, b * _ONE, 0, c * _ONE, d * _ONE, 0, 0, 0, 1 << 30])
        for number, pts in enumerate(ticks):
            picture = stored_picture(barcode_picture(number, size), (a, b, c, d))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if colours is not None:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=colours[0], dst_color_range=colours[1]
                )
            frame.pts, frame.time_base = pts, time_base
            frame.duration = length[pts]
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return BarcodeClip(
        path,
        tuple(pts * time_base for pts in ticks),
        (ticks[-1] + last_ticks) * time_base,
    )


def barcode_picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return uint8[height, width, 3] RGB with the bar code of `number`, upright."""
    width, height = size
    bits = [number >> (BITS - 1 - place) & 1 for place in range(BITS)]
    columns = np.arange(width) * BITS // width
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2] = np.where(np.array(bits)[columns] > 0, 235, 20)[None, :, None]
    picture[height // 2 :, : width // 2] = (220, 30, 30)
    picture[height // 2 :, width // 2 :] = (30, 30, 220)
    return picture


def stored_picture(
    shown: NDArray[np.uint8], matrix: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Return the picture that the display matrix (a, b, c, d) turns into `shown`."""
    a, b, c, d = matrix
    height, width = shown.shape[:2]
    columns, rows = (height, width) if b else (width, height)
    y, x = np.mgrid[:rows, :columns]
    to_x, to_y = a * x + c * y, b * x + d * y
    return np.ascontiguousarray(shown[to_y - to_y.min(), to_x - to_x.min()])


def read_number(picture: NDArray[np.uint8]) -> int:
    """Return the number in uint8[h, w, 3]; raises ValueError for a picture that is not upright."""
    height, width = picture.shape[:2]
    left = picture[height * 3 // 4, width // 4].astype(int)
    right = picture[height * 3 // 4, width * 3 // 4].astype(int)
    if left[0] - left[2] < 80 or right[2] - right[0] < 80:
        raise ValueError(f"red should be lower left, blue lower right: {left}, {right}")
    centres = [(2 * place + 1) * width // (2 * BITS) for place in range(BITS)]
    levels = picture[height // 4, centres].mean(axis=1)
    if np.any(np.abs(levels - 127) < 40):
        raise ValueError(f"bars neither black nor white: {levels}")
    return int("".join("1" if level > 127 else "0" for level in levels), 2)
