"""A closed formula of rows, that stands beside a model of segments: what five lines of NumPy find.

Ridge regression (`train.model.ridge`) of the class of a row on the row itself, blind to order, or
also on the mean of the rows around it and on how those after it differ from those before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.heads import Head
from framebank.features.asking.segmenting import smoothed
from framebank.features.questions.question import Question
from framebank.features.questions.splits import video_place
from framebank.train.data.windows import Timeline
from framebank.train.judging.detections import Found
from framebank.train.judging.segment_rule import Seen, choose_rule, sample
from framebank.train.model.config import PROBE, PROBE_BLIND
from framebank.train.model.heads import OUTSIDE
from framebank.train.model.ridge import Ridge, fit_ridge

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache
    from framebank.features.stop_signals import StopRequest

Read = Callable[[str], tuple[NDArray, Timeline]]  # a video's rows float[n, d], and their times

_ROWS = 1500  # that the formula is fitted to
_VIDEOS = 200  # of which they are drawn
_REACH = 2  # rows on each side
_CANDIDATES: Mapping[str, Sequence[tuple[str, ...]]] = {
    PROBE_BLIND: [("row",)],
    PROBE: [("row",), ("row", "change"), ("row", "around", "change")],
}


PROBES = tuple(_CANDIDATES)


@dataclasses.dataclass(frozen=True)
class RowProbe:
    """`scale` maps blocks of columns to what is taken off and divided by, float64[d] each."""

    ridge: Ridge
    scale: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

    def shares(self, features: NDArray) -> NDArray[np.float32]:
        """Return float32[n, a + 1] of the rows of a video float[n, d]; each row's sum is 1."""
        made, total = _blocks(features), self.ridge.bias
        for name, kernel in self.ridge.kernels.items():
            mean, deviation = self.scale[name]
            total = total + (made[name] - mean) / deviation @ kernel
        total = np.clip(total, 1e-6, None)
        return (total / total.sum(axis=1, keepdims=True)).astype(np.float32)


def _blocks(features: NDArray) -> dict[str, NDArray[np.float64]]:
    rows = np.asarray(features, np.float64)
    means = smoothed(rows, _REACH)  # over a row and the one after
    before = means[np.maximum(np.arange(len(rows)) - _REACH, 0)]
    after = means[np.minimum(np.arange(len(rows)) + 1, len(rows) - 1)]
    return {"row": rows, "around": smoothed(rows, 2 * _REACH + 1), "change": after - before}


def fit_rows(
    read: Read, train: Sequence[Question], head: Head, *, kind: str, seed: int
) -> RowProbe:
    """Return the formula of `kind`, fitted to rows drawn evenly from the videos of `train`."""
    videos = sorted(train, key=lambda q: video_place(q.video_id, seed=seed))[:_VIDEOS]
    dice = np.random.default_rng(seed)
    parts: list[dict[str, NDArray[np.float64]]] = []
    classes, groups = [], []
    for question in videos:
        features, times = read(question.video_id)
        its = times.classes(question, head)
        known = np.flatnonzero(its != OUTSIDE)
        chosen = np.sort(dice.permutation(known)[: -(-_ROWS // len(videos))])
        parts.append({name: block[chosen] for name, block in _blocks(features).items()})
        classes.append(its[chosen])
        groups += [question.source] * len(chosen)
    blocks, scale = {}, {}
    for name in parts[0]:
        block = np.concatenate([part[name] for part in parts])
        deviation = block.std(axis=0)
        scale[name] = block.mean(axis=0), np.where(deviation > 1e-9, deviation, 1.0)
        blocks[name] = ((block - scale[name][0]) / scale[name][1]).astype(np.float32)
    targets = np.eye(len(head.answers) + 1)[np.concatenate(classes)]
    return RowProbe(fit_ridge(blocks, targets, groups, _CANDIDATES[kind], seed=seed), scale)


def cached_rows(cache: Cache, stop: StopRequest) -> Read:
    """Return what reads a video from `cache`; raises TrainingStopped when `stop` is set."""

    def read(video_id: str) -> tuple[NDArray, Timeline]:
        stop.check()
        record = cache[video_id]
        return record.features, Timeline.of(record)

    return read


def find_by_formula(
    read: Read,
    train: Sequence[Question],
    val: Sequence[Question],
    asked: Sequence[Question],
    head: Head,
    *,
    seed: int,
    kinds: Sequence[str] = PROBES,
) -> dict[str, list[Found]]:
    """Return what the formulas find in the videos `asked`, their rules chosen on those of `val`."""
    found: dict[str, list[Found]] = {}
    for kind in kinds:
        probe = fit_rows(read, train, head, kind=kind, seed=seed)

        def see(question: Question, probe: RowProbe = probe) -> tuple[Seen, Timeline]:
            features, times = read(question.video_id)
            return Seen(question, probe.shares(features), times.edges_s), times

        rule, _ = choose_rule([see(question)[0] for question in sample(val)], train, head.answers)
        found[kind] = []
        for question in asked:
            seen, times = see(question)
            classes = times.classes(question, head)
            its = Found.of(seen.shares, seen.edges_s, head.answers, rule, classes)
            found[kind].append(its)
    return found
