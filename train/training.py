"""One training run from cache and question files to a model folder.

The model and its trained baselines go through the same loop one after another, each with
checkpoints of its own, so a run that is killed anywhere goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from features.catalog import catalog_text
from features.errors import JobError
from train import baselines, lineage
from train.config import ModelConfig, TrainConfig
from train.inputs import Features, HeldFeatures, QuestionTable, StreamedFeatures
from train.joining import JoinedQuestions, join_cache, remarks
from train.judging import Score
from train.loop import FitData, FitResult, Judge, fit
from train.model import build_network, export, text_layer, word_numbers
from train.model_folder import ModelFolder
from train.splits import SPLITS, Splits, assign_splits
from train.standardise import FrameStatistics, frame_statistics
from train.stopping import StopRequest
from train.vocabulary import OUTSIDE, AnswerVocabulary

if TYPE_CHECKING:
    from features.cache import Cache


@dataclasses.dataclass(frozen=True)
class TrainJob:
    """What to train from, and how."""

    questions: tuple[str, ...]
    model: ModelConfig
    train: TrainConfig
    with_baselines: bool = True
    tensorboard: str | None = None

    def config(self) -> dict[str, Any]:
        """Return the part of the config that the result depends on."""
        return {
            "model": dataclasses.asdict(self.model),
            "train": self.train.lasting(),
            "with_baselines": self.with_baselines,
        }


@dataclasses.dataclass(frozen=True)
class _Material:
    """All that the fits share."""

    splits: Splits
    vocabulary: AnswerVocabulary
    text: keras.layers.TextVectorization
    statistics: FrameStatistics
    features: Features
    tables: dict[str, QuestionTable]
    learnt: QuestionTable  # the training rows whose answer is in the vocabulary


def train_model(
    job: TrainJob,
    cache: Cache,
    folder: ModelFolder,
    *,
    stop: StopRequest,
    say: Callable[[str], None],
    overwrite: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Train, judge and save; return what metrics.json holds.

    An unfinished run goes on; a finished one of the same making is only reported. Raises
    FramebankError, and TrainingStopped (all done so far is saved).
    """
    config = job.train
    joined = join_cache(job.questions, cache, max_unmatched_ratio=config.max_unmatched_ratio)
    for remark in remarks(joined):
        say(remark)
    making = lineage.run_making(cache, joined, job.config())
    with folder.locked():
        if folder.claim(making, overwrite=overwrite):
            say(f"{folder.path} is finished already and made from just this; nothing to do")
            return folder.read_json("metrics.json")
        # Without this, sums over threads differ in their last bits from run to run.
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(config.seed)
        material = _gather(job, cache, joined, stop=stop, say=say)
        with warnings.catch_warnings():
            if len(material.vocabulary) == 1:  # said in _gather; Keras wonders at it in each graph
                warnings.simplefilter("ignore")
            metrics = _train_all(job, material, folder, stop=stop, say=say, strategy=strategy)
        metrics |= _accounting(cache, joined, material)
        folder.write_json("metrics.json", metrics)
        counts = {name: len(material.splits.of(name)) for name in SPLITS}
        made = lineage.make_lineage(cache, making, questions=counts, files=list(job.questions))
        folder.finish(made)
    return metrics


def _gather(
    job: TrainJob,
    cache: Cache,
    joined: JoinedQuestions,
    *,
    stop: StopRequest,
    say: Callable[[str], None],
) -> _Material:
    splits = assign_splits(joined.questions, seed=job.train.seed)
    for remark in splits.remarks:
        say(remark)
    vocabulary = AnswerVocabulary.of(splits.train, size=job.model.answers)
    if len(vocabulary) == 1:
        say(
            f"NOTE: all training questions have one answer, {vocabulary.answers[0]!r}: "
            "the model can say nothing else"
        )
    text = text_layer([q.question for q in splits.train], max_words=job.model.words)
    features, statistics = _load_features(job.train, cache, joined, splits, stop=stop)
    parts = {name: splits.of(name) for name in SPLITS}
    known = [q for q in splits.train if vocabulary.number(q.answer) != OUTSIDE]
    tables = {
        name: QuestionTable.of(questions, vocabulary, text=lambda asked: word_numbers(text, asked))
        for name, questions in (parts | {"learnt": known}).items()
        if questions
    }
    learnt = tables.pop("learnt")
    say(
        f"{len(learnt)} questions to learn from, {len(parts['val'])} to choose the epoch by, "
        f"{len(parts['test'])} to judge; {len(vocabulary)} answers, {len(joined.frames)} videos"
    )
    return _Material(splits, vocabulary, text, statistics, features, tables, learnt)


def _load_features(
    config: TrainConfig,
    cache: Cache,
    joined: JoinedQuestions,
    splits: Splits,
    *,
    stop: StopRequest,
) -> tuple[Features, FrameStatistics]:
    width = cache.feature_dim or 0
    in_train = {q.video_id for q in splits.train}
    frames = sum(joined.frames.values())
    size_bytes = frames * width * (2 if cache.spec.dtype == "float16" else 4)
    if size_bytes > config.memory_bytes:
        clips = (clip for video_id, clip in _clips(cache, joined, stop) if video_id in in_train)
        statistics = frame_statistics(clips, width)
        mean_frames = frames / max(len(joined.frames), 1)
        return StreamedFeatures(cache, width=width, frames=mean_frames), statistics
    held = dict(_clips(cache, joined, stop))
    missing = sorted(set(joined.frames) - set(held))
    if missing:
        raise JobError("the cache changed while it was read", got=f"no record of {missing[:5]}")
    statistics = frame_statistics((held[video_id] for video_id in sorted(in_train)), width)
    return HeldFeatures(held), statistics


def _clips(cache: Cache, joined: JoinedQuestions, stop: StopRequest) -> Iterable[tuple[str, Any]]:
    for record in cache:
        stop.check()
        video_id = catalog_text(record.video_id)
        if video_id in joined.frames:
            yield video_id, record.features


def _train_all(
    job: TrainJob,
    material: _Material,
    folder: ModelFolder,
    *,
    stop: StopRequest,
    say: Callable[[str], None],
    strategy: tf.distribute.Strategy | None,
) -> dict[str, Any]:
    """Train the model, save it, then the baselines; return their figures."""
    splits = material.splits
    asked = splits.of(splits.judged_on)
    network, result = _fit(job, job.model, material, folder, stop=stop, strategy=strategy)
    say(f"{job.model.kind}: best epoch {result.best_epoch} of {len(result.history)}")
    folder.save_model(export(network, material.text))
    words = [str(word) for word in material.text.get_vocabulary()]
    folder.write_json(
        "vocabulary.json", {"answers": list(material.vocabulary.answers), "words": words}
    )
    score = _judge(network, job, material)
    history, beside = (
        list(result.history),
        {
            "majority": Score.of(asked, baselines.majority(splits.train, asked)),
            "majority_per_question": Score.of(
                asked, baselines.majority_per_question(splits.train, asked)
            ),
        },
    )
    for kind in baselines.TRAINED if job.with_baselines else ():
        model = dataclasses.replace(job.model, kind=kind)
        other, fitted = _fit(job, model, material, folder, stop=stop, strategy=strategy)
        say(f"{kind}: best epoch {fitted.best_epoch} of {len(fitted.history)}")
        beside[kind] = _judge(other, job, material)
        history += fitted.history
    folder.write_text("history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
    return {
        "split": splits.judged_on,
        "questions": score.judged,
        "correct": score.correct,
        **score.to_json(),
        "baselines": {name: other.to_json() for name, other in beside.items()},
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "steps": result.steps,
    }


def _fit(
    job: TrainJob,
    model: ModelConfig,
    material: _Material,
    folder: ModelFolder,
    *,
    stop: StopRequest,
    strategy: tf.distribute.Strategy | None,
) -> tuple[keras.Model, FitResult]:
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(job.train.seed)  # each network starts alike, resumed or not
    with strategy.scope():
        network = build_network(
            model,
            material.statistics,
            words=material.text.vocabulary_size(),
            answers=len(material.vocabulary),
        )
    callbacks = []
    if job.tensorboard:
        board = f"{job.tensorboard}/{model.kind}"
        callbacks.append(keras.callbacks.TensorBoard(board, write_graph=False))
    data = FitData(material.features, material.learnt, material.tables[material.splits.stopped_on])
    result = fit(
        network,
        data,
        config=job.train,
        folder=folder.checkpoints / model.kind,
        stop=stop,
        label=model.kind,
        callbacks=callbacks,
        strategy=strategy,
    )
    return network, result


def _judge(network: keras.Model, job: TrainJob, material: _Material) -> Score:
    judge = Judge(network, material.features, batch_size=job.train.batch_size)
    table = material.tables[material.splits.judged_on]
    chosen = judge.predict(table).chosen
    answers = [material.vocabulary.answers[number] if number >= 0 else None for number in chosen]
    return Score.of(table.questions, answers)


def _accounting(cache: Cache, joined: JoinedQuestions, material: _Material) -> dict[str, Any]:
    """Return what was left out and what cannot be answered."""
    table = material.tables[material.splits.judged_on]
    return {
        "answers": len(material.vocabulary),
        "oov_answers": int(np.sum(table.answer == OUTSIDE)),
        "oov_train": len(material.splits.train) - len(material.learnt),
        "unmatched": joined.unmatched,
        "unmatched_videos": list(joined.unmatched_videos[:100]),
        "without_answer": joined.without_answer,
        "random_weights": cache.spec.random_weights,
        "remarks": list(material.splits.remarks),
    }
