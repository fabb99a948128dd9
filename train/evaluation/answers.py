"""What a trained model says to questions, one row of numbers per question, and their accuracies.

Only a few numbers are kept of each question, so a million questions with a thousand answers fit
into memory. Dimension letters: q questions, a answers, k the answers kept; b batch, n frames,
d feature width.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.heads import COUNT
from framebank.features.asking.trained_model import TrainedModel, pad_clips
from framebank.features.cache.reader import check_finite
from framebank.features.errors import UsageError
from framebank.features.questions.question import Question
from framebank.features.video import catalog_text
from framebank.train.data.prefetch import Prefetched
from framebank.train.workers.run import Run

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

TOP = 5
DISTRACTORS = 99
BATCH_QUESTIONS = 64
BATCH_BYTES = 128 << 20
_SAY_EVERY_S = 10.0
NO_RANK = np.iinfo(np.int64).max  # of an answer that the model cannot give


@dataclasses.dataclass(frozen=True)
class Answers:
    """`best` int64[q, k] numbers the likeliest answers, `probability` float64[q, k] is theirs.

    Where a model chooses they are numbers of the question's candidates; where it counts `best` is
    the count, and `probability` says nothing. `rank` int64[q] is how many answers are likelier than
    the true one, `rank_drawn` how many of DISTRACTORS drawn from the other answers are; NO_RANK
    where the model cannot give the truth.
    """

    head: str
    questions: Sequence[Question]
    vocabulary: tuple[str, ...]
    best: NDArray[np.int64]
    probability: NDArray[np.float64]
    rank: NDArray[np.int64]
    rank_drawn: NDArray[np.int64]

    def texts(self, place: int) -> list[tuple[str, float]]:
        """Return the likeliest answers to the `place`-th question with their probabilities."""
        pairs = zip(self.best[place].tolist(), self.probability[place].tolist(), strict=True)
        if self.head == "count":
            return [(str(number), probability) for number, probability in pairs]
        choices = self.questions[place].choices
        texts = choices if self.head == "choice" else self.vocabulary
        found = [(texts[number], share) for number, share in pairs if number < len(texts)]
        if self.head == "open" and choices:
            found = [(said, share) for said, share in found if said in choices]
            return found or [(choices[0], 0.0)]  # the vocabulary has none of them
        return found

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return bool[q]: whether the likeliest answer is the true one."""
        return self.rank == 0

    def chosen(self) -> list[str]:
        """Return the likeliest answer to each question."""
        return [self.texts(place)[0][0] for place in range(len(self.questions))]


def ask_all(
    model: TrainedModel,
    cache: Cache,
    questions: Sequence[Question],
    *,
    seed: int = 0,
    run: Run | None = None,
) -> Answers:
    """Ask every question; `seed` draws the distractors. Raises CacheError, TrainingStopped."""
    run = run or Run()
    _check_heads(model, questions)
    answers = _no_answers(model, questions)
    truths = [model.head.number(question) for question in questions]
    dice = np.random.default_rng(seed)
    asked = 0
    said_s = time.monotonic()
    with Prefetched(lambda: question_batches(cache, questions), depth=2) as batches:
        for places, features in batches:
            run.stop.check()
            these = [questions[place] for place in places]
            texts = [question.question.encode("utf-8", "replace") for question in these]
            scores = model.predict(features, texts, [question.choices for question in these])
            if model.head.kind == COUNT:
                counts = model.head.chosen(scores, these)
                answers.best[places, 0] = counts
                right = [n for n, count in zip(places, counts, strict=True) if truths[n] == count]
                answers.rank[right] = answers.rank_drawn[right] = 0
            else:
                scores = model.head.restrict(scores, these)
                _note(answers, places, scores, truths, dice)
            asked += len(places)
            if time.monotonic() - said_s >= _SAY_EVERY_S:
                run.say(f"{asked} of {len(questions)} questions asked")
                said_s = time.monotonic()
    return answers


def question_batches(
    cache: Cache, questions: Sequence[Question]
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Yield the places in `questions` of b of them, with their features float32[b, n, d].

    Each shard is opened once and read forward: a cache in a bucket costs few requests. Clips are
    padded on the right with zeros. A batch holds at most BATCH_QUESTIONS and BATCH_BYTES of
    features, but always one question. Raises KeyError, CacheError.
    """
    by_video: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(questions):
        by_video[question.video_id].append(place)
    places: list[int] = []
    clips: list[NDArray[Any]] = []
    longest = 0
    for record in cache.read(by_video):
        clip = record.features
        check_finite(record.video_id, clip)
        for place in by_video[catalog_text(record.video_id)]:
            longer = max(longest, len(clip))
            size_bytes = (len(clips) + 1) * longer * clip.shape[1] * 4
            if clips and (len(clips) >= BATCH_QUESTIONS or size_bytes > BATCH_BYTES):
                yield places, pad_clips(clips)
                places, clips, longer = [], [], len(clip)
            places.append(place)
            clips.append(clip)
            longest = longer
    if clips:
        yield places, pad_clips(clips)


def _check_heads(model: TrainedModel, questions: Sequence[Question]) -> None:
    other = next((question for question in questions if not model.head.fits(question.head)), None)
    if other is not None:
        raise UsageError(
            "the model answers in another way than these questions ask",
            got=f"question {other.question_id} of the kind {other.head}",
            expected=f"questions of the kind {model.head.kind}",
            todo="give the question files that the model is for",
        )


def _no_answers(model: TrainedModel, questions: Sequence[Question]) -> Answers:
    count, head = len(questions), model.head
    most = 1 if head.kind == COUNT else len(head.answers)
    keep = min(TOP, most or max((len(q.choices) for q in questions), default=1))
    return Answers(
        head.kind,
        questions,
        head.answers,
        np.zeros((count, keep), np.int64),
        np.zeros((count, keep)),
        np.full(count, NO_RANK),
        np.full(count, NO_RANK),
    )


def _note(
    answers: Answers,
    places: Sequence[int],
    probabilities: NDArray[np.float32],
    truths: Sequence[int | None],
    dice: np.random.Generator,
) -> None:
    """Write what float32[b, a] says of the questions at `places` into `answers`."""
    missing = answers.best.shape[1] - probabilities.shape[1]
    if missing > 0:  # all questions of the batch have fewer candidates than others
        probabilities = np.pad(probabilities, [(0, 0), (0, missing)])
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, : answers.best.shape[1]]
    answers.best[places] = order
    answers.probability[places] = np.take_along_axis(probabilities, order, axis=1)
    for place, row in zip(places, probabilities, strict=True):
        truth = truths[place]
        if truth is not None:
            # Of equals the earlier comes first.
            answers.rank[place] = (row > row[truth]).sum() + (row[:truth] == row[truth]).sum()
            drawn = dice.permutation(len(row) - 1)[:DISTRACTORS]
            drawn = drawn + (drawn >= truth)
            answers.rank_drawn[place] = (row[drawn] >= row[truth]).sum()
