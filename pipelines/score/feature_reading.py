"""Reading the features that questions are about: once per shard, whatever is broken in it.

A fault costs the questions that it concerns and no others: a damaged record those about its video,
a shard that is missing or cut short those about the videos that are not there. Each of these gets
its row, "failed" with the reason.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from framebank.features.cache import layout
from framebank.features.cache.reader import Place, check_record
from framebank.features.errors import CacheError, FramebankError
from framebank.features.stores import storage
from framebank.pipelines.score.answering import AnswerRow, AskedQuestion, Example

_RUN_BYTES = 2**25  # of neighbouring records that are read in one go
# A file's own fault. Of a bucket such an answer is about all of it, and the job fails.
_FILE_FAULTS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.EIO, errno.ESTALE)


@dataclasses.dataclass(frozen=True)
class RecordPlan:
    """Where one video's record lies, and what is asked about it."""

    place: Place
    questions: tuple[AskedQuestion, ...]

    def to_json(self) -> dict[str, Any]:
        return {"place": self.place, "questions": [asked.to_json() for asked in self.questions]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RecordPlan:
        questions = tuple(map(AskedQuestion.from_json, fields["questions"]))
        return cls(Place(*fields["place"]), questions)


def read_examples(
    cache: str, output: int, plans: Sequence[RecordPlan]
) -> Iterator[Example | AnswerRow]:
    """Yield for each question about records of one shard its example, or its row if it failed.

    Raises FramebankError where the fault is not the shard's: then the runner may try again.
    """
    path = layout.tfrecord_path(cache, plans[0].place.shard)
    for run in neighbours(plans):
        frames = _read(cache, path, run)
        if isinstance(frames, str):
            for plan in run:
                yield from _failed(output, plan, frames)
            continue
        for plan, frame in zip(run, frames, strict=True):
            yield from _examples(output, plan, frame, path)


def _read(cache: str, path: str, run: Sequence[RecordPlan]) -> list[bytes] | str:
    """Return the records' frames, or what is wrong with their shard."""
    try:
        return read_run(path, run)
    except storage.FileMissingError:
        if not storage.exists(layout.spec_path(cache)):
            raise  # nothing of the cache is on this worker
        return f"the shard {path} is missing"
    except FramebankError as error:
        if getattr(error.__cause__, "errno", None) in _FILE_FAULTS and storage.is_local(path):
            return f"{error.what}: {error.got}"
        raise


def _failed(output: int, plan: RecordPlan, reason: str) -> Iterator[AnswerRow]:
    for asked in plan.questions:
        yield AnswerRow.of(output, asked.number, asked.row("failed", reason=reason))


def _examples(
    output: int, plan: RecordPlan, frame: bytes, path: str
) -> Iterator[Example | AnswerRow]:
    try:
        features = check_record(plan.place, frame, path).features
    except CacheError as error:
        yield from _failed(output, plan, f"{error.what}: {error.got}")
        return
    if not np.isfinite(features).all():  # a network may make answers of them all the same
        place = f"record {plan.place.record} of {path}"
        yield from _failed(output, plan, f"{place}: features that are not finite")
        return
    for asked in plan.questions:
        yield Example(output, asked, features)


def neighbours(plans: Iterable[RecordPlan]) -> Iterator[list[RecordPlan]]:
    """Yield records that lie side by side in their shard, up to 32 MiB of them at a time."""
    run: list[RecordPlan] = []
    for plan in sorted(plans, key=lambda plan: plan.place.offset):
        start, end = plan.place.offset, plan.place.offset + plan.place.length
        if run:
            before = run[-1].place
            apart = start != before.offset + before.length
            if apart or end - run[0].place.offset > _RUN_BYTES:
                yield run
                run = []
        run.append(plan)
    if run:
        yield run


def read_run(path: str, run: Sequence[RecordPlan]) -> list[bytes]:
    """Return the frames of neighbouring records, read at once; shorter where the file ends."""
    first, last = run[0].place, run[-1].place
    data = storage.read_range(path, first.offset, last.offset + last.length - first.offset)
    starts = [plan.place.offset - first.offset for plan in run]
    return [
        data[start : start + plan.place.length] for start, plan in zip(starts, run, strict=True)
    ]
