"""What a scoring job has to do: questions joined with the catalog and dealt into answers files.

Made where the job is submitted, from the catalog alone: no feature is read for it. The plan of a
file travels through OUT as JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from framebank.features.asking.heads import OPEN_HEAD, Head
from framebank.features.cache.reader import Cache, Place
from framebank.features.questions.question import SEGMENTS, Question, about, with_split
from framebank.features.questions.seen_videos import Seen
from framebank.features.questions.splits import SplitRule, deal_splits, deal_to_ask
from framebank.features.questions.videos import ClipNames, find_videos

_WANTS = {
    "open": "an open answer",
    "label": "a label",
    "yes_no": "yes or no",
    "choice": "one of its candidates",
    "count": "a number",
    "segments": "segments",
}
_COLUMNS = (*Place._fields, "state", "stage", "error_class", "message", "content_sha256")

_Row = dict[str, Any]  # of the catalog, by column
AnswerRow = tuple[int, dict[str, Any]]  # (place in the question file, row of an answers file)


class Asked(NamedTuple):
    """A question and its place in the question file."""

    number: int
    question: Question

    def row(
        self,
        status: str,
        *,
        reason: str | None = None,
        answers: Sequence[dict[str, Any]] = (),
        correct: bool | None = None,
        credit: float | None = None,
        segments: Sequence[dict[str, Any]] = (),
    ) -> AnswerRow:
        """Return the answer row of the question; `credit` is what the answer is worth where several
        people gave theirs. A question for segments has these, and the true ones."""
        more: dict[str, Any] = {} if credit is None else {"vqa_accuracy": credit}
        if self.question.head == SEGMENTS:
            fields = ("start_s", "end_s", "label")
            true = [dict(zip(fields, one, strict=True)) for one in self.question.segments]
            known = None if self.question.answer is None else true
            more |= {"segments": list(segments), "true_segments": known}
        return self.number, {
            "video_id": self.question.video_id,
            "question_id": self.question.question_id,
            "question": self.question.question,
            "type": self.question.kind,
            "split": self.question.split,
            "status": status,
            "reason": reason,
            "answers": list(answers),
            "truth": self.question.answer,
            "correct": correct,
        } | more

    def to_json(self) -> dict[str, Any]:
        question = self.question
        more = {name: getattr(question, name) for name in ("given", "segments")}
        return {
            "number": self.number,
            "question_id": question.question_id,
            "video_id": question.video_id,
            "question": question.question,
            "kind": question.kind,
            "truth": question.answer,
            "split": question.split,
            "head": question.head,
            "choices": question.choices,
            "right": question.right,
        } | {name: its for name, its in more.items() if its}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Asked:
        names = {"kind": "type", "truth": "answer"}
        about = {names.get(name, name): value for name, value in fields.items()}
        about |= {name: tuple(about.get(name, ())) for name in ("choices", "given")}
        about["segments"] = tuple(map(tuple, about.get("segments", ())))
        return cls(about.pop("number"), Question(**about))


@dataclasses.dataclass(frozen=True)
class RecordPlan:
    """Where one video's record lies, and what is asked about it."""

    place: Place
    questions: tuple[Asked, ...]


@dataclasses.dataclass(frozen=True)
class FilePlan:
    """What one answers file is made from: records to read, by shard and place in it, and rows that
    need no features."""

    output: int
    records: list[RecordPlan]
    settled: list[AnswerRow]

    @property
    def answerable(self) -> int:
        return sum(len(record.questions) for record in self.records)

    def question_ids(self) -> list[str]:
        """Return whose rows the file holds, in order."""
        asked = (one for record in self.records for one in record.questions)
        ids = {number: question.question_id for number, question in asked}
        ids |= {number: row["question_id"] for number, row in self.settled}
        return [ids[number] for number in sorted(ids)]

    def to_json(self) -> bytes:
        records = [
            {"place": record.place, "questions": [asked.to_json() for asked in record.questions]}
            for record in self.records
        ]
        return json.dumps({"records": records, "settled": self.settled}).encode()

    @classmethod
    def from_json(cls, output: int, fields: dict[str, Any]) -> FilePlan:
        records = [
            RecordPlan(Place(*one["place"]), tuple(map(Asked.from_json, one["questions"])))
            for one in fields["records"]
        ]
        return cls(output, records, [(number, row) for number, row in fields["settled"]])


@dataclasses.dataclass(frozen=True)
class ScorePlan:
    """What goes into each answers file.

    `missing` maps the videos that the cache does not have to what may have been meant, "" where
    nothing comes near; `note` says what became of test questions about videos that the model has
    seen, "" where there are none.
    """

    files: list[FilePlan]
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def answerable(self) -> int:
        """How many questions are about a video whose features are there."""
        return sum(file.answerable for file in self.files)

    @property
    def other_kinds(self) -> int:
        """How many questions want another kind of answer than the model gives."""
        return sum(row["status"] == "other_kind" for file in self.files for _, row in file.settled)

    def take(self, output: int) -> bytes:
        """Return the plan of one file as JSON, and free what it takes: of a million questions it is
        hundreds of MiB."""
        data = self.files[output].to_json()
        self.files[output] = FilePlan(output, [], [])
        return data

    def digest(self) -> str:
        """Return a hash of all that the answers follow from, but for the model."""
        whole = hashlib.sha256()
        for file in self.files:
            whole.update(file.to_json() + b"\n")
        return whole.hexdigest()


def plan_scoring(
    questions: Sequence[Question],
    cache: Cache,
    *,
    per_file: int,
    head: Head = OPEN_HEAD,
    rule: SplitRule | None = None,
    seen: Seen | None = None,
    as_trained: bool = False,
) -> ScorePlan:
    """Join the questions with the cache and deal them into files, a video's all into one.

    A question that wants another kind of answer than a model of `head` gives is settled without
    one, and so is a row with a fault. `rule` is by which the model's training dealt questions
    without a split, `seen` what the model has seen; without both they stay without one.
    `as_trained` says that the model was trained on these files.
    """
    questions, rows, names = _look_up(questions, cache)
    questions, note = _deal_splits(questions, rows, rule, seen, as_trained)
    asked: dict[str, list[Asked]] = {}
    settled: list[AnswerRow] = []
    missing: dict[str, str] = {}
    for number, question in enumerate(questions):
        one, row = Asked(number, question), rows.get(question.video_id)
        if question.fault is not None:
            settled.append(one.row("not_a_question", reason=question.fault))
        elif not head.fits(question.head):
            reason = f"it wants {_WANTS[question.head]}, the model gives {_WANTS[head.kind]}"
            settled.append(one.row("other_kind", reason=reason))
        elif row is None:
            if question.video_id not in missing:
                missing[question.video_id] = names.hint(question.video_id, question.aliases)
            hint = missing[question.video_id]
            reason = "no such video in the cache" + (f"; {hint}" if hint else "")
            settled.append(one.row("not_in_cache", reason=reason))
        elif row["state"] != "done":
            reason = f"{row['error_class']} at {row['stage']}: {row['message']}"
            settled.append(one.row("quarantined", reason=reason))
        else:
            asked.setdefault(question.video_id, []).append(one)
    records = [
        RecordPlan(Place(*(rows[video_id][name] for name in Place._fields)), tuple(its))
        for video_id, its in asked.items()
    ]
    records.sort(key=lambda record: (record.place.shard, record.place.offset))
    return ScorePlan(_deal(records, settled, per_file), missing, note)


def _look_up(
    questions: Sequence[Question], cache: Cache
) -> tuple[list[Question], dict[str, _Row], ClipNames]:
    """Return the questions, each with its clip's id where it has one, the newest catalog rows of
    these clips by id, and the names of all clips."""
    import pyarrow as pa

    table = cache.table(list(_COLUMNS))
    places = {name: row for row, name in enumerate(table.column("video_id").to_pylist())}
    names = ClipNames(places)
    pairs = zip(questions, find_videos(questions, names), strict=True)
    matched = [question if name is None else about(question, name) for question, name in pairs]
    ids = dict.fromkeys(question.video_id for question in matched)
    asked_about = [places[name] for name in ids if name in places]
    taken = table.take(pa.array(asked_about, pa.int64())).to_pylist()  # typed: there may be none
    return matched, {row["video_id"]: row for row in taken}, names


def _deal_splits(
    questions: list[Question],
    rows: Mapping[str, _Row],
    rule: SplitRule | None,
    seen: Seen | None,
    as_trained: bool,
) -> tuple[list[Question], str]:
    """Return the questions with splits, and a note where the model has seen what is called test.

    Those with answer and features are dealt as in training, the others follow their video.
    """
    if rule is None and seen is None:
        return questions, ""
    usable = {
        number: question
        for number, question in enumerate(questions)
        if question.answer is not None
        and question.fault is None
        and rows.get(question.video_id, {}).get("state") == "done"
    }
    asked, rule = list(usable.values()), rule or SplitRule(val_share=0)
    note = ""
    if seen is None:
        dealt, _ = deal_splits(asked, rule)
    else:
        hashes = {name: row["content_sha256"] for name, row in rows.items()}
        contents = {name: content for name, content in hashes.items() if content}

        def by_content(question: Question) -> bool:
            return seen.has(question.video_id, contents, group=question.group)

        def by_id(question: Question) -> bool:
            return seen.has(question.video_id, {}, group=question.group)

        has_seen = by_id if as_trained else by_content
        dealt, _, changed = deal_to_ask(asked, rule, has_seen)
        note = _seen_note(dealt, by_content, changed=changed)
    by_number = dict(zip(usable, dealt, strict=True))
    by_video = {question.video_id: question.split or "" for question in dealt}

    def follow(question: Question) -> Question:
        split = by_video.get(question.video_id)
        return with_split(question, split) if split and question.split is None else question

    return [by_number.get(n) or follow(question) for n, question in enumerate(questions)], note


def _seen_note(
    dealt: Sequence[Question], has_seen: Callable[[Question], bool], *, changed: bool
) -> str:
    tests = [question for question in dealt if question.split == "test"]
    if changed and not tests:
        return "the model has seen all of these videos, whatever the files call them"
    if changed:
        note = "the model has seen what the files call test, or they call nothing so"
        return f"{note}: here test is all that it has not seen"
    known = sum(map(has_seen, tests))
    about = f"{known} of the {len(tests)} test questions are about videos that the model has seen"
    return f"{about}, so the figures flatter" if known else ""


def _deal(records: list[RecordPlan], settled: list[AnswerRow], per_file: int) -> list[FilePlan]:
    """Return the files, one at least; rows that need no features are in the last ones."""
    files, count = [FilePlan(0, [], [])], 0
    for record in records:
        if count >= per_file:
            files.append(FilePlan(len(files), [], []))
            count = 0
        files[-1].records.append(record)
        count += len(record.questions)
    if count + len(settled) <= per_file:
        files[-1].settled.extend(settled)
        return files
    if not records:
        files.clear()
    for start in range(0, len(settled), per_file):
        files.append(FilePlan(len(files), [], settled[start : start + per_file]))
    return files
