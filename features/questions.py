"""Question files: reading them, and matching their rows to the videos of a cache.

Reads `.csv` / `.tsv` (comma, semicolon or tab, seen from the header), `.jsonl` and `.json` (a list
of objects, among them MSVD-QA's published files). A row has a video, a question, and optionally
answer, split, type and an id. A row's video is "video" (or the names that published sets use) if
that column is there, else "video_id"; MSVD-QA's integer ids stand for "vid<N>".
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from features.errors import UsageError
from features.question_files import EXPECTED, Row, read_rows

VIDEO_COLUMNS = ("video", "gif_name", "video_name", "video_id")
ID_COLUMNS = ("question_id", "id", "qid")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
QUESTION_WORDS = ("what", "who", "how", "when", "where", "which", "why", "is", "are", "does", "do")


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about one video; `answer` is None where it is not known.

    `split` is "train", "val", "test" or None; `type` is the file's own, as text.
    """

    question_id: str
    video_id: str
    question: str
    answer: str | None = None
    split: str | None = None
    type: str | None = None

    @property
    def kind(self) -> str:
        """Return the type to report under: the file's own, else the question's first word."""
        if self.type is not None:
            return self.type
        words = self.question.split(maxsplit=1)
        word = words[0].lower().strip("?!.,:;¿¡\"'") if words else ""
        return word if word in QUESTION_WORDS else "other"


def read_questions(path: str) -> list[Question]:
    """Read the question file at `path`; raises UsageError when it is missing, broken or empty."""
    rows = list(read_rows(path))
    if not rows:
        raise UsageError(f"{path} holds no questions", expected=EXPECTED)
    _check_columns(path, rows)
    questions = [_question(path, where, fields) for where, fields in rows]
    return _with_unique_ids(questions)


def require_answers(questions: Sequence[Question], path: str) -> list[Question]:
    """Return the questions that have an answer; raises UsageError when none has."""
    answered = [question for question in questions if question.answer is not None]
    if not answered:
        raise UsageError(
            f"{path} has no answers to train on",
            got=f"{len(questions)} questions, none with an answer",
            expected='a column "answer"',
            todo="join the answers into the file first; files without them can only be scored",
        )
    return answered


def join_questions(
    questions: Iterable[Question], video_ids: Iterable[str]
) -> tuple[list[Question], list[Question]]:
    """Match questions to `video_ids`; return (matched, with the cache's video_id; unmatched).

    A question's video matches an id exactly, else the one id that has the same path without
    suffix, or the same file name with or without suffix; an integer N also stands for "vid<N>".
    """
    exact = set(video_ids)
    by_name: dict[str, str | None] = {}
    for video_id in exact:
        for name in _names(video_id):
            by_name[name] = video_id if by_name.get(name, video_id) == video_id else None
    found: dict[str, str | None] = {}
    matched: list[Question] = []
    unmatched: list[Question] = []
    for question in questions:
        wanted = question.video_id
        if wanted not in found:
            found[wanted] = _match(wanted, exact, by_name)
        match = found[wanted]
        if match is None:
            unmatched.append(question)
        else:
            matched.append(dataclasses.replace(question, video_id=match))
    return matched, unmatched


def _match(wanted: str, exact: set[str], by_name: Mapping[str, str | None]) -> str | None:
    wishes = [wanted, f"vid{wanted}"] if wanted.isdecimal() else [wanted]
    for wish in wishes:
        if wish in exact:
            return wish
    for wish in wishes:
        for name in _names(wish):
            video_id = by_name.get(name)
            if video_id is not None:
                return video_id
    return None


def _names(video_id: str) -> list[str]:
    """Return the other names of a video, the most telling first."""
    path = PurePosixPath(video_id)
    names = [video_id, str(path.with_suffix("")) if path.name else video_id, path.name, path.stem]
    return list(dict.fromkeys(name for name in names if name))


def _check_columns(path: str, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(name for _, fields in rows[:100] for name in fields))
    for what, names in (("question", ("question",)), ("video", VIDEO_COLUMNS)):
        if not set(names) & set(columns):
            raise UsageError(
                f"{path} has no {what} column",
                got="columns " + (", ".join(columns) or "none"),
                expected=EXPECTED,
            )


def _question(path: str, where: str, fields: Mapping[str, Any]) -> Question:
    for name in (*VIDEO_COLUMNS, *ID_COLUMNS, "question", "answer", "split", "type"):
        if isinstance(fields.get(name), list | dict):
            raise UsageError(
                f"{path} has a row with something else than text",
                got=f"{name} {fields[name]!r:.60} in {where}",
                expected="text or a number; several answers are as many rows",
            )
    video = next((_text(fields[name]) for name in VIDEO_COLUMNS if _text(fields.get(name))), "")
    question = _text(fields.get("question"))
    if not video or not question:
        missing = "video" if not video else "question"
        raise UsageError(f"{path} has a row without a {missing}", got=where, expected=EXPECTED)
    return Question(
        question_id=next((_text(fields[name]) for name in ID_COLUMNS if name in fields), ""),
        video_id=video,
        question=question,
        answer=_answer(path, where, fields),
        split=_split(path, where, fields),
        type=_text(fields.get("type")) or None,
    )


def _text(value: Any) -> str:
    """Return a cell as text with single spaces; numbers as they are written, nothing as ""."""
    if value is None or value != value:  # NaN, which is how pandas writes an empty cell
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split())


def _answer(path: str, where: str, fields: Mapping[str, Any]) -> str | None:
    answer = _text(fields.get("answer")) or None
    names = sorted(name for name in fields if re.fullmatch(r"a[0-9]", name))
    choices = [_text(fields[name]) for name in names]
    if answer is None or len(choices) < 2:
        return answer
    # NExT-QA names its choices a0…a4, TGIF-QA a1…a5; both count the answer from 0.
    if answer.isdecimal() and int(answer) < len(choices):
        return choices[int(answer)] or None
    if answer in choices:
        return answer
    raise UsageError(
        f"{path} has an answer that is none of its choices",
        got=f"{answer!r} in {where}",
        expected=f"0 to {len(choices) - 1}, for {', '.join(names)}",
    )


def _split(path: str, where: str, fields: Mapping[str, Any]) -> str | None:
    name = _text(fields.get("split")).lower()
    if not name:
        return None
    if name not in SPLIT_NAMES:
        raise UsageError(
            f"{path} has a split that is not known",
            got=f"{name!r} in {where}",
            expected="train, val or test",
        )
    return SPLIT_NAMES[name]


def _with_unique_ids(questions: Sequence[Question]) -> list[Question]:
    """Return the questions with ids that are unique in the file.

    An id that several rows share (NExT-QA's count within a video) gets the video before it; a row
    without one, or still not alone, gets its number in the file (from 1).
    """
    counts = collections.Counter(question.question_id for question in questions)
    named = [
        f"{question.video_id}:{question.question_id}"
        if question.question_id and counts[question.question_id] > 1
        else question.question_id
        for question in questions
    ]
    counts = collections.Counter(named)
    unique = []
    for number, (question, name) in enumerate(zip(questions, named, strict=True), start=1):
        if not name or counts[name] > 1:
            name = f"{name}#{number}" if name else str(number)
        unique.append(dataclasses.replace(question, question_id=name))
    return unique
