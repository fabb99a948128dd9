"""Fine-tuning from two caches and labels to a weight file: the head alone, then the last layers.

Both go through the training loop of all models, with its checkpoints, so a run that was killed goes
on where it was. The head learns from cached features; the network from the pictures themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from framebank import __version__
from framebank.features.errors import JobError, UsageError
from framebank.features.network.backbones import find_backbone, named_layers
from framebank.features.network.weight_files import write_lineage
from framebank.features.network.weights import Weights
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import LABEL
from framebank.features.stores import disk, storage
from framebank.train.data.batches import Features, QuestionTable, cached_features
from framebank.train.data.joining import JoinedQuestions, join_cache, remarks
from framebank.train.data.shard_files import Staging, shard_files
from framebank.train.data.splits import SPLITS, Splits, splits_to_train
from framebank.train.finetune.networks import (
    Head,
    Tuned,
    first_trained,
    load_backbone,
    train_from,
)
from framebank.train.fit.callbacks import BestEpoch, Told
from framebank.train.fit.loop import FitData, FitResult, clip_sum, fit
from framebank.train.model.config import TrainConfig
from framebank.train.model.heads import Head as Classes
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

MOMENTUM = 0.9
_MOST_CLASSES = 100_000


@dataclasses.dataclass(frozen=True)
class Task:
    """What to fine-tune: `start` is the layer from which on to train (a name or a number), `layer`
    the one whose pooled output the head reads; `head` and `tune` say how each of the two learns."""

    labels: QuestionFiles
    backbone: str
    layer: str
    weights: Weights
    start: str
    head: TrainConfig
    tune: TrainConfig
    base_lineage: Mapping[str, Any] | None = None

    def making(self, features: Cache, joined: JoinedQuestions) -> dict[str, Any]:
        """Return what decides the result: an unfinished run goes on only under an equal one."""
        return {
            "features": features.fingerprint,
            "cache_digest": joined.cache_digest,
            "labels_sha256": list(joined.file_hashes),
            "start": self.start,
            "head": self.head.lasting(),
            "tune": self.tune.lasting(),
        }


@dataclasses.dataclass(frozen=True)
class _Material:
    """The classes, the labels of each split, and a cache's rows of the videos."""

    classes: Classes
    splits: Splits
    tables: dict[str, QuestionTable]

    def data(self, features: Features) -> FitData:
        return FitData(
            features, self.tables["train"], self.tables[self.splits.stopped_on], self.classes
        )

    def accuracy(self, result: FitResult) -> dict[str, float]:
        return {name: result.judge.predict(table).accuracy for name, table in self.tables.items()}


def finetune(
    task: Task, features: Cache, pixels: Cache, folder: Path, out: Path, run: Run
) -> dict[str, Any]:
    """Train, write the weights to `out`, and return the figures; checkpoints lie in `folder`.

    Raises FramebankError, TrainingStopped (all done so far is saved).
    """
    joined = join_cache(task.labels, features, max_unmatched_ratio=task.tune.max_unmatched_ratio)
    for remark in remarks(joined):
        run.say(remark)
    _check_making(folder, task.making(features, joined))
    material = _gather(task, joined, run)
    row = find_backbone(task.backbone)
    whole, model = load_backbone(row, task.layer, task.weights)
    number = first_trained(row, whole, task.start)
    with contextlib.ExitStack() as held:
        seen, pictures = (_rows(cache, joined, task.tune, held) for cache in (features, pixels))
        keras.utils.set_random_seed(task.head.seed)
        head = Head(len(material.classes.answers))
        # By loss: a head that knows its clips by heart leaves nothing to learn to what is before.
        result = fit(
            head.network(seen.width), material.data(seen), config=task.head,
            folder=folder / "head", stop=run.stop, label="head",
            callbacks=[Told("head", run.track.epoch)],
            best=BestEpoch(patience=task.head.patience, by_loss=True),
        )  # fmt: skip
        figures = {"head": material.accuracy(result)}
        run.say(f"the head alone: {_told(figures['head'])}")
        train_from(whole, number)
        result = fit(
            head.network(pictures.width, Tuned(model, row)), material.data(pictures),
            config=task.tune, folder=folder / "tune", stop=run.stop, label="tune",
            optimizer=functools.partial(_sgd, task.tune),
            best=BestEpoch(patience=task.tune.patience, slack=_slack(material)),
        )  # fmt: skip
        figures["fine_tuned"] = material.accuracy(result)
    run.say(f"fine-tuned from layer {number}: {_told(figures['fine_tuned'])}")
    judged = material.splits.judged_on
    if figures["fine_tuned"][judged] < figures["head"][judged]:
        run.say(f"WARNING: on {judged} the head alone is better: these weights are not worth it")
    lineage = _lineage(task, material, joined, features, named=list(named_layers(whole))[number])
    _save(whole, out, lineage)
    return {
        "split": judged,
        "accuracy": figures,
        "videos": {name: len(material.splits.of(name)) for name in SPLITS},
        "classes": list(material.classes.answers),
        "weights": str(out),
        "weights_sha256": disk.file_hash(out),
        "lineage": lineage,
        "remarks": list(material.splits.remarks),
    }


def _sgd(config: TrainConfig) -> keras.optimizers.Optimizer:
    return clip_sum(keras.optimizers.SGD(config.learning_rate, MOMENTUM), config.clip_norm)


def _slack(material: _Material) -> float:
    """Return by how much an epoch must lie below another to be surely worse (95 % at most): twice
    the standard error of a share of so few. So slow a descent goes on unless that is so."""
    return len(material.splits.of(material.splits.stopped_on)) ** -0.5


def _told(accuracy: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in accuracy.items())


def _check_making(folder: Path, making: dict[str, Any]) -> None:
    """Note what the run in `folder` is made from; raises UsageError where it is of another one."""
    path = folder / "making.json"
    text = json.dumps(making, indent=2, sort_keys=True) + "\n"
    if path.exists() and path.read_text("utf-8") != text:
        raise UsageError(
            f"{folder} holds an unfinished run that was made from something else",
            got="other clips, labels or options",
            todo="give the same ones, another --out, or --overwrite to throw it away",
        )
    storage.write_atomic(str(path), text.encode())


def _gather(task: Task, joined: JoinedQuestions, run: Run) -> _Material:
    config = task.tune
    splits = splits_to_train(joined.questions, config)
    for remark in splits.remarks:
        run.say(remark)
    classes = Classes.of(splits.train, size=_MOST_CLASSES)
    if classes.kind != LABEL or len(classes.answers) < 2:
        raise UsageError(
            "fine-tuning needs a class for each video",
            got=f"files of the kind {classes.kind}, with {len(classes.answers)} classes",
            expected="columns video_id, label (or a folder per class), of two classes at least",
        )
    tables = {
        name: QuestionTable.of(questions, classes, text=lambda asked: [[1]] * len(asked))
        for name in SPLITS
        if (questions := splits.of(name))
    }
    counts = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
    run.say(f"{len(classes.answers)} classes; videos: {counts}")
    return _Material(classes, splits, tables)


def _rows(
    cache: Cache, joined: JoinedQuestions, config: TrainConfig, held: contextlib.ExitStack
) -> Features:
    files = held.enter_context(contextlib.closing(shard_files(cache.path, Staging())))
    missing = sorted(set(joined.frames) - set(cache.video_ids))
    if missing:
        raise JobError(
            f"{cache.path} lacks videos that are labelled",
            got=f"{len(missing)}, such as {missing[0]}",
            todo="run `framebank inspect` on it; the clips must not change meanwhile",
        )
    return cached_features(
        cache, joined.frames, files=files, keep_bytes=config.memory_bytes,
        shuffle_bytes=config.shuffle_bytes,
    )  # fmt: skip


def _lineage(
    task: Task, material: _Material, joined: JoinedQuestions, features: Cache, *, named: str
) -> dict[str, Any]:
    """Return how the weights came to be, which is part of the spec of what is made with them."""
    base = {"lineage": dict(task.base_lineage)} if task.base_lineage else {}
    return {
        "weights": task.weights.name,
        "weights_sha256": task.weights.sha256,
        **base,
        "trained_from": named,
        "layer": task.layer,
        "classes": len(material.classes.answers),
        "labels_sha256": list(joined.file_hashes),
        "videos": len(material.tables["train"]),
        "sample": features.spec.sample,
        "framebank": __version__,
    }


def _save(whole: Any, out: Path, lineage: dict[str, Any]) -> None:
    """Write the weights whole or not at all; raises JobError."""
    try:
        with storage.replacing(out) as part:
            named = part.with_name(part.name + ".weights.h5")
            try:
                whole.save_weights(named)
                write_lineage(named, lineage)
                named.replace(part)
            finally:
                named.unlink(missing_ok=True)
    except OSError as err:
        raise storage.storage_error(str(out), err, "write") from err
