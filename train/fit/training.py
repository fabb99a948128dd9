"""One training run from cache and question files to a model folder.

The model and its trained baselines go through the same loop one after another, each with
checkpoints of its own, so a run that is killed anywhere goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.asking.scores import figures, is_right
from framebank.features.asking.trained_model import check_weights
from framebank.features.errors import JobError
from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import NO_LIST, SEEN, Seen, content_hashes, find_seen
from framebank.features.stores import storage
from framebank.train.data.batches import QuestionTable
from framebank.train.data.joining import JoinedQuestions, join_cache, remarks
from framebank.train.data.shard_files import shard_files
from framebank.train.data.splits import SPLITS, seen_by
from framebank.train.fit.callbacks import AnswerSample
from framebank.train.fit.choosing import AUTO_CLIPS, choose_kind
from framebank.train.fit.closed_form import Moments, fit_closed_form
from framebank.train.fit.loop import FitData, FitResult, fit
from framebank.train.fit.model_folder import ModelFolder, make_lineage, run_making
from framebank.train.fit.training_data import Material, TrainJob, gather
from framebank.train.fit.warm_start import start_from
from framebank.train.judging import baselines
from framebank.train.judging.predicting import Judge
from framebank.train.model.config import AUTO, PROBE, PROBE_BLIND, TRAINED_KINDS, ModelConfig
from framebank.train.model.heads import COUNT
from framebank.train.model.moments import Scale
from framebank.train.model.network import average, build_network, export
from framebank.train.model.probe import probe_network
from framebank.train.workers.replicas import Workers
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_ROOM_QUESTIONS = 4096  # that a batch has room for, however few there are


def train_model(
    job: TrainJob,
    cache: Cache,
    folder: ModelFolder,
    run: Run,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train, judge and save; return what metrics.json holds.

    An unfinished run goes on; a finished one of the same making is only reported. Of several
    workers only the chief touches `folder`. Raises FramebankError, and TrainingStopped (all done
    so far is saved).
    """
    config, workers, say = job.train, run.workers or Workers(), run.say
    joined = job.questions
    if not isinstance(joined, JoinedQuestions):
        joined = join_cache(
            joined,
            cache,
            max_unmatched_ratio=config.max_unmatched_ratio,
            set_name=job.set_name,
            mapping=job.mapping,
        )
    for remark in remarks(joined):
        say(remark)
    making = run_making(cache, joined, job.config())
    with contextlib.ExitStack() as held:

        def claim() -> bool:
            held.enter_context(folder.locked())
            finished = folder.claim(making, overwrite=overwrite)
            if finished:  # by an older version maybe, which saved what had diverged
                check_weights(str(folder.path))
            return finished

        if workers.do_on_chief(claim):
            say(f"{folder.path} is finished already and made from just this; nothing to do")
            if workers.is_chief and not (folder.path / SEEN).exists():
                say(f"NOTE: {NO_LIST}; --overwrite trains it again")
            return workers.do_on_chief(lambda: folder.read_json("metrics.json"))
        # Without this, sums over threads differ in their last bits from run to run.
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(config.seed)
        files = held.enter_context(contextlib.closing(shard_files(cache.path, job.staging)))
        material = gather(job, cache, joined, workers, run, files=files)
        size = min(config.batch_size, max(len(material.learnt), _ROOM_QUESTIONS))
        job = dataclasses.replace(job, train=dataclasses.replace(config, batch_size=size))
        with warnings.catch_warnings(), _memory_told():
            if len(material.head.answers) == 1:  # said in gather; Keras wonders at it in each graph
                warnings.simplefilter("ignore")
            moments = Moments(material, workers, run, batch_size=size)
            metrics = _Training(
                job, material, folder, run, workers, moments, moments.scale()
            ).train_all()
        metrics |= _accounting(cache, joined, material)
        if material.vectors is not None:
            metrics["embeddings"] = {"file": job.embeddings} | material.vectors.coverage
        if workers.is_chief:
            folder.write_json("metrics.json", metrics)
            counts = {name: len(material.splits.of(name)) for name in SPLITS}
            made = make_lineage(cache, making, questions=counts, files=list(joined.files))
            if job.embeddings is not None:
                made["embeddings_file"] = job.embeddings
            seen = _seen(job, cache, material)
            storage.write_atomic(str(folder.path / SEEN), seen.to_bytes())
            folder.finish(made)
    return metrics


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as err:
        raise JobError(
            "the training does not fit into memory",
            got=str(err).split("}} ")[-1].split(" on /job")[0][:200],
            todo="a smaller --batch-size, or smaller layers (--frame-units, --dense-units, ...)",
        ) from err


def _seen(job: TrainJob, cache: Cache, material: Material) -> Seen:
    """Return what the model has seen: all videos but those of the test split, and what the model
    that it started from has seen."""
    splits = material.splits
    contents = content_hashes(cache, {q.video_id for q in (*splits.train, *splits.val)})
    seen = seen_by([*splits.train, *splits.val], contents)
    before = None if job.warm_start is None else find_seen(job.warm_start)
    return seen if before is None else seen | before


class Fitted(NamedTuple):
    """A network and how its fit went; `plain` is a probe without what makes its scores sharp."""

    network: keras.Model
    result: FitResult
    plain: keras.Model | None = None


@dataclasses.dataclass(frozen=True)
class _Training:
    """The fits of one run, with what all of them share."""

    job: TrainJob
    material: Material
    folder: ModelFolder
    run: Run
    workers: Workers
    moments: Moments
    scale: Scale

    def train_all(self) -> dict[str, Any]:
        """Train the model, save it, then the baselines; return their figures."""
        job, material, folder, workers = self.job, self.material, self.folder, self.workers
        splits = material.splits
        asked = splits.of(splits.judged_on)
        model, tried = self._choose(job.model)
        fits = [self._fit(model, number) for number in range(self._seeds(model))]
        network = average([fit.network for fit in fits])
        result = fits[0].result
        temperature, calibration = self._calibrate(fits, network)
        if workers.is_chief:
            folder.save_model(export(network, material.text, temperature=temperature))
            spoken = {} if job.language is None else {"language": job.language}
            known = {**material.head.to_json(), **spoken, "words": material.words}
            folder.write_json("vocabulary.json", known)
        said: dict[str, baselines.Said] = {"model": self._judge(network)}
        spread = [self._score(self._judge(fit.network)) for fit in fits] if len(fits) > 1 else []
        counted = baselines.count_answers(splits.train, asked)
        beside = {name: counted[name] for name in ("majority", "majority_per_question")}
        history = list(result.history)
        for kind in baselines.trained_of(material.head) if job.with_baselines else ():
            fitted = self._fit(dataclasses.replace(job.model, kind=kind))
            beside[kind] = said[kind] = self._judge(fitted.network)
            history += fitted.result.history
        led_by = self._led_by(asked, said | {name: counted[name] for name in counted})
        if workers.is_chief:
            rows = "".join(json.dumps(row) + "\n" for row in history)
            folder.write_text("history.jsonl", rows)
            folder.write_text(baselines.JUDGED_FILE, baselines.judged_text(asked, said))
        return {
            "split": splits.judged_on,
            "questions": len(asked),
            "correct": sum(map(is_right, asked, said["model"])),
            **figures(asked, said["model"]),
            "baselines": {name: figures(asked, other) for name, other in beside.items()},
            "kind": model.kind,
            **({"tried": tried} if tried else {}),
            **({"calibration": calibration} if calibration else {}),
            **({"seeds": spread} if spread else {}),
            "led_by": led_by,
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "steps": result.steps,
        }

    def _choose(self, model: ModelConfig) -> tuple[ModelConfig, list[dict[str, Any]]]:
        """Return the model to train, of the kind that `auto` finds, and what was tried for it."""
        material, say = self.material, self.run.say
        if model.kind != AUTO:
            return model, []
        clips = len({question.video_id for question in material.learnt.questions})
        if clips > AUTO_CLIPS:
            say(f"auto: {clips} clips to learn from are enough for {TRAINED_KINDS[0]}")
            return dataclasses.replace(model, kind=TRAINED_KINDS[0]), []

        def gains(
            kind: str, fold: int, learn: QuestionTable, judge: QuestionTable
        ) -> NDArray[np.float64]:
            its = dataclasses.replace(model, kind=kind)
            network = self._fit(its, learn=learn, label=f"auto-{kind}-{fold}").network
            return baselines.answer_gains(judge.questions, self._said(network, judge))

        kind, tried = choose_kind(material.learnt, gains, seed=self.job.train.seed, say=say)
        return dataclasses.replace(model, kind=kind), tried

    def _led_by(
        self, asked: Sequence[Question], said: Mapping[str, baselines.Said]
    ) -> dict[str, list[float]]:
        """Return by how much each baseline leads that surely does, with its interval, and say so."""
        leads = baselines.leading(asked, said, seed=self.job.train.seed)
        for name, lead in leads.items():
            self.run.say(
                f"WARNING: the baseline {name} answers better than this model, by "
                f"{lead.difference:.3f} ({lead.low:.3f} to {lead.high:.3f}): the model is not worth "
                "its training"
            )
        return {name: [lead.difference, lead.low, lead.high] for name, lead in leads.items()}

    def _seeds(self, model: ModelConfig) -> int:
        """Return how many fits are averaged: a closed formula gives the same every time."""
        return 1 if model.kind in (PROBE, PROBE_BLIND) else self.job.train.seeds

    def _calibrate(
        self, fits: Sequence[Fitted], network: keras.Model
    ) -> tuple[float, dict[str, Any]]:
        """Return the temperature that the validation split asks for, and the error on the judged
        split before and after it; of a probe that was chosen by what its folds held out."""
        material = self.material
        val, judged = (material.tables.get(material.splits.stopped_on), self._judged_table())
        if material.head.kind == COUNT:
            return 1.0, {}
        judge = self._judge_of(network)
        plain = fits[0].plain
        if plain is not None:
            before, temperature = self._judge_of(plain).predict(judged).confidence.error, 1.0
        else:
            before = judge.predict(judged).confidence.error
            chosen = material.splits.stopped_on == "val" and val is not None
            temperature = judge.temperature(val) if chosen and val is not None else 1.0
        after = judge.predict(judged, temperature=temperature).confidence.error
        self.run.say(
            f"expected calibration error {before:.3f} before and {after:.3f} after "
            + (f"a temperature of {temperature:.3g}" if plain is None else "held-out scaling")
        )
        return temperature, {"before": before, "after": after, "temperature": temperature}

    def _fit(
        self,
        model: ModelConfig,
        number: int = 0,
        *,
        learn: QuestionTable | None = None,
        label: str | None = None,
    ) -> Fitted:
        """Fit a model to the rows of `learn`, all of the training split by default; `number` counts
        the fits of other seeds."""
        job, material = self.job, self.material
        rows = material.learnt if learn is None else learn
        closed = model.kind in (PROBE, PROBE_BLIND)
        splits = material.splits
        if closed and learn is None and splits.carved and splits.val and splits.test:
            val = material.tables["val"]  # it need not choose an epoch, and judges nothing
            rows = rows.join(val.take(np.flatnonzero(material.head.knows(val.answer))))
        label = label or (model.kind if not number else f"{model.kind}-{number}")
        if closed:
            return self._fit_probe(model, rows, label)
        workers = self.workers
        warm_start = job.warm_start if label == job.model.kind or job.model.kind == AUTO else None
        if learn is not None:
            warm_start = None
        config = dataclasses.replace(job.train, seed=job.train.seed + number)
        if material.vectors is not None:
            model = dataclasses.replace(model, word_size=material.vectors.size)
        keras.utils.set_random_seed(config.seed)  # each network starts alike, resumed or not
        with workers.strategy.scope(), _precision(config.precision):
            network = build_network(
                model,
                material.statistics,
                words=len(material.words),
                head=material.head,
                scale=None if __import__("os").environ.get("MU") == "0" else self.scale,
            )
        if material.vectors is not None:
            material.vectors.start(network)
        if warm_start is not None:
            words, answers = material.words, material.head.answers
            start_from(network, warm_start, words=words, answers=answers, say=self.run.say)
        callbacks, sample = [], None
        val = material.tables[material.splits.stopped_on]
        if job.tensorboard and workers.is_chief:
            board = f"{job.tensorboard}/{label}"
            callbacks.append(keras.callbacks.TensorBoard(board, write_graph=False))
            sample = AnswerSample(board + "/answers", val.questions, material.head)
        result = fit(
            network,
            FitData(material.features, rows, val, material.head),
            config=config,
            folder=self.folder.checkpoints / label,
            stop=self.run.stop,
            label=label,
            callbacks=callbacks,
            on_judged=sample,
            workers=workers,
        )
        self.run.say(f"{label}: best epoch {result.best_epoch} of {len(result.history)}")
        return Fitted(network, result)

    def _fit_probe(self, model: ModelConfig, rows: QuestionTable, label: str) -> Fitted:
        material = self.material
        probe = fit_closed_form(model, material, rows, self.moments, seed=self.job.train.seed)
        self.run.say(f"{label}: {probe.describe()}")
        words = len(material.words)
        network, plain = (
            probe_network(model, probe, material.head, words=words, sharp=sharp)
            for sharp in (True, False)
        )
        return Fitted(network, FitResult([], 0, 0), plain)

    def _judge(self, network: keras.Model) -> list[str | None]:
        """Return the network's answer to each question of the judged split, in its order."""
        return self._said(network, self._judged_table())

    def _judged_table(self) -> QuestionTable:
        return self.material.tables[self.material.splits.judged_on]

    def _score(self, said: baselines.Said) -> float:
        table = self._judged_table()
        return sum(map(is_right, table.questions, said)) / len(table)

    def _judge_of(self, network: keras.Model) -> Judge:
        return Judge(
            network,
            self.material.features,
            batch_size=self.job.train.batch_size,
            head=self.material.head,
            workers=self.workers,
        )

    def _said(self, network: keras.Model, table: QuestionTable) -> list[str | None]:
        chosen = self._judge_of(network).predict(table).chosen
        pairs = zip(table.questions, chosen.tolist(), strict=True)
        return [self.material.head.answer(question, number) for question, number in pairs]


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if name == "float32" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _accounting(cache: Cache, joined: JoinedQuestions, material: Material) -> dict[str, Any]:
    """Return what was left out and what cannot be answered."""
    table = material.tables[material.splits.judged_on]
    return {
        "answers": len(material.head.answers),
        "head": material.head.kind,
        "measure": material.head.measure,
        "oov_answers": int(np.sum(~material.head.knows(table.answer))),
        "oov_train": len(material.splits.train) - len(material.learnt),
        "unmatched": joined.unmatched,
        "unmatched_videos": list(joined.unmatched_videos[:100]),
        "without_answer": joined.without_answer,
        "random_weights": cache.spec.random_weights,
        "remarks": list(material.splits.remarks),
    }
