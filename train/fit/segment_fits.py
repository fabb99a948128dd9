"""The fits of a run that finds segments, and the rule that makes segments of rows.

The kinds go through the loop that all others do, on windows. What a fit is worth is then seen on
whole videos, by the chief alone: of the kinds that `auto` tries the best stays, and the rule (mean
over rows, threshold, joining, least length) is the one of the highest average mAP, both on the
validation split.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.asking.segmenting import WINDOW, SegmentRule, ask_rows, find_segments
from framebank.features.errors import UsageError
from framebank.features.questions.question import Question
from framebank.features.questions.splits import video_place
from framebank.train.fit.fits import Fits
from framebank.train.fit.training_data import Material
from framebank.train.judging import baselines
from framebank.train.judging.detections import (
    BASELINE,
    Found,
    average_map,
    commonest,
    judge_found,
    leading,
    true_segments,
)
from framebank.train.model.config import AUTO, SEGMENT_KINDS, ModelConfig
from framebank.train.model.network import average, export

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


class Trial(NamedTuple):
    """A fit as it would be saved: its kind, its network with the temperature, its rule."""

    model: ModelConfig
    exported: keras.Model
    rule: SegmentRule
    score: float
    history: list[dict[str, Any]]
    about: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SegmentFits:
    """All fits of one run."""

    fits: Fits

    def train_all(self) -> dict[str, Any]:
        """Train the model, save it, then the baseline; return their figures."""
        fits, material = self.fits, self.fits.material
        job, workers, folder = fits.job, fits.workers, fits.folder
        kinds = ("lstm", "bigru") if job.model.kind == AUTO else (job.model.kind,)
        if not set(kinds) <= set(SEGMENT_KINDS):
            raise UsageError(
                f"--model-kind {job.model.kind} finds no segments",
                expected=f"auto | {' | '.join(SEGMENT_KINDS[:2])}",
            )
        trials = [self._try(kind) for kind in kinds]
        best = max(trials, key=lambda trial: trial.score)
        if len(trials) > 1:
            on = material.splits.stopped_on
            fits.run.say(f"auto: {best.model.kind} finds most in the split {on} and is kept")
        if workers.is_chief:
            folder.save_model(best.exported)
            head = dataclasses.replace(material.head, rule=best.rule)
            folder.write_json("vocabulary.json", {**head.to_json(), "words": material.words})
        networks = {"model": best}
        if job.with_baselines and best.model.kind != BASELINE:
            networks[BASELINE] = self._try(BASELINE)
        asked = material.splits.of(material.splits.judged_on)
        judged = workers.do_on_chief(lambda: self._judge(asked, networks))
        history = [row for trial in networks.values() for row in trial.history]
        if workers.is_chief:
            folder.write_text("history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        tried = [
            {"kind": trial.model.kind, "average_map": trial.score, "rule": trial.rule.to_json()}
            for trial in trials
        ]
        return {
            "split": material.splits.judged_on,
            "questions": len(asked),
            **judged,
            "kind": best.model.kind,
            **({"tried": tried} if len(trials) > 1 else {}),
            "rule": best.rule.to_json(),
            **best.about,
        }

    def _try(self, kind: str) -> Trial:
        """Fit a kind, as often as there are seeds, and choose its rule."""
        fits, material = self.fits, self.fits.material
        model = dataclasses.replace(fits.job.model, kind=kind)
        seeds = 1 if kind == BASELINE else fits.job.train.seeds
        warm = None if kind == BASELINE else fits.job.warm_start
        made = [fits.fit(model, number, warm_start=warm) for number in range(seeds)]
        network = average([one.network for one in made])
        judge = made[0].result.judge if len(made) == 1 else fits.judge_of(network)
        temperature, calibration = fits.calibrate(judge, None)
        exported = export(network, None, temperature=temperature)
        val = material.splits.of(material.splits.stopped_on)

        def choose() -> list[Any]:
            rule, score = choose_rule(list(self._see(exported, sample(val))), material)
            return [rule.to_json(), score]

        fields, score = fits.workers.do_on_chief(choose)
        rule = SegmentRule.from_json(fields)
        fits.run.say(
            f"{kind}: average mAP {score:.3f} on the split {material.splits.stopped_on}, with a "
            f"mean over {rule.filter_rows} rows, a threshold of {rule.threshold:g}, gaps of "
            f"{rule.join_s:g} s joined, {rule.least_s:g} s at least"
        )
        result = made[0].result
        about = {
            **({"calibration": calibration} if calibration else {}),
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "steps": result.steps,
        }
        return Trial(model, exported, rule, score, list(result.history), about)

    def _see(self, network: keras.Model, asked: Sequence[Question]) -> Iterator[Seen]:
        videos = self.fits.material.videos
        assert videos is not None
        call = row_caller(network)
        numbers = [videos.features.numbers[question.video_id] for question in asked]
        for place in np.argsort(numbers, kind="stable").tolist():
            self.fits.run.stop.check()
            clip = videos.features.clips.read(numbers[place])
            edges_s = videos.times[asked[place].video_id].edges_s
            yield Seen(asked[place], ask_rows(call, clip, WINDOW), edges_s)

    def _judge(self, asked: Sequence[Question], networks: Mapping[str, Trial]) -> dict[str, Any]:
        """Return the figures of the judged split, and keep what was found in it."""
        material, seed = self.fits.material, self.fits.job.train.seed
        head, videos = material.head, material.videos
        assert videos is not None
        said: dict[str, list[Found]] = {}
        for name, trial in networks.items():
            its: dict[str, Found] = {}
            for seen in self._see(trial.exported, asked):
                classes = videos.times[seen.question.video_id].classes(seen.question, head)
                its[seen.question.video_id] = Found.of(
                    seen.shares, seen.edges_s, head.answers, trial.rule, classes
                )
            said[name] = [its[question.video_id] for question in asked]
        times = [videos.times[question.video_id] for question in asked]
        lengths_s = [float(one.edges_s[-1]) for one in times]
        said["majority"] = commonest(material.splits.train, lengths_s, said["model"])
        figures = judge_found(asked, said, seed=seed)
        led_by = leading(figures)
        for name, (lead, low, high) in led_by.items():
            self.fits.run.say(
                f"WARNING: the baseline {name} finds more than this model, by {lead:.3f} "
                f"({low:.3f} to {high:.3f}) of average mAP: the model is not worth its training"
            )
        rows = {name: [one.to_json() for one in found] for name, found in said.items()}
        text = baselines.judged_text(asked, rows)
        self.fits.folder.write_text(baselines.JUDGED_FILE, text)
        return {
            **figures.pop("model"),
            "baselines": figures,
            "led_by": led_by,
        }


def row_caller(network: keras.Model) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return what asks `network` about windows float32[b, w, d], in one graph for all shapes."""
    width = network.input["features"].shape[-1]
    graph = tf.function(
        lambda windows: network({"features": windows}, training=False),
        input_signature=[tf.TensorSpec((None, None, width), tf.float32)],
    )
    return lambda windows: graph(windows).numpy()


def sample(questions: Sequence[Question]) -> list[Question]:
    """Return the videos that choose the rule, a part of many."""
    order = sorted(questions, key=lambda q: (video_place(q.video_id, seed=0), q.video_id))
    return order[:_MOST_VIDEOS]


def choose_rule(seen: Sequence[Seen], material: Material) -> tuple[SegmentRule, float]:
    """Return the rule of the highest average mAP on the videos `seen`, and that; of equals the
    first. Filter and threshold are chosen before joining and the least length."""
    labels = material.head.answers
    truth = true_segments(one.question for one in seen)
    kept = [_sparse(one, labels) for one in seen]
    train = [end - start for q in material.splits.train for start, end, _ in q.segments]
    shortest_s = float(np.percentile(train, 5)) if train else 0.0
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
