"""What a model says of one clip: a question is checked, asked, and its answer told.

`framebank ask` and `framebank serve` answer through this alone. Questions of several who ask at a
time are put together as those of `framebank score` are (`padded_groups`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.heads import OPEN, Head
from framebank.features.asking.segmenting import find_segments, row_edges, video_shares
from framebank.features.asking.trained_model import TrainedModel, pad_clips
from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.questions.question import Question
from framebank.features.terminal import few

if TYPE_CHECKING:
    from framebank.features.cache.record import FeatureRecord

MOST_TEXT = 20_000  # characters; a step for each, in some languages
_LONG_TEXT = 1000  # characters; the longest question of the published sets has 135
_PADDED_BYTES = 2**26  # of one padded batch of features


class Asked(NamedTuple):
    """A question about a clip's features float[n, d], of a choice with its candidates."""

    features: NDArray[Any]
    question: str
    choices: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        return max(map(len, (self.question, *self.choices)))


@dataclasses.dataclass(frozen=True)
class Told:
    """The likeliest answers (`Head.best`), the words of the question that the model does not know,
    and what whoever asked is to be told besides."""

    answers: list[dict[str, Any]]
    unknown_words: list[str]
    warnings: list[str]


def check_question(
    question: str, choices: Sequence[str], head: Head, *, model: str, choice: str = "--choice"
) -> None:
    """Raise UsageError for a question that a model of this head cannot be asked; `choice` is how a
    candidate is given."""
    if head.asks and not question:
        raise UsageError("the question is empty", expected='words, such as "what is he doing?"')
    if question and not head.asks:
        raise UsageError(
            f"the model {model} gives labels or segments, and takes no question",
            got=repr(question),
            todo="leave the question out",
        )
    if head.kind == "choice" and len(choices) < 2:
        raise UsageError(
            f"the model {model} chooses among candidates",
            got=f"{len(choices)} of them",
            expected="two at least",
            todo=f'give each as {choice} "TEXT"',
        )
    if head.kind not in ("choice", "open") and choices:
        raise UsageError(
            f"the model {model} does not choose among candidates",
            got=f"{choice} {choices[0]!r}",
            todo=f"leave {choice} out",
        )


def score_questions(model: TrainedModel, asked: Sequence[Asked]) -> NDArray[np.float32]:
    """Return the outputs float32[b, a] (`TrainedModel.predict`) for questions that are asked at
    once, their clips padded. Raises ValueError for a text that is too long, FramebankError."""
    longest = max(one.characters for one in asked)
    if longest > MOST_TEXT:
        raise ValueError(f"a text of {longest} characters, where {MOST_TEXT} are read at most")
    features = pad_clips([one.features for one in asked])
    texts = [one.question.encode("utf-8", "replace") for one in asked]
    scores = model.predict(features, texts, [one.choices for one in asked])
    if len(scores) != len(asked):
        raise ValueError(f"the model gives {scores.shape}, not one row for each question")
    return scores


def tell(model: TrainedModel, asked: Asked, scores: NDArray[np.float32], *, top: int) -> Told:
    """Return what is said of a question whose outputs are `scores` float32[a], `top` answers."""
    warnings, unknown, choices = [], model.unknown_words(asked.question), asked.choices
    named = few(unknown)
    if not model.knows([asked.question])[0]:
        about = f" ({named})" if named else ""
        then = "it answers as if nothing had been asked"
        warnings.append(
            f"WARNING: the model knows none of the words of the question{about}: {then}"
        )
    elif unknown:
        warnings.append(f"NOTE: the model does not know these words of the question: {named}")
    if model.head.kind == OPEN:
        offers = Question("", "", asked.question, choices=choices)
        scores = model.head.restrict(scores[None], [offers])[0]
        lack, known = "cannot give", [choice in model.head.answers for choice in choices]
    else:
        lack, known = "knows none of the words of", model.knows(choices)
    strange = [repr(choice) for choice, knows in zip(choices, known, strict=True) if not knows]
    if strange:
        warnings.append(f"WARNING: the model {lack} the candidates {', '.join(strange)}")
    return Told(model.head.best(scores, top=top, choices=choices), unknown, warnings)


def ask_one(model: TrainedModel, asked: Asked, *, top: int, model_dir: str) -> Told:
    """Ask one question; raises JobError where the model chokes on it, FramebankError."""
    try:
        scores = score_questions(model, [asked])[0]
    except FramebankError:
        raise
    except Exception as err:
        raise JobError(
            "the model did not answer",
            got=str(err).split("\n", 1)[0][:300],
            todo=f"train the model in {model_dir} again",
        ) from err
    return tell(model, asked, scores, top=top)


def ask_about_video(
    model: TrainedModel, record: FeatureRecord, *, top: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the `top` likeliest labels of a video, of a model of segments, and its segments in the
    order of their time."""
    assert model.head.rule is not None
    shares = model.ask_video(record.features)
    edges_s = row_edges(record.pts_ms, record.source.duration_s)
    found = find_segments(shares, edges_s, model.head.answers, model.head.rule, video_id="")
    segments = [
        {"start_s": its.start_s, "end_s": its.end_s, "label": its.label, "score": its.score}
        for its in sorted(found, key=lambda its: (its.start_s, -its.score))
    ]
    return model.head.best(video_shares(shares), top=top), segments


def padded_groups(
    lengths: Sequence[int], characters: Sequence[int], *, width: int
) -> Iterator[list[int]]:
    """Yield places of questions that are answered together, by the frames of their clips, of
    features of this width, and by their texts: a long one stays alone, for a batch takes memory
    and time for its longest text as often as it has rows."""
    short = [place for place, length in enumerate(characters) if length <= _LONG_TEXT]
    room = max(_PADDED_BYTES // (4 * max(width, 1)), 1)  # in frames, padding included
    for group in length_groups([lengths[place] for place in short], room):
        yield [short[place] for place in group]
    yield from ([place] for place, length in enumerate(characters) if length > _LONG_TEXT)


def length_groups(lengths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield places of clips that are padded together, shortest first: the longest has at most twice
    the frames of the shortest, and its frames times the group's size are at most `room` (unless a
    single clip is longer)."""
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    group: list[int] = []
    for place in order:
        length = lengths[place]
        if group and (length > 2 * lengths[group[0]] or length * (len(group) + 1) > room):
            yield group
            group = []
        group.append(place)
    if group:
        yield group
