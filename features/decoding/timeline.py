"""When each frame of a clip is shown, in 17 bytes a frame: an hour of video stays small."""

from __future__ import annotations

import dataclasses
from array import array
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoding import sampling


class BestTimestamp:
    """FFmpeg's best guess at a frame's timestamp, from the two that a decoder passes on.

    A frame carries the presentation time that its packet stated and the decoding time of the packet
    that released it. The first is taken unless it is absent or has gone back more often than the
    second; this is libavcodec's `best_effort_timestamp`, which PyAV does not pass on.
    """

    def __init__(self) -> None:
        self._last_pts = self._last_dts = -(1 << 63)
        self._wrong_pts = self._wrong_dts = 0

    def __call__(self, pts: int | None, dts: int | None) -> int | None:
        """Return the timestamp to use, or None where the frame has neither."""
        if dts is not None:
            self._wrong_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._wrong_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        trusted = self._wrong_pts <= self._wrong_dts or dts is None
        return pts if pts is not None and trusted else dts


class Timeline:
    """Every shown frame of a clip in order of decoding: timestamp, duration, key flag.

    A frame without a timestamp stands one nominal period after the one before it, or before the
    first that has one; where such a period is no whole number of ticks, the ticks are made finer.
    """

    def __init__(self, time_base: Fraction, nominal_rate: Fraction) -> None:
        self.time_base = time_base
        self._period = 1 / (nominal_rate * time_base)  # ticks of `time_base`
        self._scale = 1
        self._unknown_head = 0
        self._shift: int | None = 0  # ticks by which a part is moved, None: not yet known
        self._joining: tuple[Fraction, Fraction] | None = None
        self.pts, self.durations, self.keyframes = array("q"), array("q"), bytearray()

    def __len__(self) -> int:
        return len(self.pts)

    def add(self, pts: int | None, duration: int | None, key: bool) -> int:
        """Append a frame and return its timestamp in ticks; raises OverflowError past 64 bits."""
        if self._joining is not None:
            self._join(*self._joining)
        if pts is None:
            self._refine(self._period.denominator)
            self._unknown_head += self._unknown_head == len(self.pts)
            ticks = self.pts[-1] + int(self._period) if self.pts else 0
        else:
            if self._shift is None:
                self._shift = self._end() - pts * self._scale
            ticks = pts * self._scale + self._shift
            if self._unknown_head and self._unknown_head == len(self.pts):
                shift = ticks - self.pts[-1] - int(self._period)
                self.pts = array("q", (known + shift for known in self.pts))
        self.pts.append(ticks)
        self.durations.append((duration or 0) * self._scale)
        self.keyframes.append(key)
        return ticks

    def begin_part(self, time_base: Fraction, nominal_rate: Fraction) -> None:
        """Show what follows after all that came before; its timestamps are in `time_base`."""
        self._joining = time_base, nominal_rate

    def shown(self) -> Shown:
        """Return the frames in order of presentation, equal timestamps in the order of decoding."""
        pts = np.frombuffer(self.pts, np.int64)
        order = np.argsort(pts, kind="stable")
        return Shown(
            numbers=order,
            pts=array("q", pts[order].tobytes()),
            last_duration=self.durations[int(order[-1])],
            keyframes=np.frombuffer(self.keyframes, np.uint8)[order].tobytes(),
            time_base=self.time_base,
        )

    def _join(self, time_base: Fraction, nominal_rate: Fraction) -> None:
        self._joining = None
        self._refine((time_base / self.time_base).denominator)
        self._scale = (time_base / self.time_base).numerator
        self._period = 1 / (nominal_rate * self.time_base)
        self._unknown_head = 0
        self._shift = None if self.pts else 0

    def _end(self) -> int:
        """Return when the frames so far have all been shown."""
        last = int(np.argmax(np.frombuffer(self.pts, np.int64)))
        return self.pts[last] + (self.durations[last] or max(1, int(self._period)))

    def _refine(self, finer: int) -> None:
        if finer == 1:
            return
        self.time_base /= finer
        self._period *= finer
        self._scale *= finer
        self._shift = None if self._shift is None else self._shift * finer
        self.pts = array("q", (ticks * finer for ticks in self.pts))
        self.durations = array("q", (ticks * finer for ticks in self.durations))


@dataclasses.dataclass(frozen=True)
class Shown:
    """A clip's frames in order of presentation, at least one.

    `numbers` int64[frames] are those that `Timeline.add` gave, `pts` ticks of `time_base` seconds,
    `last_duration` the last frame's ticks or 0 where the container states none.
    """

    numbers: NDArray[np.int64]
    pts: array[int]
    last_duration: int
    keyframes: bytes
    time_base: Fraction

    @property
    def ticks(self) -> int:
        """Return tend - t0."""
        return sampling.shown_ticks(self.pts, self.last_duration)

    def milliseconds(self, row: int) -> int:
        """Return when the frame at `row` is shown, after the first."""
        return sampling.milliseconds(self.pts[row] - self.pts[0], self.time_base)

    def rate_fps(self, nominal: Fraction) -> float:
        """Return the mean rate of the frames, or `nominal` where all are shown at one time."""
        span = self.pts[-1] - self.pts[0]
        return float((len(self.pts) - 1) / (span * self.time_base) if span else nominal)
