"""What a trained model says to questions, one row of numbers per question, and their accuracies.

Only a few numbers are kept of each question, so a million questions with a thousand answers fit
into memory. Dimension letters: q questions, a answers, k the answers kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.questions import Question
from features.trained_model import TrainedModel, pad_clips

if TYPE_CHECKING:
    from features.cache import Cache

TOP = 5
DISTRACTORS = 99
_BATCH = 64
NO_RANK = np.iinfo(np.int64).max  # of an answer that the model cannot give


@dataclasses.dataclass(frozen=True)
class Answers:
    """`best` int64[q, k] numbers the likeliest answers, `probability` float64[q, k] is theirs.

    `rank` int64[q] is how many answers are likelier than the true one, `rank_drawn` how many of
    DISTRACTORS drawn from the other answers are; NO_RANK where the model cannot give the truth.
    """

    vocabulary: tuple[str, ...]
    best: NDArray[np.int64]
    probability: NDArray[np.float64]
    rank: NDArray[np.int64]
    rank_drawn: NDArray[np.int64]

    def texts(self, place: int) -> list[tuple[str, float]]:
        """Return the likeliest answers to the `place`-th question with their probabilities."""
        pairs = zip(self.best[place].tolist(), self.probability[place].tolist(), strict=True)
        return [(self.vocabulary[number], probability) for number, probability in pairs]

    def chosen(self) -> list[str]:
        """Return the likeliest answer to each question."""
        return [self.vocabulary[number] for number in self.best[:, 0].tolist()]


def ask_all(
    model: TrainedModel, cache: Cache, questions: Sequence[Question], *, seed: int
) -> Answers:
    """Ask every question; `seed` draws the distractors. Raises CacheError."""
    count, size = len(questions), len(model.answers)
    keep = min(TOP, size)
    answers = Answers(
        model.answers,
        np.zeros((count, keep), np.int64),
        np.zeros((count, keep)),
        np.full(count, NO_RANK),
        np.full(count, NO_RANK),
    )
    number = {answer: place for place, answer in enumerate(model.answers)}
    dice = np.random.default_rng(seed)
    for places, probabilities in _probabilities(model, cache, questions):
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :keep]
        answers.best[places] = order
        answers.probability[places] = np.take_along_axis(probabilities, order, axis=1)
        for place, row in zip(places, probabilities, strict=True):
            truth = number.get(questions[place].answer or "")
            if truth is not None:
                answers.rank[place] = _likelier(row, row[truth], truth)
                drawn = dice.permutation(size - 1)[:DISTRACTORS]
                drawn = drawn + (drawn >= truth)
                answers.rank_drawn[place] = int((row[drawn] >= row[truth]).sum())
    return answers


def _likelier(row: NDArray[np.float32], probability: float, truth: int) -> int:
    """Return the place of `truth` among float32[a]; of equals the earlier comes first."""
    return int((row > probability).sum() + (row[:truth] == probability).sum())


def _probabilities(
    model: TrainedModel, cache: Cache, questions: Sequence[Question]
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    order = sorted(range(len(questions)), key=lambda place: questions[place].video_id)
    read: tuple[str, NDArray[Any]] | None = None
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        clips = []
        for place in places:
            video_id = questions[place].video_id
            if read is None or read[0] != video_id:
                read = (video_id, cache[video_id].features)
            clips.append(read[1])
        texts = [questions[place].question.encode("utf-8", "replace") for place in places]
        yield places, model.predict(pad_clips(clips), texts)
