"""The fits of one run: the kind that is chosen, the seeds that are averaged, and the baselines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.scores import figures, is_right
from framebank.features.asking.trained_model import load_network
from framebank.features.errors import CacheError
from framebank.features.questions.question import Question
from framebank.features.stores import json_text, storage
from framebank.train.data.batches import QuestionTable
from framebank.train.fit.callbacks import AnswerSample, Told
from framebank.train.fit.choosing import AUTO_CLIPS, KINDS, choose_kind
from framebank.train.fit.closed_form import Moments, fit_closed_form
from framebank.train.fit.loop import FitData, FitResult, fit
from framebank.train.fit.model_folder import ModelFolder
from framebank.train.fit.training_data import Material, TrainJob
from framebank.train.judging import baselines
from framebank.train.judging.predicting import Judge
from framebank.train.model.config import (
    AUTO,
    PICTURE_KINDS,
    PROBE,
    PROBE_BLIND,
    TRAINED_KINDS,
    ModelConfig,
    TrainConfig,
)
from framebank.train.model.heads import COUNT
from framebank.train.model.moments import Scale
from framebank.train.model.network import average, build_network, export
from framebank.train.model.probe import probe_network
from framebank.train.workers.replicas import Workers
from framebank.train.workers.run import Run

_NOTHING = ""  # the output of a model of segments that is none of its answers


class Fitted(NamedTuple):
    """A network and how its fit went; `plain` is a probe without what makes its scores sharp."""

    network: keras.Model
    result: FitResult
    plain: keras.Model | None = None


@dataclasses.dataclass(frozen=True)
class Fits:
    """The fits of one run, with what all of them share."""

    job: TrainJob
    material: Material
    folder: ModelFolder
    run: Run
    workers: Workers
    moments: Moments
    scale: Scale | None  # of the moments; None of segments and of pictures, which have none

    def train_all(self) -> dict[str, Any]:
        """Train the model, save it, then the baselines; return their figures."""
        job, material, folder, workers = self.job, self.material, self.folder, self.workers
        splits = material.splits
        asked = splits.of(splits.judged_on)
        model, tried = self._choose(job.model)
        warm = job.warm_start
        fits = [self.fit(model, n, warm_start=warm) for n in range(self._seeds(model))]
        network = average([fit.network for fit in fits])
        result = fits[0].result
        judge = result.judge if len(fits) == 1 else self.judge_of(network)
        temperature, calibration = self.calibrate(judge, fits[0].plain)
        if workers.is_chief:
            folder.save_model(export(network, material.text, temperature=temperature))
            spoken = {} if job.language is None else {"language": job.language}
            known = {**material.head.to_json(), **spoken, "words": material.words}
            folder.write_json("vocabulary.json", known)
        said: dict[str, baselines.Said] = {"model": self._answers(judge)}
        spread = (
            [self._score(self._answers(fit.result.judge)) for fit in fits] if len(fits) > 1 else []
        )
        counted = baselines.count_answers(splits.train, asked)
        beside = {name: said for name, said in counted.items() if name != "majority_per_word"}
        history = list(result.history)
        for kind in self._baselines():
            if kind == model.kind == PROBE:  # the same rows and formula
                beside[kind] = said[kind] = said["model"]
                continue
            fitted = self.fit(dataclasses.replace(job.model, kind=kind))
            beside[kind] = said[kind] = self._answers(fitted.result.judge)
            history += fitted.result.history
        led_by = self._led_by(asked, said | counted)
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
            "parameters": sum(math.prod(v.shape) for v in network.trainable_variables),
            **({"tried": tried} if tried else {}),
            **({"calibration": calibration} if calibration else {}),
            **({"seeds": spread} if spread else {}),
            "led_by": led_by,
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "steps": result.steps,
        }

    def _baselines(self) -> Sequence[str]:
        if not self.job.with_baselines:
            return ()
        return baselines.trained_of(self.material.head, pictures=self.material.pictures)

    def _choose(self, model: ModelConfig) -> tuple[ModelConfig, list[dict[str, Any]]]:
        """Return the model to train, of the kind that `auto` finds, and what was tried for it."""
        material, say = self.material, self.run.say
        if model.kind != AUTO:
            return model, []
        clips = len({question.video_id for question in material.learnt.questions})
        kinds = PICTURE_KINDS if material.pictures else TRAINED_KINDS
        if clips > AUTO_CLIPS:
            say(f"auto: {clips} clips to learn from are enough for {kinds[0]}")
            return dataclasses.replace(model, kind=kinds[0]), []

        def gains(
            kind: str, fold: int, learn: QuestionTable, judge: QuestionTable
        ) -> NDArray[np.float64]:
            its = dataclasses.replace(model, kind=kind)
            fitted = self.fit(its, learn=learn, label=f"auto-{kind}-{fold}", train=trying)
            said = self._said(fitted.result.judge, judge)
            return baselines.answer_gains(judge.questions, said)

        trying = half_as_long(self.job.train)
        seed = self.job.train.seed
        tries = kinds if material.pictures else KINDS
        kind, tried = choose_kind(material.learnt, gains, seed=seed, say=say, kinds=tries)
        return dataclasses.replace(model, kind=kind), tried

    def _led_by(
        self, asked: Sequence[Question], said: Mapping[str, baselines.Said]
    ) -> dict[str, list[float]]:
        """Return by how much each baseline leads that surely does, with the interval; say so."""
        leads = baselines.leading(asked, said, seed=self.job.train.seed)
        for name, lead in leads.items():
            self.run.say(
                f"WARNING: the baseline {name} answers better than this model, by "
                f"{lead.difference:.3f} ({lead.low:.3f} to {lead.high:.3f}): the model is not "
                "worth its training"
            )
        return {name: [lead.difference, lead.low, lead.high] for name, lead in leads.items()}

    def _seeds(self, model: ModelConfig) -> int:
        """Return how many fits are averaged: a closed formula gives the same every time."""
        seeds = self.job.train.seeds
        if model.kind != PROBE or seeds == 1:
            return seeds
        self.run.say("NOTE: a closed formula has no random start: there is one fit, not --seeds")
        return 1

    def calibrate(self, judge: Judge, plain: keras.Model | None) -> tuple[float, dict[str, Any]]:
        """Return the temperature that the validation split asks for, and the error on the judged
        split before and after it. A probe, of which `plain` is without it, has its own from what
        its folds held out."""
        splits, judged = self.material.splits, self._judged_table()
        if self.material.head.kind == COUNT:
            return 1.0, {}
        temperature, before = 1.0, judge
        if plain is not None:
            before = self.judge_of(plain)
        elif splits.val:
            temperature = judge.temperature(self.material.tables["val"])
        errors = {
            "before": before.predict(judged).confidence.error,
            "after": judge.predict(judged, temperature=temperature).confidence.error,
        }
        by = f"a temperature of {temperature:.3g}" if plain is None else "what was held out"
        self.run.say(
            f"calibrated by {by}: expected error {errors['before']:.3f} before, "
            f"{errors['after']:.3f} after"
        )
        return temperature, errors | {"temperature": temperature}

    def fit(
        self,
        model: ModelConfig,
        number: int = 0,
        *,
        learn: QuestionTable | None = None,
        label: str | None = None,
        warm_start: str | None = None,
        train: TrainConfig | None = None,
    ) -> Fitted:
        """Fit a model to the rows of `learn` (default: all of the training split), from the weights
        of the model in `warm_start`, as `train` says (default: as the job does); `number` counts
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
        config = dataclasses.replace(train or job.train, seed=job.train.seed + number)
        if material.vectors is not None:
            model = dataclasses.replace(model, word_size=material.vectors.size)
        keras.utils.set_random_seed(config.seed)  # each network starts alike, resumed or not
        with workers.strategy.scope(), _precision(config.precision):
            network = build_network(
                model,
                material.statistics,
                words=len(material.words),
                head=material.head,
                scale=self.scale,
            )
        if material.vectors is not None:
            material.vectors.start(network)
        if warm_start is not None:
            words, answers = material.words, material.head.answers
            start_from(network, warm_start, words=words, answers=answers, say=self.run.say)
        callbacks: list[keras.callbacks.Callback] = [Told(label, self.run.track.epoch)]
        sample = None
        val = material.tables[material.splits.stopped_on]
        if job.tensorboard and workers.is_chief:
            board = f"{job.tensorboard}/{label}"
            callbacks.append(keras.callbacks.TensorBoard(board, write_graph=False))
            if material.videos is None:
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
        return Fitted(network, FitResult([], 0, 0, self.judge_of(network)), plain)

    def _answers(self, judge: Judge) -> list[str | None]:
        """Return the network's answer to each question of the judged split, in its order."""
        return self._said(judge, self._judged_table())

    def _judged_table(self) -> QuestionTable:
        return self.material.tables[self.material.splits.judged_on]

    def _score(self, said: baselines.Said) -> float:
        table = self._judged_table()
        return sum(map(is_right, table.questions, said)) / len(table)

    def judge_of(self, network: keras.Model) -> Judge:
        return Judge(
            network,
            self.material.features,
            batch_size=self.job.train.batch_size,
            head=self.material.head,
            workers=self.workers,
        )

    def _said(self, judge: Judge, table: QuestionTable) -> list[str | None]:
        chosen = judge.predict(table).chosen
        pairs = zip(table.questions, chosen.tolist(), strict=True)
        return [self.material.head.answer(question, number) for question, number in pairs]


def half_as_long(config: TrainConfig) -> TrainConfig:
    """Return how a kind is tried: by half the epochs and half the patience, rounded up."""
    epochs, patience = -(-config.epochs // 2), -(-config.patience // 2)
    return dataclasses.replace(config, epochs=epochs, patience=patience)


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if name == "float32" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def start_from(
    network: Any,
    model_dir: str,
    *,
    words: Sequence[str],
    answers: Sequence[str],
    say: Callable[[str], None],
) -> bool:
    """Give `network`, of the vocabularies `words` and `answers`, the weights of the model in
    `model_dir`, as far as they fit. Returns False, with a line said, where that model is built in
    another way; raises UsageError for a damaged one.

    Layers are paired by place, those of a network within the network too. Words and answers keep
    their rows by name, whatever their number is now; a new one starts as in a fresh network. The
    scale of the features stays the new one.
    """
    trained = load_network(model_dir)
    inner = [layer for layer in trained.layers if isinstance(layer, keras.Model)]
    old = inner[0] if inner else trained
    mine, others = list(_inner_layers(network)), list(_inner_layers(old))
    if [type(layer) for layer in mine] != [type(layer) for layer in others]:
        say(f"{model_dir} is built in another way: the new model starts from random weights")
        return False
    known = _vocabulary(model_dir)
    copied = left = 0
    for new, was in zip(mine, others, strict=True):
        if isinstance(new, keras.layers.Normalization):
            continue
        weights = new.get_weights()
        for place, (fresh, other) in enumerate(zip(weights, was.get_weights(), strict=True)):
            if isinstance(new, keras.layers.Embedding):
                other = _by_name(fresh, other, (words, known["words"]), axis=0)
            elif new.name == "answers":
                more = [_NOTHING] * (fresh.shape[-1] - len(answers))  # the last, of segments
                names = [*answers, *more], [*known["answers"], *more]
                other = _by_name(fresh, other, names, axis=-1)
            if other.shape == fresh.shape:
                weights[place], copied = other, copied + 1
            else:
                left += 1
        new.set_weights(weights)
    say(
        f"{copied} weights start from {model_dir}"
        + (f", {left} from random values" if left else "")
    )
    return True


def _inner_layers(network: Any) -> Iterator[Any]:
    """Yield the layers of `network`, in place of a model among them its own."""
    for layer in network.layers:
        if hasattr(layer, "layers"):  # the reader of questions and of candidates
            yield from _inner_layers(layer)
        else:
            yield layer


def _by_name(
    mine: NDArray[Any],
    other: NDArray[Any],
    names: tuple[Sequence[str], Sequence[str]],
    *,
    axis: int,
) -> NDArray[Any]:
    """Return `mine` with the rows (or columns) of `other` whose names both have."""
    places = {name: place for place, name in enumerate(names[1])}
    pairs = [(n, places[name]) for n, name in enumerate(names[0]) if name in places]
    to, of = np.moveaxis(mine.copy(), axis, 0), np.moveaxis(other, axis, 0)
    if to.shape[1:] != of.shape[1:] or len(of) < len(names[1]) or len(to) < len(names[0]):
        return mine
    for place, was in pairs:
        to[place] = of[was]
    return np.moveaxis(to, 0, axis)


def _vocabulary(model_dir: str) -> dict[str, list[str]]:
    path = storage.join(model_dir, "vocabulary.json")
    try:
        fields = json_text.parse(storage.read_bytes(path))
        return {name: [str(text) for text in fields[name]] for name in ("words", "answers")}
    except (ValueError, KeyError, TypeError) as err:
        raise CacheError(f"{path} is damaged", got=err, todo='set start = "fresh"') from err
