"""Whether a new model is promoted: it and the one in use are asked the same held questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.heads import COUNT
from framebank.features.asking.trained_model import (
    NotFiniteError,
    check_weights,
    load_model,
    read_head,
)
from framebank.features.questions.question import SEGMENTS, Question
from framebank.features.stop_signals import StopRequest
from framebank.features.stores import json_text, storage
from framebank.train.data.splits import splits_to_train
from framebank.train.evaluation.answers import ask_all
from framebank.train.evaluation.detecting import find_all
from framebank.train.judging.baselines import answer_gains
from framebank.train.judging.bootstrap import Comparison, paired_bootstrap
from framebank.train.judging.detections import (
    Found,
    compare_found,
    judge_found,
    leading,
    true_segments,
)
from framebank.train.judging.row_probe import cached_rows, find_by_formula
from framebank.train.model.config import PROBE
from framebank.train.retrain.config import PromoteConfig, RetrainConfig
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether the new model is `better`, the reason in words, and the figures behind it."""

    better: bool
    reason: str
    figures: dict[str, Any]


def judge(
    config: RetrainConfig,
    candidate: str,
    in_use: str | None,
    cache: Cache,
    judged: list[Question],
    *,
    learnt: list[Question],
    floor: str,
    stop: StopRequest,
) -> Decision:
    """Ask both models the held questions `judged`, and decide; raises TrainingStopped.

    `floor` is the folder of the probe that was fitted to `learnt` too, for segments none: there a
    closed formula is fitted here. A candidate that is worse than that with 95 % confidence, or than
    a baseline of its own report, is not promoted.
    """
    if judged and judged[0].head == SEGMENTS:
        return _judge_segments(config, candidate, in_use, cache, judged, learnt, stop)
    try:
        new = _gains(candidate, cache, judged, stop)
    except NotFiniteError as err:
        return Decision(False, f"not to be used: {err.what}", {})
    counts = read_head(candidate).kind == COUNT
    if behind := _behind(candidate, new, floor, cache, judged, config.promote.seed, stop):
        return Decision(False, behind, {})
    if in_use is None:
        return _unrivalled(new, "no model was in use", counts=counts)
    try:
        check_weights(in_use)
        if len(judged) < config.held.least:
            reason = (
                f"{len(judged)} held questions that neither model has seen are too few to compare "
                f"them: {config.held.least} are needed"
            )
            return Decision(False, reason, {})
        old = _gains(in_use, cache, judged, stop)
    except NotFiniteError as err:
        return _unrivalled(new, f"the model in use answers nothing: {err.what}", counts=counts)
    groups = [question.source for question in judged]
    return decide(new, old, groups, config.promote, counts=counts)


def _judge_segments(
    config: RetrainConfig,
    candidate: str,
    in_use: str | None,
    cache: Cache,
    judged: list[Question],
    learnt: list[Question],
    stop: StopRequest,
) -> Decision:
    """Decide by the average mAP on the held videos."""
    run, name, seed = Run(stop), "average_map", config.promote.seed
    try:
        new, _ = find_all(load_model(candidate), cache, judged, run)
    except NotFiniteError as err:
        return Decision(False, f"not to be used: {err.what}", {})
    if leads := list(
        json_text.read_object(storage.join(candidate, "metrics.json")).get("led_by") or ()
    ):
        return Decision(
            False, f"by its own report it finds less than {leads[0]}, with 95 % confidence", {}
        )
    floor = _find_by_probe(config, candidate, cache, judged, learnt, stop)
    beside = judge_found(judged, {"model": new, PROBE: floor}, seed=seed)
    if behind := leading(beside).get(PROBE):
        reason = (
            "it finds less than the probe, a closed formula, with 95 % confidence: "
            "{:.3f} ({:.3f} to {:.3f}) of average mAP".format(*behind)
        )
        return Decision(False, f"{reason} on {len(judged)} held videos", {})
    figures = beside["model"]
    if in_use is None:
        return Decision(True, "no model was in use", {name: figures[name]})
    if len(judged) < config.held.least or not true_segments(judged):
        reason = (
            f"{len(judged)} held videos that neither model has seen are too few to compare them, "
            f"or nothing happens in them: {config.held.least} are needed"
        )
        return Decision(False, reason, {})
    try:
        old, _ = find_all(load_model(in_use), cache, judged, run)
    except NotFiniteError as err:
        reason = f"the model in use answers nothing: {err.what}"
        return Decision(True, reason, {name: figures[name]})
    ours, theirs, found = compare_found(judged, new, old, seed=seed)
    text = (
        f"average mAP {ours:.3f} against {theirs:.3f} on {len(judged)} held videos: "
        f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}), better in "
        f"{found.probability_better:.1%} of the bootstrap rounds"
    )
    told = {name: ours, f"{name}_in_use": theirs}
    return _decision(found, text, told, config.promote, form=".3f")


def _find_by_probe(
    config: RetrainConfig,
    candidate: str,
    cache: Cache,
    judged: list[Question],
    learnt: list[Question],
    stop: StopRequest,
) -> list[Found]:
    """Return what a closed formula, of what the candidate learnt, finds in the held videos."""
    read, splits = cached_rows(cache, stop), splits_to_train(learnt, config.train)
    val, head, seed = splits.of(splits.stopped_on), read_head(candidate), config.train.seed
    found = find_by_formula(read, splits.train, val, judged, head, seed=seed, kinds=(PROBE,))
    return found[PROBE]


def _behind(
    candidate: str,
    new: NDArray[np.float64],
    floor: str,
    cache: Cache,
    judged: list[Question],
    seed: int,
    stop: StopRequest,
) -> str:
    """Return why the candidate is not worth its training, "" where it is."""
    report = json_text.read_object(storage.join(candidate, "metrics.json"))
    if leads := list(report.get("led_by") or ()):
        return f"by its own report it is worse than {', '.join(leads)}, with 95 % confidence"
    if not judged or floor == candidate:
        return ""
    least = _gains(floor, cache, judged, stop)
    groups = [question.source for question in judged]
    found = paired_bootstrap(new, least, groups, seed=seed)
    if found.high >= 0:
        return ""
    return (
        f"it is worse than the probe, a closed formula, with 95 % confidence: "
        f"{-found.difference:.3f} ({-found.high:.3f} to {-found.low:.3f}) on {len(judged)} held "
        "questions"
    )


def _gains(
    model_dir: str, cache: Cache, judged: Sequence[Question], stop: StopRequest
) -> NDArray[np.float64]:
    answers = ask_all(load_model(model_dir), cache, judged, run=Run(stop))
    return answer_gains(judged, answers.chosen())


def _unrivalled(new: NDArray[np.float64], reason: str, *, counts: bool) -> Decision:
    """Return that the new model, whose gains are `new`, is taken since there is no other."""
    if not len(new):
        return Decision(True, f"{reason}, and there was no held question", {})
    name = "mean_square_error" if counts else "accuracy"
    # A gain in counts is an error below zero.
    return Decision(True, reason, {name: float(abs(new.mean()))})


def decide(
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    groups: Sequence[str],
    config: PromoteConfig,
    *,
    counts: bool = False,
) -> Decision:
    """Compare the `gains` of two models by a bootstrap over `groups`, the videos of the questions.

    Of `counts` the mean square error is compared, and the margin is one of it.
    """
    found = paired_bootstrap(new, old, groups, seed=config.seed, rounds=config.rounds)
    name, form = ("mean_square_error", ".3f") if counts else ("accuracy", ".1%")
    sign = -1 if counts else 1
    ours, others = sign * float(new.mean()), sign * float(old.mean())
    figures = {name: ours, f"{name}_in_use": others}
    text = (
        f"{ours:{form}} against {others:{form}} on {len(new)} questions "
        f"about {len(set(groups))} held videos: {found.difference:+{form}} "
        f"({found.low:+{form}} to {found.high:+{form}}), "
        f"better in {found.probability_better:.1%} of the bootstrap rounds"
    )
    if counts:
        text = f"mean square error {text} (a gain is an error that is lower)"
    return _decision(found, text, figures, config, form=form)


def _decision(
    found: Comparison, text: str, figures: dict[str, Any], config: PromoteConfig, *, form: str
) -> Decision:
    """Return whether a gain is large and certain enough; `text` tells it."""
    figures = figures | found.to_json()
    if found.difference < config.margin:
        return Decision(False, f"{text}; a gain of {config.margin:{form}} is needed", figures)
    if found.probability_better < config.confidence:
        return Decision(False, f"{text}; {config.confidence:.1%} of them are needed", figures)
    return Decision(True, text, figures)
