"""What is asked about the videos of a cache, and what a model answered: to be shown beside them.

Questions are of question files, answers of the folder that `framebank score --out` wrote, by the id
of the question. Both are joined with the catalog by the one rule for that (`questions.videos`).
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from framebank.features.errors import CacheError, UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import LABEL, SEGMENTS, Question
from framebank.features.questions.reading import read_questions
from framebank.features.questions.videos import ClipNames
from framebank.features.stores import json_text, storage
from framebank.features.stores.parquet import open_parquet

_ANSWERS = re.compile(r"answers-\d+-of-\d+\.(jsonl|parquet)")
_BATCH_ROWS = 1000


@dataclasses.dataclass
class Asked:
    """The questions about each video, by its id; `strange` are about none of the catalog."""

    by_video: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    strange: int = 0

    def columns(self, video_ids: Sequence[str]) -> dict[str, pa.Array]:
        """Return what the questions say of each video: how many they are, its split and label
        where they have one, and how many answers were wrong where some were judged."""
        its = [self.by_video.get(video_id, ()) for video_id in video_ids]
        found = {"questions": pa.array([len(rows) for rows in its], pa.int64())}
        for name in ("split", "label"):
            values = [_joined(row.get(name) for row in rows) for rows in its]
            if any(values):
                found[name] = pa.array(values, pa.string())
        judged = [[row["correct"] for row in rows if "correct" in row] for rows in its]
        if any(judged):
            wrong = [rows.count(False) if rows else None for rows in judged]
            found["wrong"] = pa.array(wrong, pa.int64())
        return found


def _joined(values: Iterator[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(value for value in values if value)) or None


def read_asked(
    video_ids: Sequence[str], questions: QuestionFiles | None, answers: str | None
) -> Asked:
    """Return what is asked about these videos; raises UsageError, CacheError for what cannot be
    read."""
    given = _read_answers(answers) if answers is not None else {}
    found, names = Asked(), ClipNames(video_ids)
    by_video: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    if questions is not None:
        asked = read_questions(questions, keep_faulty=True)
        rows = [(question.video_id, question.aliases, _told(question, given)) for question in asked]
    else:
        rows = [(str(row["video_id"]), (), _answered(row) | _of_row(row)) for row in given.values()]
    known: dict[tuple[str, tuple[str, ...]], str | None] = {}
    for video_id, aliases, row in rows:
        key = (video_id, aliases)
        if key not in known:
            known[key] = names.find(video_id, aliases)
        if (meant := known[key]) is None:
            found.strange += 1
        else:
            by_video[meant].append(row)
    found.by_video = dict(by_video)
    return found


def _told(question: Question, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question_id": question.question_id,
        "question": question.question,
        "answer": question.answer,
        "type": question.type,
        "split": question.split,
    }
    if question.head == LABEL:
        row["label"] = question.answer
    if question.head == SEGMENTS:
        row["segments"] = [list(segment) for segment in question.segments]
    if question.choices:
        row["choices"] = list(question.choices)
    if question.fault:
        row["fault"] = question.fault
    if (answer := given.get(question.question_id)) is not None:
        row |= _answered(answer)
    return row


def _of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {"question_id": "question_id", "question": "question", "type": "type", "split": "split"}
    return {name: row.get(its) for name, its in names.items()} | {"answer": row.get("truth")}


def _answered(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the likeliest answer of a row of `score`, and whether it was right; else why there is
    none."""
    answers = row.get("answers") or []
    if not answers:
        return {"reason": row.get("reason") or row.get("status")}
    best = answers[0]
    found = {"prediction": best.get("answer"), "confidence": best.get("probability")}
    if row.get("correct") is not None:
        found["correct"] = bool(row["correct"])
    return found


def _read_answers(out: str) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a folder of answers by question_id."""
    files = [file.path for file in storage.list_files(out)]
    paths = [path for path in files if _ANSWERS.fullmatch(path.rsplit("/", 1)[-1])]
    if not paths:
        raise UsageError(
            f"there are no answers in {out}",
            expected="the folder that `framebank score --out` wrote",
        )
    return {str(row["question_id"]): row for path in paths for row in _rows(path)}


def _rows(path: str) -> Iterator[Mapping[str, Any]]:
    try:
        data = storage.read_bytes(path)
        if path.endswith(".jsonl"):
            rows: Iterator[Any] = map(json_text.parse_object, data.splitlines())
        else:
            file = open_parquet(data, page_checksum_verification=True)
            batches = file.iter_batches(_BATCH_ROWS)
            rows = (row for batch in batches for row in batch.to_pylist())
        for row in rows:
            if "question_id" not in row or "video_id" not in row:
                raise ValueError("a row without question_id or video_id")
            yield row
    except (ValueError, OSError, pa.ArrowException) as err:
        todo = "run `framebank score` again: it does what is missing or damaged anew"
        raise CacheError(f"{path} is damaged", got=err, todo=todo) from err
