"""What a scoring job has to do: questions joined with the catalog and dealt into answers files.

Made where the job is submitted, from the catalog alone: no feature is read for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from features.cache import Cache, Place
from features.questions import Question, join_questions
from pipelines.answering import AskedQuestion
from pipelines.feature_reading import RecordPlan

_HEADS = {"yes_no": "open"}
_WANTS = {
    "open": "an open answer",
    "yes_no": "yes or no",
    "choice": "one of its candidates",
    "count": "a number",
}
_COLUMNS = (*Place._fields, "state", "stage", "error_class", "message")


@dataclasses.dataclass(frozen=True)
class ScorePlan:
    """What goes into each answers file: records to read, and rows that need no features."""

    records: list[list[RecordPlan]]
    settled: list[list[tuple[int, dict[str, Any]]]]

    @property
    def outputs(self) -> int:
        return len(self.records)

    @property
    def answerable(self) -> int:
        """How many questions are about a video whose features are there."""
        return sum(len(record.questions) for file in self.records for record in file)

    @property
    def other_kinds(self) -> int:
        """How many questions want another kind of answer than the model gives."""
        return sum(row["status"] == "other_kind" for file in self.settled for _, row in file)

    def question_ids(self, output: int) -> list[str]:
        """Return whose rows one file holds, in order."""
        ids = {
            asked.number: asked.question_id
            for record in self.records[output]
            for asked in record.questions
        }
        ids |= {number: row["question_id"] for number, row in self.settled[output]}
        return [ids[number] for number in sorted(ids)]

    def text(self, output: int) -> bytes:
        """Return as JSON what one answers file is made from."""
        records = [record.to_json() for record in self.records[output]]
        return json.dumps({"records": records, "settled": self.settled[output]}).encode()

    def forget(self, output: int) -> None:
        """Free the memory that one file takes: of a million questions it is hundreds of MiB."""
        self.records[output], self.settled[output] = [], []

    def digest(self) -> str:
        """Return a hash of all that the answers follow from, but for the model."""
        whole = hashlib.sha256()
        for output in range(self.outputs):
            whole.update(self.text(output) + b"\n")
        return whole.hexdigest()


def plan_scoring(
    questions: Sequence[Question], cache: Cache, *, per_file: int, head: str = "open"
) -> ScorePlan:
    """Join the questions with the cache and deal them into files, a video's all into one.

    A question that wants another kind of answer than a model of `head` gives is settled without
    one, and so is a row with a fault.
    """
    table = cache.table(list(_COLUMNS))
    places = {name: row for row, name in enumerate(table.column("video_id").to_pylist())}
    matched, _ = join_questions(questions, places)
    known = {question.question_id: question.video_id for question in matched}
    asked_about = [places[name] for name in dict.fromkeys(known.values())]
    rows = {row["video_id"]: row for row in table.take(asked_about).to_pylist()}
    asked: dict[str, list[AskedQuestion]] = {}
    settled: list[tuple[int, dict[str, Any]]] = []
    for number, question in enumerate(questions):
        one = _asked(number, question, known.get(question.question_id))
        row = rows.get(known.get(question.question_id, ""))
        if question.fault is not None:
            settled.append((number, one.row("not_a_question", reason=question.fault)))
        elif _HEADS.get(question.head, question.head) != head:
            reason = f"it wants {_WANTS[question.head]}, the model gives {_WANTS[head]}"
            settled.append((number, one.row("other_kind", reason=reason)))
        elif row is None:
            settled.append((number, one.row("not_in_cache", reason="no such video in the cache")))
        elif row["state"] != "done":
            reason = f"{row['error_class']} at {row['stage']}: {row['message']}"
            settled.append((number, one.row("quarantined", reason=reason)))
        else:
            asked.setdefault(row["video_id"], []).append(one)
    records = [
        RecordPlan(Place(*(rows[video_id][name] for name in Place._fields)), tuple(its))
        for video_id, its in asked.items()
    ]
    records.sort(key=lambda record: (record.place.shard, record.place.offset))
    return _deal(records, settled, per_file)


def _asked(number: int, question: Question, video_id: str | None) -> AskedQuestion:
    return AskedQuestion(
        number=number,
        question_id=question.question_id,
        video_id=video_id or question.video_id,
        question=question.question,
        kind=question.kind,
        truth=question.answer,
        split=question.split,
        head=question.head,
        choices=question.choices,
        right=question.right,
    )


def _deal(
    records: list[RecordPlan], settled: list[tuple[int, dict[str, Any]]], per_file: int
) -> ScorePlan:
    files: list[list[RecordPlan]] = [[]]
    count = 0
    for record in records:
        if count >= per_file:
            files.append([])
            count = 0
        files[-1].append(record)
        count += len(record.questions)
    spare = list(_chunks(settled, per_file)) or [[]]
    if not records:  # none of the questions is about a video that is done
        return ScorePlan([[] for _ in spare], spare)
    if not settled:
        return ScorePlan(files, [[] for _ in files])
    # Rows without features come last, in files of their own, unless they fit into the last one.
    if len(spare) == 1 and count + len(spare[0]) <= per_file:
        return ScorePlan(files, [*([] for _ in files[1:]), spare[0]])
    return ScorePlan([*files, *([] for _ in spare)], [*([] for _ in files), *spare])


def _chunks(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
