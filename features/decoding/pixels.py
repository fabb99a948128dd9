"""From a decoded frame to the network's picture: orientation, colour, size.

A frame is turned as its display matrix says, and goes to RGB by its own colour matrix and range
(unspecified: BT.601, limited, as FFmpeg does) and to the asked size in one bilinear step. This is
done by FFmpeg's own filters, because they know where a format's colour samples lie: the bytes are
those of `ffmpeg -i CLIP -vf scale=299:299:flags=bilinear -pix_fmt rgb24`. (A bare swscale context
puts the colours of 4:2:0 a quarter of a sample too high; on small clips that moves a feature by
0.5 %.) The bit-exact paths are used, so that bytes do not depend on a processor's vector units.
Alpha is dropped, not blended; high dynamic range is not tone-mapped; sample aspect ratio is not
looked at.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import struct
from collections.abc import Sequence
from typing import NamedTuple

import av
import numpy as np
from av.filter.context import FilterContext
from av.sidedata.sidedata import Type as SideDataType
from numpy.typing import NDArray

from framebank.features.decoding.structure import Crop

# A crop of a picture longer than this many times its height is cut before it is scaled, so that a
# picture of 1 x 60,000 pixels does not become one of 299 x 18 million.
LONGEST_ASPECT = 8
_FLAGS = "bilinear+accurate_rnd+bitexact"


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

    @property
    def filters(self) -> tuple[tuple[str, str | None], ...]:
        """Return the FFmpeg filters, name and arguments, that turn a picture as it is shown."""
        # cclock_flip: a plain transposition
        steps = (("transpose", "cclock_flip"), ("hflip", None), ("vflip", None))
        return tuple(itertools.compress(steps, self))

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) as shown."""
        return (height, width) if self.transposed else (width, height)


def frame_orientation(frame: av.VideoFrame) -> Orientation:
    """Return how the frame asks to be shown: by its container's display matrix, or by EXIF."""
    try:
        return _stated_orientation(frame)
    except ValueError:  # side data of a kind that PyAV has no name for, such as EXIF itself
        return _stated_orientation(_without_unnamed(frame))


def _stated_orientation(frame: av.VideoFrame) -> Orientation:
    for side_data in frame.side_data:  # type: ignore[attr-defined]
        if side_data.type == SideDataType.DISPLAYMATRIX:
            return Orientation.from_matrix(bytes(side_data))
    return Orientation()


def _without_unnamed(frame: av.VideoFrame) -> av.VideoFrame:
    """Return the same picture without the side data that PyAV cannot name."""
    named = {kind.value for kind in SideDataType}
    graph = av.filter.Graph()
    nodes = [_source(graph, frame)]
    with contextlib.suppress(av.FFmpegError):  # past the last kind that this FFmpeg has
        for number in range(max(named) + 1, max(named) + 33):
            nodes.append(graph.add("sidedata", f"mode=delete:type={number}"))
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    bare = graph.pull()
    assert isinstance(bare, av.VideoFrame)
    return bare


def _source(graph: av.filter.Graph, frame: av.VideoFrame) -> FilterContext:
    return graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )


class PictureScaler:
    """Makes uint8[size, size, 3] RGB pictures of frames of any size, format and orientation."""

    def __init__(self, size: int, *, resize: str) -> None:
        """`resize`: "stretch" (aspect not kept), "crop" (short side to `size`, centre kept) or HxW
        (stretched to that, centre kept)."""
        self._size, self._crop = size, resize == "crop"
        self._height = self._width = size
        if "x" in resize:
            self._height, self._width = map(int, resize.split("x"))
        self.cut_off = Crop()  # by the container, of each stored picture
        self._kind: object = None
        self._graph: av.filter.Graph | None = None

    def shown_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return (width, height) of a frame as shown: cropped and turned."""
        cut = self.cut_off.within(frame.width, frame.height)
        width, height = frame.width - cut.left - cut.right, frame.height - cut.top - cut.bottom
        return frame_orientation(frame).shown_size(width, height)

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return uint8[size, size, 3], C-contiguous, RGB, full range; raises av.FFmpegError."""
        turn = frame_orientation(frame)
        kind = (
            *(frame.width, frame.height, frame.format.name),
            *(frame.colorspace, frame.color_range, turn),
        )
        if self._graph is None or kind != self._kind:  # a stream may change in the middle
            self._graph, self._kind = self._build_graph(frame, turn), kind
        self._graph.push(frame)
        picture = self._graph.pull()
        assert isinstance(picture, av.VideoFrame)
        shown = picture.to_ndarray()  # [height, width, 3]
        top, left = (shown.shape[0] - self._size) // 2, (shown.shape[1] - self._size) // 2
        return np.ascontiguousarray(shown[top : top + self._size, left : left + self._size])

    def _build_graph(self, frame: av.VideoFrame, turn: Orientation) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1  # slices of several threads would meet at other rows
        width, height = self.shown_size(frame)
        steps = [*self.cut_off.within(frame.width, frame.height).filters, *turn.filters]
        if self._crop:
            width, height, cut = _within_aspect(width, height)
            steps += cut
            short = min(width, height)
            width = max(self._size, _rounded(width * self._size, short))
            height = max(self._size, _rounded(height * self._size, short))
        else:
            width, height = self._width, self._height
        steps += [("scale", f"{width}:{height}:flags={_FLAGS}"), ("format", "rgb24")]
        nodes = [_source(graph, frame), *(graph.add(name, words) for name, words in steps)]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph


class FrameScaler:
    """Makes all pictures that are asked for of a frame, one for each (size, resize)."""

    def __init__(self, pictures: Sequence[tuple[int, str]]) -> None:
        self._scalers = [PictureScaler(size, resize=resize) for size, resize in pictures]
        self._last: tuple[av.VideoFrame, object, list[NDArray[np.uint8]]] | None = None
        self.shown_size = self._scalers[0].shown_size

    def cut_off(self, crop: Crop) -> None:
        """Take what the container cuts off from each stored picture."""
        for scaler in self._scalers:
            scaler.cut_off = crop

    def __call__(self, frame: av.VideoFrame) -> list[NDArray[np.uint8]]:
        """Return a uint8[size, size, 3] for each picture; raises av.FFmpegError.

        Of a frame like the one before, as a slide or a still scene has them, these are the very
        arrays that were returned for that one: nobody may write to them.
        """
        shown_as = (frame_orientation(frame), self._scalers[0].cut_off)
        if self._last is not None:
            last, last_shown_as, pictures = self._last
            if last_shown_as == shown_as and shows_the_same(last, frame):
                return pictures
        pictures = [scaler(frame) for scaler in self._scalers]
        self._last = (frame, shown_as, pictures)
        return pictures


def shows_the_same(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Tell whether two frames have the same samples, meant in the same way.

    A piece of one line tells most apart. What fills a line up behind its samples may differ in
    equal frames; where it cannot be told from them it is compared too, and equal frames may be
    taken for different ones, never the other way round.
    """
    ours, theirs = one.planes[0], other.planes[0]
    if _meaning(one) != _meaning(other) or ours.line_size != theirs.line_size:
        return False
    start = ours.height // 2 * abs(ours.line_size)
    piece = slice(start, start + one.width // 8)  # bytes: no format has less for so many samples
    if memoryview(ours)[piece] != memoryview(theirs)[piece]:
        return False
    return all(
        np.array_equal(_samples(one, number), _samples(other, number))
        for number in range(len(one.planes))
    )


def _meaning(frame: av.VideoFrame) -> tuple[object, ...]:
    return (
        *(frame.width, frame.height, frame.format.name, frame.interlaced_frame),
        *(frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc),
    )


def _samples(frame: av.VideoFrame, number: int) -> NDArray[np.uint8]:
    """Return uint8[lines, bytes] of a plane."""
    plane, layout = frame.planes[number], frame.format
    line = abs(plane.line_size)
    data = np.frombuffer(plane, np.uint8)
    held = [part for part in layout.components if part.plane == number]
    is_packed = layout.is_planar or layout.padded_bits_per_pixel == layout.bits_per_pixel
    if not held or not is_packed:
        return data.reshape(1, -1)  # a palette, or samples with bits between them
    used = sum(part.width * -(-part.bits // 8) for part in held)
    return data[: plane.height * line].reshape(plane.height, line)[:, :used]


def no_rgb(frame: av.VideoFrame, err: Exception) -> str:
    """Say why a frame has no RGB."""
    what = f"no RGB of {frame.format.name}, {frame.width}x{frame.height}"
    if isinstance(err, av.FFmpegError) and err.errno == errno.EOPNOTSUPP:
        space = getattr(frame.colorspace, "name", frame.colorspace)
        return f"{what}: FFmpeg does not convert colours of the matrix {space} (H.273, 8.3)"
    return f"{what}: {err}"


def _within_aspect(width: int, height: int) -> tuple[int, int, list[tuple[str, str | None]]]:
    """Cut a very long picture to its middle, as long as `LONGEST_ASPECT` times its short side."""
    longest = LONGEST_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return width, height, []
    width, height = min(width, longest), min(height, longest)
    return width, height, [("crop", f"{width}:{height}:exact=1")]


def _rounded(over: int, under: int) -> int:
    return (2 * over + under) // (2 * under)
