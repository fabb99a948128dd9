"""Questions in, answer rows out: their features are read from the shards, then the model is asked.

What is broken costs the questions that it concerns and no others: a record those about its video, a
shard those about the videos that are not there, a question that the model chokes on itself. Each of
these gets its row, "failed" with the reason.
Dimension letters: b batch, n frames, d feature width, a answers.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.one_clip import Asked as AskedOfClip
from framebank.features.asking.one_clip import padded_groups, score_questions
from framebank.features.asking.scores import credit, is_right
from framebank.features.asking.segmenting import find_segments, row_edges, video_shares
from framebank.features.asking.trained_model import TrainedModel
from framebank.features.cache import layout
from framebank.features.cache.reader import check_record
from framebank.features.cache.record import FeatureRecord
from framebank.features.errors import CacheError, FramebankError
from framebank.features.questions.question import SEGMENTS
from framebank.features.stores import storage
from framebank.pipelines.score.plan import AnswerRow, Asked, RecordPlan
from framebank.pipelines.score.tally import NO_WORDS

_RUN_BYTES = 2**25  # of neighbouring records that are read in one go
# A file's own fault. Of a bucket such an answer is about all of it, and the job fails.
_FILE_FAULTS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.EIO, errno.ESTALE)


class Example(NamedTuple):
    """A question on its way through the model; questions about one clip share one array."""

    asked: Asked
    features: NDArray[Any]  # [n, d]
    edges_s: NDArray[np.float64] | None = None  # of each row, where segments are asked for

    @property
    def characters(self) -> int:
        question = self.asked.question
        return max(map(len, (question.question, *question.choices)))


def read_examples(cache: str, records: Iterable[RecordPlan]) -> Iterator[Example | AnswerRow]:
    """Yield for each question its example, or its row if it failed.

    Raises FramebankError where the fault is not the shard's: then the runner may try again.
    """
    for run in neighbours(records):
        path = layout.tfrecord_path(cache, run[0].place.shard)
        frames = _read(cache, path, run)
        for place, record in enumerate(run):
            found = frames if isinstance(frames, str) else _decode(record, frames[place], path)
            for asked in record.questions:
                if isinstance(found, str):
                    yield asked.row("failed", reason=found)
                elif asked.question.head == SEGMENTS:
                    edges_s = row_edges(found.pts_ms, found.source.duration_s)
                    yield Example(asked, found.features, edges_s)
                else:
                    yield Example(asked, found.features)


def _read(cache: str, path: str, run: Sequence[RecordPlan]) -> list[bytes] | str:
    """Return the records' frames, or what is wrong with their shard."""
    try:
        return read_run(path, run)
    except storage.FileMissingError:
        if not storage.exists(layout.spec_path(cache)):
            raise  # nothing of the cache is on this worker
        return f"the shard {path} is missing"
    except FramebankError as error:
        if getattr(error.__cause__, "errno", None) in _FILE_FAULTS:
            return f"{error.what}: {error.got}"
        raise


def _decode(record: RecordPlan, frame: bytes, path: str) -> FeatureRecord | str:
    """Return what the record holds, or what is wrong with it."""
    try:
        found = check_record(record.place, frame, path)
    except CacheError as error:
        return f"{error.what}: {error.got}"
    if not np.isfinite(found.features).all():  # a network may make answers of them all the same
        return f"record {record.place.record} of {path}: features that are not finite"
    return found


def neighbours(records: Iterable[RecordPlan]) -> Iterator[list[RecordPlan]]:
    """Yield records that lie side by side in one shard, up to 32 MiB of them at a time."""
    run: list[RecordPlan] = []
    for record in sorted(records, key=lambda record: (record.place.shard, record.place.offset)):
        place = record.place
        if run:
            first, before = run[0].place, run[-1].place
            apart = (place.shard, place.offset) != (before.shard, before.offset + before.length)
            if apart or place.offset + place.length - first.offset > _RUN_BYTES:
                yield run
                run = []
        run.append(record)
    if run:
        yield run


def read_run(path: str, run: Sequence[RecordPlan]) -> list[bytes]:
    """Return the frames of neighbouring records, read at once; shorter where the file ends."""
    first, last = run[0].place, run[-1].place
    data = storage.read_range(path, first.offset, last.offset + last.length - first.offset)
    starts = [record.place.offset - first.offset for record in run]
    return [
        data[start : start + record.place.length] for start, record in zip(starts, run, strict=True)
    ]


def answer_examples(
    examples: Sequence[Example], model: TrainedModel, *, top: int
) -> list[AnswerRow]:
    """Return a row for each example, in their order; a bad one costs only its own row."""
    rows: dict[int, AnswerRow] = {}
    for group in _groups(examples):
        chosen = [examples[place] for place in group]
        rows |= zip(group, _answer(chosen, model, top), strict=True)
    return [rows[place] for place in range(len(examples))]


def _answer(examples: Sequence[Example], model: TrainedModel, top: int) -> list[AnswerRow]:
    try:
        return _rows(examples, model, top)
    except Exception as error:  # noqa: BLE001 - one bad question must not fail its batch
        if len(examples) > 1:
            half = len(examples) // 2
            return _answer(examples[:half], model, top) + _answer(examples[half:], model, top)
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return [examples[0].asked.row("failed", reason=reason)]


def _rows(examples: Sequence[Example], model: TrainedModel, top: int) -> list[AnswerRow]:
    """Return the rows of examples; features are padded on the right with zeros.

    Raises ValueError for a text that is too long and for what is no answer, NotFiniteError.
    """
    if model.head.kind == SEGMENTS:
        return [_find_segments(example, model, top) for example in examples]
    questions = [example.asked.question for example in examples]
    texts = [question.question for question in questions]
    scores = score_questions(
        model,
        [
            AskedOfClip(example.features, question.question, question.choices)
            for example, question in zip(examples, questions, strict=True)
        ],
    )
    scores = model.head.restrict(scores, questions)
    rows = []
    for example, its, knows in zip(examples, scores, model.knows(texts), strict=True):
        question, reason = example.asked.question, None if knows else NO_WORDS
        answers = model.head.best(its, top=top, choices=question.choices)
        # An answer outside the vocabulary is none of these, so it counts as wrong.
        correct = None if question.answer is None else is_right(question, answers[0]["answer"])
        worth = None if correct is None else credit(question, answers[0]["answer"])
        row = example.asked.row(
            "answered", reason=reason, answers=answers, correct=correct, credit=worth
        )
        rows.append(row)
    return rows


def _find_segments(example: Example, model: TrainedModel, top: int) -> AnswerRow:
    """Return the row of a video: its labels as answers, and its segments, the surest first."""
    head, question = model.head, example.asked.question
    assert head.rule is not None and example.edges_s is not None
    shares = model.ask_video(example.features)
    answers = head.best(video_shares(shares), top=top)
    found = find_segments(shares, example.edges_s, head.answers, head.rule, video_id="")
    segments = [
        {
            "start_s": round(one.start_s, 3),
            "end_s": round(one.end_s, 3),
            "label": one.label,
            "score": round(one.score, 6),
        }
        for one in found
    ]
    correct = is_right(question, answers[0]["answer"]) if question.segments else None
    return example.asked.row("answered", answers=answers, correct=correct, segments=segments)


def _groups(batch: Sequence[Example]) -> Iterator[list[int]]:
    """Yield places of examples that are answered together."""
    yield from padded_groups(
        [len(example.features) for example in batch],
        [example.characters for example in batch],
        width=max(example.features.shape[-1] for example in batch),
    )
