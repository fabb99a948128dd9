"""From what a network says of each row of a video to what happens in it, and when.

A network reads windows of rows that overlap by half, so that a video may last hours. What several
windows say of a row is averaged, the more weight the further the row is from a window's ends: a
reader that knows nothing yet decides nothing. A row of a cache stands for the time from half-way
after the row before to half-way to the next: of a frame that is the stretch around it, of a clip of
16 frames, whose time is its middle, the clip.

Dimension letters: n rows, w rows of a window, d feature width, a classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from framebank.features.asking.detection import Segment

Floats = NDArray[np.float64]

WINDOW = 64  # rows
_AT_ONCE = 16  # windows that are asked together
_LEAST_ROWS = 3  # of a segment that can spare one


@dataclasses.dataclass(frozen=True)
class SegmentRule:
    """How rows become segments: windows of `window` rows; a mean over `filter_rows`; rows at
    `threshold` or above; segments joined that are `join_s` apart or less; those shorter than
    `least_s` dropped."""

    window: int = WINDOW
    filter_rows: int = 1
    threshold: float = 0.5
    join_s: float = 0.0
    least_s: float = 0.0

    @classmethod
    def from_json(cls, fields: Any) -> SegmentRule:
        """Raises ValueError for what is none."""
        try:
            made = cls(**{name: kind(fields[name]) for name, kind in _FIELDS.items()})
        except (KeyError, TypeError, ValueError) as err:
            raise ValueError(f"no rule of segments in it ({err})") from err
        bounds = (made.threshold, made.join_s, made.least_s)
        if min(made.window, made.filter_rows) < 1 or not all(0 <= it < math.inf for it in bounds):
            raise ValueError(f"the rule of segments {fields}")
        return made

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "window": int, "filter_rows": int, "threshold": float, "join_s": float, "least_s": float,
}  # fmt: skip


def window_starts(rows: int, window: int) -> list[int]:
    """Return where the windows of a video of `rows` begin: each overlaps the one before by half or
    more, and the last ends with the video."""
    last = max(rows - window, 0)
    return [*range(0, last, max(window // 2, 1)), last]


def ask_rows(
    call: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    features: NDArray[Any],
    window: int,
) -> NDArray[np.float32]:
    """Return what `call`, float32[b, w, d] → float32[b, w, a], says of each row of features
    float[n, d]: float32[n, a]."""
    starts, rows = window_starts(len(features), window), len(features)
    size = min(window, rows)
    weight = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    said, weights = None, np.zeros(rows, np.float32)
    for first in range(0, len(starts), _AT_ONCE):
        some = starts[first : first + _AT_ONCE]
        batch = np.stack([features[start : start + size] for start in some]).astype(np.float32)
        for start, shares in zip(some, call(batch), strict=True):
            if said is None:
                said = np.zeros((rows, shares.shape[1]), np.float32)
            said[start : start + size] += shares * weight[:, None]
            weights[start : start + size] += weight
    assert said is not None
    said /= weights[:, None]
    return said


def row_edges(pts_ms: ArrayLike, duration_s: float) -> Floats:
    """Return float64[n + 1]: where in seconds each row begins, and the last one ends. The duration
    is 0 or not a number where it is not known."""
    times = np.asarray(pts_ms, np.float64) / 1000
    half = np.diff(times) / 2
    outer = float(np.median(half)) if len(half) else max(np.nan_to_num(duration_s) - times[0], 0.5)
    end = times[-1] + outer
    if times[-1] < duration_s < end:
        end = duration_s
    return np.concatenate([[max(times[0] - outer, 0)], times[:-1] + half, [end]])


def row_classes(
    pts_ms: ArrayLike,
    segments: Sequence[tuple[float, float, str]],
    numbers: Mapping[str, int],
    *,
    nothing: int,
    unknown: int,
) -> NDArray[np.int32]:
    """Return int32[n]: the class of each row by its time, `nothing` between segments, `unknown`
    for a label that has no number. Where two overlap the shorter counts. Where one touches another
    of its label its first row is `nothing`: else nobody could learn where the one ends.
    """
    times = np.asarray(pts_ms, np.float64) / 1000
    classes = np.full(len(times), nothing, np.int32)
    for start_s, end_s, label in sorted(segments, key=lambda it: it[0] - it[1]):
        classes[(times >= start_s) & (times < end_s)] = numbers.get(label, unknown)
    row_s = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    ends: dict[str, float] = {}
    for start_s, end_s, label in sorted(segments):
        rows = np.flatnonzero((times >= start_s) & (times < end_s))
        if abs(start_s - ends.get(label, -math.inf)) < row_s and len(rows) >= _LEAST_ROWS:
            classes[rows[0]] = nothing
        ends[label] = max(end_s, ends.get(label, -math.inf))
    return classes


def video_shares(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32[a]: the label of a video, the mean of float32[n, a + 1] over its rows without
    the last column, that nothing happens; the sum is 1."""
    mean = shares[:, :-1].astype(np.float64).mean(axis=0)
    return (mean / max(float(mean.sum()), 1e-30)).astype(np.float32)


def smoothed(shares: NDArray[Any], rows: int) -> Floats:
    """Return float64[n, a]: the mean of float[n, a] over `rows` around each, fewer at the ends."""
    before, after = (rows - 1) // 2, rows // 2
    count = len(shares)
    sums = np.concatenate([np.zeros((1, shares.shape[1])), np.cumsum(shares, axis=0, dtype=float)])
    first = np.maximum(np.arange(count) - before, 0)
    last = np.minimum(np.arange(count) + after + 1, count)
    return (sums[last] - sums[first]) / (last - first)[:, None]


def find_segments(
    shares: NDArray[Any],
    edges_s: Floats,
    labels: Sequence[str],
    rule: SegmentRule,
    *,
    video_id: str,
) -> list[Segment]:
    """Return the segments of float[n, a + 1], the surest first; a score is the mean over the
    segment's rows. `edges_s` float64[n + 1] are those of `row_edges`."""
    smooth = smoothed(shares[:, : len(labels)], rule.filter_rows)
    found = []
    for number in np.flatnonzero((smooth >= rule.threshold).any(axis=0)).tolist():
        column = smooth[:, number]
        for first, last in _runs(column >= rule.threshold, edges_s, rule.join_s):
            start_s, end_s = float(edges_s[first]), float(edges_s[last])
            if end_s - start_s >= rule.least_s:
                score = float(column[first:last].mean())
                found.append(Segment(video_id, labels[number], start_s, end_s, score))
    return sorted(found, key=lambda segment: (-segment.score, segment.start_s, segment.label))


def _runs(above: NDArray[np.bool_], edges_s: Floats, join_s: float) -> Iterator[tuple[int, int]]:
    """Yield [first, last) of runs of rows, joined over gaps of `join_s` or less."""
    steps = np.diff(np.concatenate([[0], above.astype(np.int8), [0]]))
    firsts, lasts = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
    apart = edges_s[firsts[1:]] - edges_s[lasts[:-1]] > join_s + 1e-9
    yield from zip(
        firsts[np.append(True, apart)].tolist(), lasts[np.append(apart, True)].tolist(), strict=True
    )
