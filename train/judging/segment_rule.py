"""The rule that makes segments of rows: the one of the highest average mAP on validation videos."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.segmenting import SegmentRule, find_segments
from framebank.features.questions.question import Question
from framebank.features.questions.splits import video_place
from framebank.train.judging.detections import average_map, true_segments

_FILTERS = (1, 3, 5, 9, 15, 25)  # rows
_THRESHOLDS = (0.3, 0.2, 0.4, 0.1, 0.5, 0.05, 0.6, 0.7, 0.02, 0.8)  # the likeliest first
_GAPS = (0, 1, 2, 4, 8)  # rows
_LEASTS = (0, 0.25, 0.5, 0.75)  # of the shortest twentieth of the training segments
_MOST_VIDEOS = 300  # that choose the rule
_LEAST_SHARE = 0.01  # of a row: less is as good as nothing, and is not kept


class Seen(NamedTuple):
    """What a network says of the rows of one video, float32[n, a + 1], and where they begin."""

    question: Question
    shares: NDArray[np.float32]
    edges_s: NDArray[np.float64]


def sample(questions: Sequence[Question]) -> list[Question]:
    """Return the videos that choose the rule, a part of many."""
    order = sorted(questions, key=lambda q: (video_place(q.video_id, seed=0), q.video_id))
    return order[:_MOST_VIDEOS]


def choose_rule(
    seen: Sequence[Seen], train: Sequence[Question], labels: Sequence[str]
) -> tuple[SegmentRule, float]:
    """Return the rule of the highest average mAP on the videos `seen`, and that; of equals the
    first. Filter and threshold are chosen before joining and the least length."""
    truth = true_segments(one.question for one in seen)
    kept = [_sparse(one, labels) for one in seen]
    lasts_s = [end - start for q in train for start, end, _ in q.segments]
    shortest_s = float(np.percentile(lasts_s, 5)) if lasts_s else 0.0
    row_s = float(np.median(np.concatenate([np.diff(one.edges_s) for one in seen])))
    best, most = SegmentRule(), -1.0

    def consider(rule: SegmentRule) -> None:
        nonlocal best, most
        found = [
            segment
            for one, shares, its in kept
            for segment in find_segments(
                shares, one.edges_s, its, rule, video_id=one.question.video_id
            )
        ]
        score = average_map(truth, found)
        if score > most + 1e-9:
            best, most = rule, score

    for rows, threshold in itertools.product(_FILTERS, _THRESHOLDS):
        consider(SegmentRule(filter_rows=rows, threshold=threshold))
    start = best
    for gap, least in itertools.product(_GAPS, _LEASTS):
        join_s, least_s = round(gap * row_s, 3), round(least * shortest_s, 3)
        consider(dataclasses.replace(start, join_s=join_s, least_s=least_s))
    return best, max(most, 0.0)


def _sparse(seen: Seen, labels: Sequence[str]) -> tuple[Seen, NDArray[np.float32], list[str]]:
    """Return only the classes of which a video may have something: mostly few of many."""
    some = np.flatnonzero(seen.shares[:, :-1].max(axis=0) >= _LEAST_SHARE).tolist()
    return seen._replace(shares=seen.shares[:0]), seen.shares[:, some], [labels[n] for n in some]
