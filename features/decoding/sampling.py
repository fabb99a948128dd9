"""When the frames of a clip are shown, and which of them become rows: the contract of `--sample`.

`select_rows` is the whole definition, in exact rational arithmetic. It looks at the presentation
timestamps of every shown frame and nothing else; `features/decoding/decode.py` reaches the same
rows while it reads the clip, and a test holds the two together. With t0 the first frame's pts, and
tend the last frame's pts plus its duration (the container's, else the gap before it; a clip of one
frame counts as one):

    fps=R       the frame on display at t0 + k/R, for every k >= 0 with t0 + k/R < tend
    uniform=N   the frame on display at t0 + (k + 1/2)(tend - t0)/N, for k = 0 .. N-1
    every=K     frames 0, K, 2K ... in order of presentation ("all" is every=1)
    keyframes   the frames that the stream flags as key

"On display at t" is the last frame whose pts is not after t; of frames with one pts, the last.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError

KINDS = ("fps", "uniform", "every", "keyframes")
_FORMS = "fps=R (such as 2, 1/2, 30000/1001), uniform=N, every=K, all, keyframes"
_RATE = re.compile(r"\d{1,9}(?:/(?P<under>\d{1,9})|\.\d{1,9})?", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)


@dataclasses.dataclass(frozen=True)
class SampleRule:
    """One sampling rule; `value` is R, N or K (1 for keyframes) and always positive."""

    kind: str
    value: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        whole = self.kind == "fps" or self.value.denominator == 1
        if self.kind not in KINDS or self.value <= 0 or not whole:
            got = f"{self.kind}={self.value}"
            raise UsageError("no such sampling rule", got=got, expected=_FORMS)

    @property
    def text(self) -> str:
        """Return the canonical text: two rules that pick the same frames by definition share it."""
        return self.kind if self.kind == "keyframes" else f"{self.kind}={self.value}"

    @property
    def count(self) -> int:
        """Return N or K of `uniform=N` and `every=K`."""
        return int(self.value)


def parse_rule(text: str) -> SampleRule:
    """Read "fps=1/2", "uniform=8", "every=3", "all" or "keyframes"; raises UsageError otherwise."""
    name, _, value = text.strip().partition("=")
    if text.strip() in ("keyframes", "all"):
        return SampleRule("keyframes") if name == "keyframes" else SampleRule("every")
    if name == "fps" and (match := _RATE.fullmatch(value)) and int(match["under"] or 1):
        return SampleRule("fps", Fraction(value))
    if name in ("uniform", "every") and _COUNT.fullmatch(value):
        return SampleRule(name, Fraction(int(value)))
    raise UsageError("no such sampling rule", got=repr(text), expected=_FORMS)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A clip's frames in order of presentation, at least one.

    `numbers` int64[frames] are those that `Timeline.add` gave, `pts` (never falling) ticks of
    `time_base` seconds, `last_duration` the last frame's ticks or 0 where the container states
    none, `keyframes` the stream's flags.
    """

    numbers: NDArray[np.int64]
    pts: Sequence[int]
    last_duration: int
    keyframes: Sequence[int]
    time_base: Fraction

    @property
    def ticks(self) -> int:
        """Return tend - t0."""
        return shown_ticks(self.pts, self.last_duration)

    def milliseconds(self, row: int) -> int:
        """Return when the frame at `row` is shown, after the first."""
        return milliseconds(self.pts[row] - self.pts[0], self.time_base)

    def rate_fps(self, nominal: Fraction) -> float:
        """Return the mean rate of the frames, or `nominal` where all are shown at one time."""
        span = self.pts[-1] - self.pts[0]
        return float((len(self.pts) - 1) / (span * self.time_base) if span else nominal)


def select_rows(
    rule: SampleRule, shown: Shown, *, max_frames: int | None
) -> tuple[list[int], bool]:
    """Return the frame of every row as indices into `shown`, and whether `max_frames` cut rows off.

    No frames give no rows.
    """
    rows = iter_rows(rule, shown)
    chosen = list(itertools.islice(rows, max_frames))
    return chosen, next(rows, None) is not None


def iter_rows(rule: SampleRule, shown: Shown) -> Iterator[int]:
    """Yield what `select_rows` lists, without its list."""
    pts = shown.pts
    if not len(pts):
        return
    if rule.kind == "every":
        yield from range(0, len(pts), rule.count)
    elif rule.kind == "keyframes":
        yield from (index for index, flag in enumerate(shown.keyframes) if flag)
    else:
        index = 0
        for over, under in _targets(rule, shown):
            while index + 1 < len(pts) and (pts[index + 1] - pts[0]) * under <= over:
                # A search instead of a walk, so that few rows of a long clip cost little.
                floor = over // under + pts[0]
                index = bisect.bisect_right(pts, floor, lo=index + 1) - 1
            yield index


def count_rows(
    rule: SampleRule,
    *,
    frames: int,
    span: int,
    time_base: Fraction,
) -> int:
    """Return how many rows a clip of `frames` frames and `span` ticks gives, without making them.

    For keyframes it is the most there can be.
    """
    if not frames:
        return 0
    if rule.kind == "fps":
        return max(1, math.ceil(span * time_base * rule.value))
    if rule.kind == "uniform":
        return rule.count
    return frames if rule.kind == "keyframes" else -(-frames // rule.count)


def shown_ticks(pts: Sequence[int], last_duration: int) -> int:
    """Return tend - t0 in ticks."""
    if last_duration <= 0:
        last_duration = pts[-1] - pts[-2] if len(pts) > 1 else 0
    return pts[-1] + last_duration - pts[0]


def milliseconds(ticks: int, time_base: Fraction) -> int:
    """Return `ticks` of `time_base` seconds as whole milliseconds, halves to even."""
    return round(ticks * time_base * 1000)


def _targets(rule: SampleRule, shown: Shown) -> Iterator[tuple[int, int]]:
    """Yield the times of `fps=R` and `uniform=N` as fractions (over, under) of a tick after t0."""
    span = shown.ticks
    if rule.kind == "uniform":
        for k in range(rule.count):
            yield (2 * k + 1) * span, 2 * rule.count
        return
    step = 1 / (rule.value * shown.time_base)
    yield 0, 1  # a clip without any duration still shows its frame once
    for k in itertools.count(1):
        over = k * step.numerator
        if over >= span * step.denominator:
            return
        yield over, step.denominator


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
