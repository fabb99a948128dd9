"""One evaluation: a trained model, beside what must be beaten, on the questions of a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import UsageError
from features.questions import Question
from features.trained_model import load_model, read_lineage
from train import baselines, evaluation
from train.config import ModelConfig, TrainConfig
from train.evaluation_answers import Answers, ask_all
from train.evaluation_leaks import find_leaks
from train.joining import JoinedQuestions, join_cache, remarks
from train.model_folder import ModelFolder
from train.splits import SPLITS, Splits, assign_splits
from train.stopping import StopRequest

if TYPE_CHECKING:
    from features.cache import Cache


@dataclasses.dataclass(frozen=True)
class EvaluateJob:
    """What to judge; `split` None is the test split, or the one that stands in for it."""

    model: str
    questions: tuple[str, ...]
    out: Path
    split: str | None = None
    set_name: str | None = None
    mapping: str | None = None
    with_baselines: bool = True
    max_unmatched_ratio: float = 0.2


@dataclasses.dataclass(frozen=True)
class Judged:
    """`figures` are what evaluation.json holds; `answers` belong to `questions`, in order."""

    figures: dict[str, Any]
    questions: Sequence[Question]
    answers: Answers


def evaluate(
    job: EvaluateJob, cache: Cache, *, stop: StopRequest, say: Callable[[str], None]
) -> Judged:
    """Judge the model; raises FramebankError, TrainingStopped (trained baselines go on later)."""
    if read_lineage(job.model).spec.fingerprint != cache.fingerprint:
        raise UsageError(
            "the model learnt from features of another making than those of the cache",
            got=cache.fingerprint,
            expected=read_lineage(job.model).spec.fingerprint,
            todo="give the cache that the model was trained on, or one with its spec",
        )
    folder = ModelFolder(job.model)
    making = folder.read_json("lineage.json").get("making") or {}
    config = making.get("config") or {}
    train = TrainConfig(**_known(TrainConfig, config.get("train") or {}))
    joined = join_cache(
        job.questions,
        cache,
        max_unmatched_ratio=job.max_unmatched_ratio,
        set_name=job.set_name,
        mapping=job.mapping,
    )
    notes = remarks(joined)
    splits, name = _splits(joined, job, train.seed)
    asked = splits.of(name)
    notes += splits.remarks
    for note in notes:
        say(note)
    say(f"asking {len(asked)} questions of the split {name}")
    answers = ask_all(load_model(job.model), cache, asked, seed=train.seed)
    durations_s = _durations(cache)
    figures = evaluation.judge(asked, answers, durations_s=durations_s, seed=train.seed)
    beside: dict[str, Any] = {}
    if splits.train:
        beside = evaluation.count_baselines(splits.train, asked, seed=train.seed)
    if splits.train and job.with_baselines:
        model = ModelConfig(**_known(ModelConfig, config.get("model") or {}))
        same = _stored(folder, making, joined, name)
        for kind in baselines.TRAINED:
            beside[kind] = same.get(kind) or _trained(
                job, dataclasses.replace(model, kind=kind), train, cache, asked, stop=stop, say=say
            )
    say("looking for videos on both sides of the split")
    sides = {q.video_id: split for split in SPLITS for q in splits.of(split)}
    whole = {
        "model": job.model,
        "split": name,
        "questions_files": list(job.questions),
        "questions_sha256": list(joined.file_hashes),
        "videos": len({question.video_id for question in asked}),
        "random_weights": cache.spec.random_weights,
        "weights": str(cache.spec.weights),
        "notes": notes,
        **figures,
        "baselines": beside,
        "leaks": find_leaks(cache, sides),
    }
    return Judged(whole, asked, answers)


def _known(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in fields.items() if name in names}


def _splits(joined: JoinedQuestions, job: EvaluateJob, seed: int) -> tuple[Splits, str]:
    """Return the splits as training makes them, and the one to judge on."""
    questions = joined.questions
    if all(question.split not in (None, "train") for question in questions):
        parts = {name: [q for q in questions if q.split == name] for name in SPLITS}
        note = "the files hold no training questions: nothing stands beside the model"
        splits = Splits(parts["train"], parts["val"], parts["test"], (note,))
    else:
        splits = assign_splits(questions, seed=seed)
    name = job.split or splits.judged_on
    if not splits.of(name):
        counts = ", ".join(f"{len(splits.of(name))} of {name}" for name in SPLITS)
        raise UsageError(f"there is no question of the split {name}", got=counts)
    return splits, name


def _stored(
    folder: ModelFolder, making: Mapping[str, Any], joined: JoinedQuestions, split: str
) -> dict[str, Any]:
    """Return the trained baselines of metrics.json, if they were judged on just these questions."""
    same = (
        making.get("questions_sha256") == list(joined.file_hashes)
        and making.get("cache_digest") == joined.cache_digest
    )
    metrics = folder.read_json("metrics.json") if same else {}
    return dict(metrics.get("baselines") or {}) if metrics.get("split") == split else {}


def _trained(
    job: EvaluateJob,
    model: ModelConfig,
    train: TrainConfig,
    cache: Cache,
    asked: Sequence[Question],
    *,
    stop: StopRequest,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train a baseline under the model's own budget, in a folder of its own, and judge it."""
    from train.training import TrainJob, train_model

    path = job.out / "baselines" / model.kind
    say(f"training {model.kind} under the model's budget in {path}")
    work = TrainJob(
        questions=job.questions,
        model=model,
        train=dataclasses.replace(train, max_unmatched_ratio=job.max_unmatched_ratio),
        with_baselines=False,
        set_name=job.set_name,
        mapping=job.mapping,
    )
    train_model(work, cache, ModelFolder(str(path)), stop=stop, say=say)
    answers = ask_all(load_model(str(path)), cache, asked, seed=train.seed)
    groups = [question.video_id for question in asked]
    return evaluation.share(answers.rank == 0, groups, seed=train.seed)


def _durations(cache: Cache) -> dict[str, float]:
    table = cache.table(columns=["video_id", "source_duration_s"]).to_pydict()
    pairs = zip(table["video_id"], table["source_duration_s"], strict=True)
    return {video_id: duration_s or 0.0 for video_id, duration_s in pairs}
