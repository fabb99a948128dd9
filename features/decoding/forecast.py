"""Which frames a rule will need, said while a clip is decoded: the pictures then leave at once."""

from __future__ import annotations

import math

from framebank.features.decoding import sampling
from framebank.features.decoding.sampling import SampleRule, Timeline


class Forecast:
    """Says while a clip is decoded which frames a rule will need, one frame behind.

    It may be wrong where timestamps go back; `select_rows` has the last word.
    """

    def __init__(self, rule: SampleRule, timeline: Timeline, wanted: frozenset[int] | None) -> None:
        """`wanted` holds the timestamps that `uniform=N` is expected to pick."""
        self._rule, self._timeline, self._wanted = rule, timeline, wanted
        self.rows = 0

    def needs(self, number: int, next_pts: int | None) -> bool:
        """Tell whether frame `number` gets rows (`next_pts`: the next frame's, None: no next)."""
        rows = self._rows(number, next_pts)
        self.rows += rows
        return rows > 0

    def _rows(self, number: int, next_pts: int | None) -> int:
        rule, timeline = self._rule, self._timeline
        if rule.kind == "every":
            return number % rule.count == 0
        if rule.kind == "keyframes":
            return timeline.keyframes[number]
        pts = timeline.pts
        if rule.kind == "uniform":
            return self._wanted is not None and pts[number] in self._wanted
        if next_pts is None:
            next_pts = pts[0] + sampling.shown_ticks(pts, timeline.durations[number])
        step = 1 / (rule.value * timeline.time_base)
        first = max(0, math.ceil((pts[number] - pts[0]) / step))
        rows = math.ceil((next_pts - pts[0]) / step) - first
        return max(rows, number == 0)
