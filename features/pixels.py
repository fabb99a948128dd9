"""From a decoded frame to the network's picture: colour, size, orientation.

A frame goes to RGB by its own colour matrix and range (unspecified: BT.601, limited, as FFmpeg
does) and to the asked size in one step of swscale, bilinear, in the bit-exact C paths so that the
bytes do not depend on the processor's vector units. The display matrix (a phone held upright writes
one) is applied to the small picture, which costs nothing and gives what turning first would give.
Alpha is dropped, not blended; high dynamic range is not tone-mapped; sample aspect ratio is not
looked at.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

# A crop of a picture longer than this many times its height is cut before it is scaled, so that a
# picture of 1 x 60,000 pixels does not become one of 299 x 18 million.
LONGEST_ASPECT = 8
_FLAGS = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Orientation(NamedTuple):
    """How a stored picture is shown: transposed first, then mirrored left-right and top-bottom."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @classmethod
    def from_matrix(cls, matrix: bytes) -> Orientation:
        """Read a display matrix (ISO/IEC 14496-12, 8.3.2: nine int32).

        A point (x, y) is shown at (a x + c y, b x + d y) with a, b, c, d at 0, 1, 3, 4; an angle
        that is not a right one goes to the nearest that is.
        """
        a, b, _, c, d = struct.unpack_from("=5i", matrix)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn uint8[h, w, 3] into uint8[h', w', 3] as shown (a view)."""
        if self.transposed:
            picture = picture.transpose(1, 0, 2)
        if self.mirrored:
            picture = picture[:, ::-1]
        return picture[::-1] if self.flipped else picture

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) as shown."""
        return (height, width) if self.transposed else (width, height)


def frame_orientation(frame: av.VideoFrame) -> Orientation:
    """Return how the frame asks to be shown by its display matrix."""
    for side_data in frame.side_data:  # type: ignore[attr-defined]
        if side_data.type == SideDataType.DISPLAYMATRIX:
            return Orientation.from_matrix(bytes(side_data))
    return Orientation()


class PictureScaler:
    """Makes uint8[size, size, 3] RGB pictures of frames of any size, format and orientation."""

    def __init__(self, size: int, *, resize: str) -> None:
        """`resize`: "stretch" (aspect not kept) or "crop" (short side to `size`, centre kept)."""
        self._size, self._crop = size, resize == "crop"
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return uint8[size, size, 3], C-contiguous, RGB, full range; raises av.FFmpegError."""
        turn = frame_orientation(frame)
        size = self._size
        if not self._crop:
            return np.ascontiguousarray(turn.apply(self._scale(frame, size, size)))
        frame = _within_aspect(frame)
        short = min(frame.width, frame.height)
        width = max(size, _rounded(frame.width * size, short))
        height = max(size, _rounded(frame.height * size, short))
        shown = turn.apply(self._scale(frame, width, height))
        top, left = (shown.shape[0] - size) // 2, (shown.shape[1] - size) // 2
        return np.ascontiguousarray(shown[top : top + size, left : left + size])

    def _scale(self, frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
        """Return uint8[height, width, 3] RGB in the stored orientation."""
        rgb = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgb24",
            interpolation=_FLAGS,
            dst_color_range=ColorRange.JPEG,
            threads=1,  # slices of several threads would meet at other rows
        )
        plane = rgb.planes[0]
        rows: NDArray[np.uint8] = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return rows[:height, : width * 3].reshape(height, width, 3)


def _within_aspect(frame: av.VideoFrame) -> av.VideoFrame:
    """Cut a very long picture to its middle, as long as `LONGEST_ASPECT` times its short side."""
    longest = LONGEST_ASPECT * min(frame.width, frame.height)
    width, height = min(frame.width, longest), min(frame.height, longest)
    if (width, height) == (frame.width, frame.height):
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    crop = graph.add("crop", f"{width}:{height}:exact=1")
    sink = graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    source.push(frame)
    cut = sink.pull()
    assert isinstance(cut, av.VideoFrame)
    return cut


def _rounded(over: int, under: int) -> int:
    return (2 * over + under) // (2 * under)
