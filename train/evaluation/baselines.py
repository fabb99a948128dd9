"""What stands beside a model in an evaluation: its baselines, each with what it answered.

Some only count the training answers. Those that are trained come from the model's folder, where
they were trained under its budget and judged on the same questions; else they are trained now.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.trained_model import load_model
from framebank.features.questions.question import QUESTION_WORDS, Question
from framebank.features.stop_signals import StopRequest
from framebank.train.evaluation import figures as evaluation
from framebank.train.evaluation.answers import ask_all
from framebank.train.fit.model_folder import ModelFolder
from framebank.train.judging import baselines
from framebank.train.judging.accuracy import is_right
from framebank.train.judging.bootstrap import paired_bootstrap
from framebank.train.judging.judged_answers import Said

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache
    from framebank.train.fit.training import TrainJob


def count_answers(train: Sequence[Question], asked: Sequence[Question]) -> dict[str, Said]:
    """Return what the baselines say that only count the answers of `train`."""
    return {
        "majority": baselines.majority(train, asked),
        "majority_per_word": majority_per_word(train, asked),
        "majority_per_question": baselines.majority_per_question(train, asked),
    }


def majority_per_word(train: Sequence[Question], asked: Sequence[Question]) -> list[str]:
    """Answer with the commonest answer to questions that open with the same question word."""
    by_word: dict[str, list[Question]] = collections.defaultdict(list)
    for question in train:
        by_word[_word(question)].append(question)
    counted = {word: baselines.Majority(its) for word, its in by_word.items()}
    fallback = baselines.Majority(train)
    return [counted.get(_word(question), fallback).says(question) for question in asked]


def _word(question: Question) -> str:
    plain = dataclasses.replace(question, type=None)
    return plain.kind if plain.kind in QUESTION_WORDS else "other"


def train_answers(
    kind: str,
    job: TrainJob,
    cache: Cache,
    asked: Sequence[Question],
    *,
    out: Path,
    stop: StopRequest,
    say: Callable[[str], None],
) -> Said:
    """Train the baseline `kind` as `job` says in a folder of its own under `out`, and ask it.

    Raises FramebankError, and TrainingStopped (the same call goes on where it was).
    """
    from framebank.train.fit.training import train_model

    path = out / "baselines" / kind
    say(f"training {kind} under the model's budget in {path}")
    work = dataclasses.replace(
        job, model=dataclasses.replace(job.model, kind=kind), with_baselines=False
    )
    train_model(work, cache, ModelFolder(str(path)), stop=stop, say=say)
    return ask_all(load_model(str(path)), cache, asked, stop=stop, say=say).chosen()


def figures(
    said: Mapping[str, Said],
    asked: Sequence[Question],
    right: NDArray[np.bool_],
    *,
    seed: int,
    errors: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Return the accuracy of each baseline, and by how much the model is ahead of it.

    `right` bool[q] says whether the model's answers are, `errors` float64[q] are the square errors
    of counts. "ahead" is the difference of accuracies, or by how much the model's mean square error
    is the smaller one, with its interval, by a paired bootstrap over videos.
    """
    groups = [question.video_id for question in asked]
    found = {}
    for name, answers in said.items():
        its = np.array(
            [one is not None and is_right(q, one) for one, q in zip(answers, asked, strict=True)]
        )
        theirs = evaluation.square_errors(asked, answers) if errors is not None else None
        if errors is not None and theirs is not None:
            measure = "mean square error"
            ahead = paired_bootstrap(-errors, -theirs, groups, seed=seed)
        else:
            measure, ahead = "accuracy", paired_bootstrap(right, its, groups, seed=seed)
        found[name] = {
            **evaluation.share(its, groups, seed=seed),
            **evaluation.square_error(asked, answers, seed=seed),
            "ahead": {
                "measure": measure,
                "difference": ahead.difference,
                "interval": [ahead.low, ahead.high],
                "probability_better": ahead.probability_better,
            },
        }
    return found
