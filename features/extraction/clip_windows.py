"""Clips of frames for networks that look at several at once: which rows, and the frames meanwhile.

The law: clips of `length` rows begin at 0, stride, 2 · stride … as long as they are whole; where
the last one ends before the video, one more ends with it, so that no sampled frame is left out. A
video of fewer rows than `length` is one clip, whose last frame is held to its end, as a player
holds it: it loses nothing, nothing is made up (as frames of zeros would be), and a still picture is
a clip that stands still. Its span says how long it is.
"""

from __future__ import annotations

import bisect
import tempfile
from fractions import Fraction
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.stores.temporary import explained, temporary_error

_MEMORY_BYTES = 2**25  # of frames of a video that wait in memory; more wait on the disk


def clip_windows(rows: int, *, length: int, stride: int) -> list[list[int]]:
    """Return the row numbers of each clip of a video of `rows` sampled frames, 1 at least."""
    if rows <= length:
        return [[min(row, rows - 1) for row in range(length)]]
    starts = list(range(0, rows - length + 1, stride))
    if starts[-1] + length < rows:
        starts.append(rows - length)
    return [list(range(start, start + length)) for start in starts]


class Placed(NamedTuple):
    """Where clips lie: int64[n] middle and frame shown then, int64[n, 2] first and last frame."""

    pts_ms: NDArray[np.int64]
    frame_index: NDArray[np.int64]
    span_ms: NDArray[np.int64]


def place_windows(windows: list[list[int]], pts_ms: list[int], frame_index: list[int]) -> Placed:
    """Return where `windows` of rows with these times and numbers lie; middles are rounded to the
    nearest millisecond, halves to even."""
    spans = [(pts_ms[window[0]], pts_ms[window[-1]]) for window in windows]
    shown = [
        window[bisect.bisect_right([2 * pts_ms[row] for row in window], sum(span)) - 1]
        for window, span in zip(windows, spans, strict=True)
    ]
    return Placed(
        np.array([round(Fraction(sum(span), 2)) for span in spans], np.int64),
        np.array([frame_index[row] for row in shown], np.int64),
        np.array(spans, np.int64),
    )


class FrameSpool:
    """Frames uint8[size, size, 3] of one video by their token, until it is known which rows they
    are; in memory, or on the disk where they are many."""

    def __init__(self) -> None:
        with explained():
            self._file: IO[bytes] = tempfile.SpooledTemporaryFile(
                max_size=_MEMORY_BYTES, prefix="framebank-"
            )
        self._places: dict[int, int] = {}

    def add(self, token: int, rgb: NDArray[np.uint8]) -> None:
        """Keep a frame; raises JobError where the temporary folder is full."""
        if token in self._places:  # of a second attempt: the same one
            return
        try:
            place = self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(rgb).data.cast("B"))
        except OSError as fault:
            raise temporary_error(fault) from fault
        self._places[token] = place

    def missing(self, tokens: list[int]) -> set[int]:
        return set(tokens) - self._places.keys()

    def read(self, token: int, into: NDArray[Any]) -> None:
        """Fill `into` uint8[size, size, 3] with a frame."""
        self._file.seek(self._places[token])
        into[:] = np.frombuffer(self._file.read(into.nbytes), np.uint8).reshape(into.shape)

    def close(self) -> None:
        self._file.close()
