"""Which frames of a clip become rows: the contract of `--sample`, in exact rational arithmetic.

`select_rows` is the whole definition. It looks at the presentation timestamps of every shown frame
and nothing else; `features/decoding/decode.py` reaches the same rows while it reads the clip, and a
test holds the two together. With t0 the first frame's pts, and tend the last frame's pts plus its
duration (the container's, else the gap before it; a clip of one frame counts as one):

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
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from framebank.features.errors import UsageError

KINDS = ("fps", "uniform", "every", "keyframes")
_FORMS = "fps=R (such as 2, 1/2, 30000/1001), uniform=N, every=K, all, keyframes"
_RATE = re.compile(r"(\d{1,9})(?:/(\d{1,9})|\.(\d{1,9}))?", re.ASCII)
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
    if name == "fps" and (match := _RATE.fullmatch(value)):
        whole, under, decimals = match.groups()
        if under is not None and int(under):
            return SampleRule("fps", Fraction(int(whole), int(under)))
        if under is None:
            return SampleRule("fps", Fraction(f"{whole}.{decimals or 0}"))
    if name in ("uniform", "every") and _COUNT.fullmatch(value):
        return SampleRule(name, Fraction(int(value)))
    raise UsageError("no such sampling rule", got=repr(text), expected=_FORMS)


def select_rows(
    rule: SampleRule,
    *,
    pts: Sequence[int],
    last_duration: int | None,
    time_base: Fraction,
    keyframes: Sequence[bool] | Sequence[int],
    max_frames: int | None,
) -> tuple[list[int], bool]:
    """Return the frame of every row as indices into `pts`, and whether `max_frames` cut rows off.

    `pts` holds every shown frame in order of presentation (never falling) in ticks of `time_base`
    seconds, `last_duration` the container's duration of the last frame in ticks (None or 0 where it
    states none), `keyframes` the stream's flags. No frames give no rows.
    """
    rows = iter_rows(
        rule,
        pts=pts,
        last_duration=last_duration,
        time_base=time_base,
        keyframes=keyframes,
    )
    if max_frames is None:
        return list(rows), False
    chosen = list(itertools.islice(rows, max_frames))
    return chosen, next(rows, None) is not None


def iter_rows(
    rule: SampleRule,
    *,
    pts: Sequence[int],
    last_duration: int | None,
    time_base: Fraction,
    keyframes: Sequence[bool] | Sequence[int],
) -> Iterator[int]:
    """Yield what `select_rows` lists, without its list."""
    if not len(pts):
        return
    if rule.kind == "every":
        yield from range(0, len(pts), rule.count)
    elif rule.kind == "keyframes":
        yield from (index for index, flag in enumerate(keyframes) if flag)
    else:
        span = shown_ticks(pts, last_duration)
        ticks = (
            _fps_ticks(rule, span, time_base) if rule.kind == "fps" else _uniform_ticks(rule, span)
        )
        index = 0
        for over, under in ticks:
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
        return max(1, _ceil(span * time_base * rule.value))
    if rule.kind == "uniform":
        return rule.count
    return frames if rule.kind == "keyframes" else -(-frames // rule.count)


def shown_ticks(pts: Sequence[int], last_duration: int | None) -> int:
    """Return tend - t0 in ticks."""
    if last_duration is None or last_duration <= 0:
        last_duration = pts[-1] - pts[-2] if len(pts) > 1 else 0
    return pts[-1] + last_duration - pts[0]


def milliseconds(ticks: int, time_base: Fraction) -> int:
    """Return `ticks` of `time_base` seconds as whole milliseconds, halves to even."""
    return round(ticks * time_base * 1000)


def fits_milliseconds(ticks: int, time_base: Fraction) -> bool:
    """Tell whether `milliseconds` fits into 64 bits."""
    return abs(ticks * time_base * 1000) < 1 << 62


def _fps_ticks(rule: SampleRule, span: int, time_base: Fraction) -> Iterator[tuple[int, int]]:
    """Yield the targets k/R as fractions (over, under) of a tick after t0, while before `span`."""
    step = 1 / (rule.value * time_base)
    yield 0, 1  # a clip without any duration still shows its frame once
    for k in itertools.count(1):
        over = k * step.numerator
        if over >= span * step.denominator:
            return
        yield over, step.denominator


def _uniform_ticks(rule: SampleRule, span: int) -> Iterator[tuple[int, int]]:
    """Yield the targets (k + 1/2) span / N as fractions (over, under) of a tick after t0."""
    for k in range(rule.count):
        yield (2 * k + 1) * span, 2 * rule.count


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
