"""Two models before the same held questions, and whether the new one may take over."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.questions import Question
from features.trained_model import TrainedModel, pad_clips
from train.retrain_config import PromoteConfig
from train.stopping import StopRequest

if TYPE_CHECKING:
    from features.cache import Cache

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether the new model is `better`, the reason in words, and the figures behind it."""

    better: bool
    reason: str
    figures: dict[str, Any]


def right_answers(
    model: TrainedModel, cache: Cache, questions: Sequence[Question], *, stop: StopRequest
) -> NDArray[np.bool_]:
    """Return bool[q]: whether the model's likeliest answer is the true one."""
    right = np.zeros(len(questions), bool)
    order = sorted(range(len(questions)), key=lambda place: questions[place].video_id)
    for start in range(0, len(order), _BATCH):
        stop.check()
        places = order[start : start + _BATCH]
        asked = [questions[place] for place in places]
        clips = list(_clips(cache, asked))
        texts = [question.question.encode("utf-8", "replace") for question in asked]
        chosen = model.predict(pad_clips(clips), texts).argmax(axis=1)
        right[places] = [
            model.answers[number] == question.answer
            for number, question in zip(chosen.tolist(), asked, strict=True)
        ]
    return right


def _clips(cache: Cache, questions: Sequence[Question]) -> Iterator[NDArray[Any]]:
    read: tuple[str, NDArray[Any]] | None = None
    for question in questions:
        if read is None or read[0] != question.video_id:
            read = (question.video_id, cache[question.video_id].features)
        yield read[1]


def decide(
    new: NDArray[np.bool_], old: NDArray[np.bool_], groups: Sequence[str], config: PromoteConfig
) -> Decision:
    """Compare bool[q] of two models by a bootstrap over `groups`, the videos of the questions."""
    from train.comparing import paired_bootstrap

    found = paired_bootstrap(new, old, groups, seed=config.seed, rounds=config.rounds)
    figures = {
        "accuracy": float(new.mean()),
        "accuracy_in_use": float(old.mean()),
        "difference": float(found.difference),
        "interval": [float(found.low), float(found.high)],
        "probability_better": float(found.probability_better),
    }
    text = (
        f"{new.mean():.1%} against {old.mean():.1%} on {len(new)} questions about "
        f"{len(set(groups))} held videos: {found.difference:+.1%} "
        f"({found.low:+.1%} to {found.high:+.1%}), "
        f"better in {found.probability_better:.1%} of the bootstrap rounds"
    )
    if found.difference < config.margin:
        return Decision(False, f"{text}; a gain of {config.margin:.1%} is asked for", figures)
    if found.probability_better < config.confidence:
        return Decision(False, f"{text}; {config.confidence:.1%} of them are asked for", figures)
    return Decision(True, text, figures)
