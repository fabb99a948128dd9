"""One retraining: look for news, train, judge against the model in use, promote or keep aside.

The model in use changes by one compare-and-swap at the very end. Whatever a killed run leaves,
half-written versions, work folders, a verdict that nobody acted on, the next run puts in order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from features import storage
from features.cache import Cache, open_cache, open_spec
from features.errors import JobError, UsageError
from features.questions import Question
from features.temporary import live_folder
from train.held_judging import Decision, decide, right_answers
from train.held_split import (
    SEEN,
    part_questions,
    question_lines,
    read_seen,
    seen_bytes,
    seen_videos,
)
from train.joining import join_cache, remarks
from train.news import BASIS, Basis, look, videos_digest
from train.publishing import publish, remove_leftovers, write_json
from train.registry import Current, Registry, new_version
from train.retrain_config import RetrainConfig
from train.stopping import StopRequest

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a retraining ended: `event` is "nothing new", "promoted" or "kept aside"."""

    event: str
    version: str | None
    reason: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def retrain(config: RetrainConfig, *, stop: StopRequest, say: Say) -> Result:
    """Retrain if there is anything new; raises FramebankError, TrainingStopped."""
    registry = Registry(config.registry)
    _put_in_order(registry, say)
    current = registry.current()
    fingerprint = open_spec(config.cache).fingerprint
    bases = {
        version: Basis.from_json(registry.read_json(version, BASIS))
        for version in registry.versions()
    }
    _check_features(registry, current, bases, fingerprint)
    basis = look(config, fingerprint=fingerprint)
    for version, other in bases.items():
        if basis.looks_like(other):
            return _nothing_new(current, version)
    cache = open_cache(config.cache)
    joined = join_cache(
        config.questions,
        cache,
        max_unmatched_ratio=config.train.max_unmatched_ratio,
        set_name=config.format,
        mapping=config.mapping,
    )
    basis = dataclasses.replace(basis, videos=videos_digest(cache, joined.frames))
    for version, other in bases.items():
        if basis.is_made_of(other):
            return _nothing_new(current, version)
    for remark in remarks(joined):
        say(remark)
    say("new: " + ", ".join(basis.news(bases.get(current.version or ""))))
    with _work_folder(config) as work:
        return _train_and_judge(
            config, registry, current, basis, cache, joined.questions, work, stop=stop, say=say
        )


def _put_in_order(registry: Registry, say: Say) -> None:
    for version in registry.finish_interrupted():
        say(f"finished what a run that was ended had left to do with {version}")
    for version in remove_leftovers(registry):
        say(f"removed {version}, which a run that was ended had half written")


def _check_features(
    registry: Registry, current: Current, bases: dict[str, Basis], fingerprint: str
) -> None:
    if current.version is None or current.version not in bases:
        return
    made = bases[current.version].fingerprint
    if made != fingerprint:
        raise UsageError(
            "the features of the cache are made in another way than those of the model in use",
            got=f"fingerprint {fingerprint}",
            expected=f"{made}, as version {current.version} of {registry.path} was trained on",
            todo="give another registry: the two cannot be compared on the same features",
        )


def _nothing_new(current: Current, version: str) -> Result:
    state = "in use" if current.version == version else "not in use"
    return Result("nothing new", current.version, f"{version}, {state}, was made from just this")


@contextlib.contextmanager
def _work_folder(config: RetrainConfig) -> Iterator[Path]:
    """Give a folder to train in: `work`, held against other runs, or a temporary one."""
    if config.work is None:
        with live_folder("framebank-retrain-") as temporary:
            yield Path(temporary.path)
        return
    folder = Path(storage.local_path(config.work))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as err:
        raise storage.storage_error(str(folder), err, "write") from err
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            todo = "wait for it, or give each its own key work"
            raise JobError(f"another retraining is at work in {folder}", todo=todo) from err
        yield folder


def _train_and_judge(
    config: RetrainConfig,
    registry: Registry,
    current: Current,
    basis: Basis,
    cache: Cache,
    questions: list[Question],
    work: Path,
    *,
    stop: StopRequest,
    say: Say,
) -> Result:
    learnt, held = part_questions(questions, share=config.held.share)
    if not learnt:
        raise UsageError("there is nothing to train on", got="all videos are held")
    in_use = None if current.version is None else registry.folder(current.version)
    warm = in_use if config.start == "warm" else None
    candidate = _train(config, cache, learnt, basis, work, warm=warm, stop=stop, say=say)
    seen = seen_videos(learnt) | (read_seen(warm) if warm else set())
    excluded = seen | (read_seen(in_use) if in_use else set())
    judged = [question for question in held if question.video_id not in excluded]
    figures = {
        "held_questions": len(judged),
        "held_videos": len({q.video_id for q in judged}),
        "excluded_videos": len({q.video_id for q in held} & excluded),
    }
    if figures["excluded_videos"]:
        say(f"{figures['excluded_videos']} held videos are left out: a model has seen them")
    decision = _judge(config, str(candidate), in_use, cache, judged, stop=stop)
    version = new_version()
    verdict = {
        "better": decision.better,
        "reason": decision.reason,
        "against": current.version,
        "against_number": current.number,
        "figures": decision.figures | figures,
    }
    storage.write_atomic(str(candidate / SEEN), seen_bytes(seen))
    write_json(str(candidate / BASIS), basis.to_json())
    publish(registry, version, candidate, verdict)
    outcome = registry.settle(version)
    shutil.rmtree(candidate, ignore_errors=True)
    event = "promoted" if outcome.promoted else "kept aside"
    return Result(event, version, outcome.reason, decision.figures | figures)


def _train(
    config: RetrainConfig,
    cache: Cache,
    learnt: list[Question],
    basis: Basis,
    work: Path,
    *,
    warm: str | None,
    stop: StopRequest,
    say: Say,
) -> Path:
    """Train in `work`, from where a killed run of the same making was; return the model's folder.

    The held questions are in no file that the trainer reads.
    """
    from features.quiet import import_tensorflow

    import_tensorflow()
    stop.listen()
    from train.model_folder import ModelFolder
    from train.training import TrainJob, train_model

    making = json.dumps([basis.to_json(), warm])
    made_before = work / "making.json"
    resumes = made_before.exists() and made_before.read_text() == making
    questions = str(work / "questions.jsonl")
    storage.write_atomic(questions, question_lines(learnt))
    folder = ModelFolder(str(work / "candidate"))
    if not resumes:
        shutil.rmtree(folder.path, ignore_errors=True)
        storage.write_atomic(str(made_before), making.encode())
    job = TrainJob(
        questions=(questions,),
        set_name="plain",
        model=config.model,
        train=config.train,
        with_baselines=config.baselines,
        warm_start=warm,
    )
    train_model(job, cache, folder, stop=stop, say=say)
    return folder.path


def _judge(
    config: RetrainConfig,
    candidate: str,
    in_use: str | None,
    cache: Cache,
    judged: list[Question],
    *,
    stop: StopRequest,
) -> Decision:
    from features.trained_model import load_model

    new = right_answers(load_model(candidate), cache, judged, stop=stop)
    if in_use is None:
        figures = {"accuracy": float(new.mean())} if judged else {}
        return Decision(True, "no model was in use", figures)
    if len(judged) < config.held.least:
        reason = (
            f"{len(judged)} held questions that neither model has seen are too few to compare "
            f"them: {config.held.least} are asked for"
        )
        return Decision(False, reason, {})
    old = right_answers(load_model(in_use), cache, judged, stop=stop)
    return decide(new, old, [question.video_id for question in judged], config.promote)
