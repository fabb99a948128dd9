"""How good segments of a long video are, as ActivityNet's official evaluation measures them.

Source: `Evaluation/` of github.com/activitynet/ActivityNet (Caba Heilbron et al. 2015, CVPR).
A prediction is right when it overlaps a segment of its class and video, that none before it took,
by the threshold or more; predictions come in the order of their scores and a second one of the same
segment is wrong. Of segments that it overlaps alike it takes the last. Average precision is
interpolated (Pascal VOC 2011), and a class without a prediction has 0. Two things are stated here
that the source leaves open: predictions of one score keep the order in which they are given, and a
segment without length overlaps itself alone.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # of overlap: 0.5 to 0.95


@dataclasses.dataclass(frozen=True)
class Segment:
    """`label` happens in `video_id` from `start_s` to `end_s`, in seconds; predictions have a
    `score`."""

    video_id: str
    label: str
    start_s: float
    end_s: float
    score: float = 1.0


def overlaps(start_s: float, end_s: float, starts_s: ArrayLike, ends_s: ArrayLike) -> Floats:
    """Return float64[n]: intersection over union of one segment with n others.

    Of two without length it is 1 at the same instant, else 0.
    """
    starts, ends = np.asarray(starts_s, np.float64), np.asarray(ends_s, np.float64)
    shared = np.clip(np.minimum(end_s, ends) - np.maximum(start_s, starts), 0, None)
    union = (ends - starts) + (end_s - start_s) - shared
    same = ((starts == start_s) & (ends == end_s)).astype(np.float64)
    return np.divide(shared, union, out=same, where=union > 0)


def average_precision(right: ArrayLike, positives: int) -> float:
    """Return the interpolated average precision of predictions in the order of their scores.

    `right` is bool[n]; `positives` is how many there are to be found, 1 at least.
    """
    hits = np.cumsum(np.asarray(right, np.float64))
    precision = hits / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    gained = np.diff(hits, prepend=0.0)
    return float((gained * best_from_here).sum() / positives)


def detection_precision(
    truth: Sequence[Segment],
    predicted: Sequence[Segment],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Floats]:
    """Return by class of `truth` the average precision float64[t] at each threshold of overlap.

    The mean over classes is the mAP at a threshold, the mean of those the average mAP.
    """
    found = {}
    guesses = _by(predicted, "label")
    for label, its in _by(truth, "label").items():
        right = right_of(its, guesses.get(label, []), thresholds)
        found[label] = np.array([average_precision(row, len(its)) for row in right])
    return found


def right_of(
    truth: Sequence[Segment], predicted: Sequence[Segment], thresholds: Sequence[float]
) -> NDArray[np.bool_]:
    """Return bool[t, n]: whether each prediction is right, in the order of their scores."""
    videos = _by(truth, "video_id")
    bounds = {
        video_id: (np.array([it.start_s for it in its]), np.array([it.end_s for it in its]))
        for video_id, its in videos.items()
    }
    free = {name: np.ones((len(thresholds), len(its)), np.bool_) for name, its in videos.items()}
    ranked = sorted(predicted, key=lambda segment: -segment.score)
    right = np.zeros((len(thresholds), len(ranked)), np.bool_)
    for place, guess in enumerate(ranked):
        if guess.video_id not in bounds:
            continue
        shared = overlaps(guess.start_s, guess.end_s, *bounds[guess.video_id])
        for row, threshold in enumerate(thresholds):
            left = free[guess.video_id][row]
            able = np.flatnonzero(left & (shared >= threshold))[::-1]
            if len(able):
                left[able[shared[able].argmax()]] = False  # the last of equals
                right[row, place] = True
    return right


def video_precision(
    truth: Iterable[tuple[str, str]], scored: Sequence[tuple[str, str, float]]
) -> dict[str, float]:
    """Return by class the average precision of naming videos.

    `truth` are (video, class); `scored` (video, class, score), of which a second one is wrong.
    """
    pairs = sorted(set(truth))
    videos: dict[str, set[str]] = collections.defaultdict(set)
    for video_id, label in pairs:
        videos[label].add(video_id)
    ranked: dict[str, list[bool]] = {label: [] for label in videos}
    seen = set()
    for video_id, label, _ in sorted(scored, key=lambda row: -row[2]):
        if label in videos:
            ranked[label].append(video_id in videos[label] and (video_id, label) not in seen)
            seen.add((video_id, label))
    return {label: average_precision(row, len(videos[label])) for label, row in ranked.items()}


def hit_at(
    truth: Iterable[tuple[str, str]], scored: Sequence[tuple[str, str, float]], top: int
) -> float:
    """Return the share of videos of which a true class is among their `top` best scored."""
    labels: dict[str, set[str]] = collections.defaultdict(set)
    for video_id, label in truth:
        labels[video_id].add(label)
    best: dict[str, list[str]] = collections.defaultdict(list)
    for video_id, label, _ in sorted(scored, key=lambda row: -row[2]):
        best[video_id].append(label)
    hits = [bool(its & set(best[video_id][:top])) for video_id, its in labels.items()]
    return float(np.mean(hits)) if hits else 0.0


def _by(segments: Iterable[Segment], field: str) -> dict[str, list[Segment]]:
    groups: dict[str, list[Segment]] = collections.defaultdict(list)
    for segment in segments:
        groups[getattr(segment, field)].append(segment)
    return groups
