"""The fits of a run that finds segments.

The kinds go through the loop that all others do, on windows. What a fit is worth is then seen on
whole videos, by the chief alone: of the kinds that `auto` tries the best stays, and the rule (mean
over rows, threshold, joining, least length) is the one of the highest average mAP, both on the
validation split.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.asking.segmenting import WINDOW, SegmentRule, ask_rows
from framebank.features.errors import UsageError
from framebank.features.questions.question import Question
from framebank.train.data.windows import Timeline
from framebank.train.fit.fits import Fits
from framebank.train.judging import baselines
from framebank.train.judging.detections import (
    BASELINE,
    Found,
    commonest,
    judge_found,
    leading,
)
from framebank.train.judging.row_probe import find_by_formula
from framebank.train.judging.segment_rule import Seen, choose_rule, sample
from framebank.train.model.config import AUTO, SEGMENT_KINDS, ModelConfig
from framebank.train.model.network import average, export


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
            rule, score = choose_rule(
                list(self._see(exported, sample(val))), material.splits.train, material.head.answers
            )
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

    def _probes(self, asked: Sequence[Question]) -> dict[str, list[Found]]:
        material, splits = self.fits.material, self.fits.material.splits
        videos = material.videos
        assert videos is not None

        def read(video_id: str) -> tuple[NDArray[Any], Timeline]:
            self.fits.run.stop.check()
            number = videos.features.numbers[video_id]
            return videos.features.clips.read(number), videos.times[video_id]

        val = splits.of(splits.stopped_on)
        seed = self.fits.job.train.seed
        return find_by_formula(read, splits.train, val, asked, material.head, seed=seed)

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
        if self.fits.job.with_baselines:
            said |= self._probes(asked)
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
