"""How good what was found in videos is: average precision, labels of videos, rows, with intervals.

What is measured says `features.asking.detection`. Average precision is none of single videos, so an
interval draws sources, works out the mean over classes of the drawn, and does so for all models
alike; a class that no drawn source has counts in no mean, and a draw without any in no interval.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.detection import (
    THRESHOLDS,
    Segment,
    average_precision,
    hit_at,
    right_of,
    video_precision,
)
from framebank.features.asking.segmenting import SegmentRule, find_segments, video_shares
from framebank.features.questions.question import Question
from framebank.train.judging.bootstrap import Comparison, middle

Floats = NDArray[np.float64]

BASELINE = "order_blind"  # the kind that is trained to stand beside a model
ROUNDS = 500
_AT_ONCE = 2**22  # predictions of draws
_NAMES = [f"{threshold:.2f}" for threshold in THRESHOLDS]
LABELS = {
    "order_blind": "order-blind (each row alone)",
    "probe": "probe (rows and their change)",
    "probe_blind": "probe, order-blind",
    "majority": "commonest, over all of a video",
}
_LABELS = 50  # of a video that are kept
_COUNTS = ("rows", "right", "nothing", "nothing_said", "nothing_right")


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in one video: `segments`, the surest first, `labels` with their shares, and
    counts of its rows, of which in `nothing` nothing happens."""

    segments: tuple[tuple[str, float, float, float], ...]  # label, start_s, end_s, score
    labels: tuple[tuple[str, float], ...]
    rows: tuple[int, ...] = (0,) * len(_COUNTS)

    @classmethod
    def of(
        cls,
        shares: NDArray[np.float32],
        edges_s: Floats,
        labels: Sequence[str],
        rule: SegmentRule,
        classes: NDArray[np.int32],
    ) -> Found:
        """Return what float32[n, a + 1] say of a video whose rows are of `classes` int32[n]."""
        segments = find_segments(shares, edges_s, labels, rule, video_id="")
        its = video_shares(shares)
        order = np.argsort(-its, kind="stable")[:_LABELS].tolist()
        said, nothing = shares.argmax(axis=1), len(labels)
        true, guessed = classes == nothing, said == nothing
        counts = (len(said), (said == classes).sum(), true.sum(), guessed.sum())
        return cls(
            tuple((it.label, it.start_s, it.end_s, it.score) for it in segments),
            tuple((labels[number], float(its[number])) for number in order),
            tuple(int(count) for count in (*counts, (true & guessed).sum())),
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Found:
        """Raises KeyError, TypeError."""
        segments = tuple(tuple(one) for one in fields["segments"])
        return cls(segments, tuple(map(tuple, fields["labels"])), tuple(fields["rows"]))


def commonest(
    train: Sequence[Question], lengths_s: Sequence[float], found: Sequence[Found]
) -> list[Found]:
    """Return what is said without a look: every class over the whole of each video, by how often it
    happens in training. `found` is anything that was found in the same videos."""
    counts = collections.Counter(one[2] for q in train for one in q.segments)
    shares = {label: count / counts.total() for label, count in sorted(counts.items())}
    labels = tuple(sorted(shares.items(), key=lambda item: -item[1])[:_LABELS])
    return [
        Found(
            tuple((label, 0.0, length_s, share) for label, share in labels),
            labels,
            (its.rows[0], its.rows[2], its.rows[2], its.rows[0], its.rows[2]),
        )
        for length_s, its in zip(lengths_s, found, strict=True)
    ]


def judge_found(
    asked: Sequence[Question], said: Mapping[str, Sequence[Found]], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the figures of each model of `said`, which has an item for each question; those of all
    but "model" have how far "model" is "ahead"."""
    draws = _Draws([question.source for question in asked], seed)
    means = {name: _figures(asked, found, draws) for name, found in said.items()}
    found = {}
    for name, (figures, drawn) in means.items():
        found[name] = figures
        if name != "model" and "model" in means:
            ahead = _compare(means["model"][0]["average_map"], figures["average_map"],
                             means["model"][1], drawn)  # fmt: skip
            figures["ahead"] = {"measure": "average mAP", **ahead.to_json()}
    return found


def leading(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return by how much each baseline leads that surely does, with the interval."""
    leads = {}
    for name, its in figures.items():
        if "ahead" in its:
            (low, high), lead = its["ahead"]["interval"], its["ahead"]["difference"]
            if low < high < 0:  # of one source all draws are the same, and tell nothing
                leads[name] = [-lead, -high, -low]
    return leads


def average_map(truth: Sequence[Segment], found: Sequence[Segment]) -> float:
    """Return the mean over classes and thresholds of average precision; 0 without a truth."""
    guesses, its = _by_label(found), _by_label(truth)
    scores = [
        average_precision(row, len(own))
        for label, own in its.items()
        for row in right_of(own, guesses.get(label, []), THRESHOLDS)
    ]
    return float(np.mean(scores)) if scores else 0.0


def true_segments(asked: Iterable[Question]) -> list[Segment]:
    return [
        Segment(q.video_id, label, start_s, end_s)
        for q in asked
        for start_s, end_s, label in q.segments
    ]


def compare_found(
    asked: Sequence[Question], new: Sequence[Found], old: Sequence[Found], *, seed: int
) -> tuple[float, float, Comparison]:
    """Return the average mAP of two models, and by how much the new one is better."""
    draws = _Draws([question.source for question in asked], seed)
    (ours, drawn), (theirs, others) = (_figures(asked, its, draws) for its in (new, old))
    both = ours["average_map"], theirs["average_map"]
    return *both, _compare(*both, drawn, others)


def _compare(new: float, old: float, drawn: Floats, others: Floats) -> Comparison:
    apart = drawn - others
    known = apart[np.isfinite(apart)]
    better = float((known > 0).mean() + (known == 0).mean() / 2) if len(known) else 0.5
    return Comparison(new - old, *_interval(apart), better)


def _interval(drawn: Floats) -> tuple[float, float]:
    known = drawn[np.isfinite(drawn)]
    return middle(known) if len(known) else (0.0, 0.0)


class _Draws:
    """How often each source stands in each draw: float64[rounds, sources]."""

    def __init__(self, sources: Sequence[str], seed: int) -> None:
        names, number = np.unique(np.array(sources, dtype=object).astype(str), return_inverse=True)
        drawn = np.random.default_rng(seed).integers(len(names), size=(ROUNDS, len(names)))
        self.weights = np.zeros((ROUNDS, len(names)))
        np.add.at(self.weights, (np.arange(ROUNDS)[:, None], drawn), 1)
        self.number = number


def _figures(
    asked: Sequence[Question], found: Sequence[Found], draws: _Draws
) -> tuple[dict[str, Any], Floats]:
    """Return the figures, and the average mAP of each draw, NaN where nothing happens in it."""
    source = {q.video_id: number for q, number in zip(asked, draws.number.tolist(), strict=True)}
    truth = _by_label(true_segments(asked))
    pairs = list(zip(asked, found, strict=True))
    guesses = _by_label(Segment(q.video_id, *one) for q, its in pairs for one in its.segments)
    by_class: dict[str, Any] = {}
    sums, counts = np.zeros((2, len(draws.weights)))
    for label, its in truth.items():
        ranked = sorted(guesses.get(label, []), key=lambda segment: -segment.score)
        right = right_of(its, ranked, THRESHOLDS)
        by_class[label] = [average_precision(row, len(its)) for row in right]
        positives = draws.weights[:, [source[one.video_id] for one in its]].sum(axis=1)
        places = [source[one.video_id] for one in ranked]
        drawn = _drawn_precision(right, draws.weights, places, positives)
        sums += np.where(positives > 0, drawn, 0)
        counts += positives > 0
    table = np.array(list(by_class.values())).reshape(-1, len(THRESHOLDS))
    at = table.mean(axis=0) if len(table) else np.zeros(len(THRESHOLDS))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    scored = [(q.video_id, label, share) for q, its in pairs for label, share in its.labels]
    labels = [(q.video_id, one[2]) for q in asked for one in q.segments]
    videos = list(video_precision(labels, scored).values())
    figures = {
        "average_map": float(at.mean()),
        "interval": list(_interval(means)),
        "map": {
            f"{threshold:.2f}": float(one) for threshold, one in zip(THRESHOLDS, at, strict=True)
        },
        "video_map": float(np.mean(videos)) if videos else 0.0,
        "hit_at_1": hit_at(labels, scored, 1),
        "hit_at_3": hit_at(labels, scored, 3),
        "rows": _row_figures(np.array([its.rows for its in found]).sum(axis=0)),
        "segments": sum(len(its.segments) for its in found),
        "by_class": {
            label: {"segments": len(truth[label]), "ap": row[0], "average": float(np.mean(row))}
            for label, row in by_class.items()
        },
    }
    return figures, means


def _row_figures(counts: NDArray[Any]) -> dict[str, Any]:
    rows, right, nothing, said, both = counts.tolist()
    return {
        "judged": rows,
        "accuracy": right / max(rows, 1),
        "background_precision": both / max(said, 1),
        "background_recall": both / max(nothing, 1),
    }


def _drawn_precision(
    right: NDArray[np.bool_], weights: Floats, places: Sequence[int], positives: Floats
) -> Floats:
    """Return float64[rounds]: the average precision of each draw, the mean over bool[t, n], which
    are predictions in the order of their scores, of the sources `places`; a source stands float64[
    rounds, sources] times in a draw."""
    drawn = np.zeros(len(weights))
    at_once = max(_AT_ONCE // max(len(places), 1), 1)
    for start in range(0, len(weights), at_once):
        some = slice(start, start + at_once)
        its = weights[some][:, places]
        counts = np.maximum(np.cumsum(its, axis=1), 1)
        for row in right:
            if row.any():
                gained = its * row
                precision = np.cumsum(gained, axis=1) / counts
                best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
                drawn[some] += (gained * best).sum(axis=1)
    return drawn / np.maximum(positives, 1) / len(right)


def _by_label(segments: Iterable[Segment]) -> dict[str, list[Segment]]:
    groups: dict[str, list[Segment]] = collections.defaultdict(list)
    for segment in segments:
        groups[segment.label].append(segment)
    return dict(sorted(groups.items()))


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """Return a line for the model and each of its "baselines", as people read them."""
    shown = ("average mAP", "mAP@0.5", "0.75", "0.95", "video mAP", "hit@1", "hit@3", "rows")
    lines = [f"{'split ' + figures['split']:30}" + "".join(f"{name:>13}" for name in shown)]
    for name, one in {"this model": figures, **figures["baselines"]}.items():
        at = [one["map"][threshold] for threshold in ("0.50", "0.75", "0.95")]
        its = [one["average_map"], *at, one["video_map"], one["hit_at_1"], one["hit_at_3"]]
        cells = "".join(f"{cell:13.3f}" for cell in (*its, one["rows"]["accuracy"]))
        lines.append(f"{LABELS.get(name, name):30}{cells}")
    return lines
