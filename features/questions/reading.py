"""Reading question files: of a known set or plain, several at once, joined with their answers.

What a set publishes in two files (the questions and answers of ActivityNet-QA and of VQA) is joined
by question id.
A row that cannot be a question is listed, and `read_questions` refuses its file, or keeps it as a
question with a fault.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.questions.files import EXPECTED, QuestionFiles, Row, read_rows
from framebank.features.questions.image_questions import make_image_question
from framebank.features.questions.known_sets import (
    ANSWER_COLUMNS,
    LABELS,
    SEGMENT_SETS,
    SETS,
    VQA,
    find_set,
    is_answers,
)
from framebank.features.questions.parsing import (
    VIDEO_COLUMNS,
    faulty_question,
    id_text,
    join_segments,
    make_question,
    text,
)
from framebank.features.questions.question import Question
from framebank.features.questions.splits import join_files
from framebank.features.questions.videos import map_videos

_PEEKED = 100
_OF_BOTH = ("image_id", "data_subtype")  # what VQA says with the question and with its answer

Refused = tuple[str, str, UsageError]  # the file of a row, where it stands, what is wrong with it


@dataclasses.dataclass
class QuestionFile:
    """The questions of one file, and where each stands in it; `refused` are rows that are none.

    `copies` maps places in `questions` to the id that another question about that video has too.
    """

    path: str
    set_name: str
    questions: list[Question]
    places: list[str]
    refused: list[Refused]
    copies: dict[int, str] = dataclasses.field(default_factory=dict)


def read_questions(
    wanted: QuestionFiles, *, to_train: bool = False, keep_faulty: bool = False
) -> list[Question]:
    """Return the questions of all files, with the splits of their names (`splits.join_files`).

    Raises UsageError for a file that is missing, broken or empty, and for a row that cannot be a
    question. With `keep_faulty` such rows stay in their places, unless a file has no others; an
    answer that belongs to no question is refused all the same.
    """
    files = read_question_files(wanted, keep_faulty=keep_faulty)
    for file in files:
        usable = keep_faulty and not all(question.fault for question in file.questions)
        refused = [error for path, _, error in file.refused if not usable or path != file.path]
        if refused:
            first = refused[0]
            todo = [first.todo] if first.todo else []
            if len(refused) > 1:
                todo.append(f"{len(refused)} rows cannot be used: `framebank questions` lists them")
            said = "; ".join(todo) or None
            raise UsageError(first.what, got=first.got, expected=first.expected, todo=said)
    return join_files([(file.path, file.questions) for file in files], to_train=to_train)


def read_question_files(wanted: QuestionFiles, *, keep_faulty: bool = False) -> list[QuestionFile]:
    """Read question files with the odd rows of each, in the order given.

    Question ids are unique in all of them together. Rows that cannot be questions are among them
    with `keep_faulty` alone. Files of answers are joined to the questions they belong to and give
    no item of their own.
    """
    opened = [_open(path, wanted.set_name) for path in wanted.paths]
    answers = _Answers()
    for path, name, rows, only_answers in opened:
        if only_answers:
            answers.add(path, name, rows)
    files = [
        _read_file(path, name, rows, answers, keep_faulty=keep_faulty)
        for path, name, rows, only_answers in opened
        if not only_answers
    ]
    if not files:
        raise UsageError(
            f"{wanted.paths[0]} holds answers without their questions",
            expected="both files of a split, as val_q.json val_a.json",
        )
    files[0].refused += answers.left_over()
    _make_ids_unique(files)
    if wanted.mapping is not None:
        map_videos([file.questions for file in files], wanted.mapping)
    return files


def _open(path: str, set_name: str | None) -> tuple[str, str, Iterator[Row], bool]:
    """Return (path, set, its rows, whether they are answers only), all seen from its content."""
    rows = read_rows(path)
    first = list(itertools.islice(rows, _PEEKED))
    if not first:
        raise UsageError(f"{path} holds no questions", expected=EXPECTED)
    read = [fields for _, fields in first if not isinstance(fields, UsageError)]
    if not read and isinstance(first[0][1], UsageError):
        raise first[0][1]
    # All columns that rows have, as the header of a CSV file has them: one of JSON may leave some.
    fields = {column: cell for row in reversed(read) for column, cell in row.items()}
    name = set_name or find_set(fields)
    only_answers = name in ANSWER_COLUMNS and is_answers(fields)
    _check_columns(path, name, list(fields), only_answers=only_answers)
    return path, name, itertools.chain(first, rows), only_answers


def _check_columns(path: str, name: str, columns: list[str], *, only_answers: bool) -> None:
    got = "columns " + (", ".join(columns) or "none")
    if name not in SETS:
        asked = "label" if name in (LABELS, *SEGMENT_SETS) else "question"
        for what, names in ((asked, (asked,)), ("video", VIDEO_COLUMNS)):
            if not set(names) & set(columns):
                raise UsageError(f"{path} has no {what} column", got=got, expected=EXPECTED)
        return
    wanted = ANSWER_COLUMNS[name] if only_answers else SETS[name].columns
    if not set(wanted) <= set(columns):
        raise UsageError(
            f"{path} is not a file of {SETS[name].title}",
            got=got,
            expected="columns " + ", ".join(wanted),
            todo="leave --format out: the content tells the format",
        )


class _Answers:
    """Answers that stand apart from their questions, by question id."""

    def __init__(self) -> None:
        self._columns: dict[str, None] = {}
        self._rows: dict[str, tuple[str, str, Mapping[str, Any]]] = {}
        self._used: set[str] = set()
        self._refused: list[Refused] = []

    def add(self, path: str, name: str, rows: Iterable[Row]) -> None:
        self._columns |= dict.fromkeys(ANSWER_COLUMNS[name][1:])
        for where, fields in rows:
            if isinstance(fields, UsageError):
                self._refused.append((path, where, fields))
                continue
            question_id = id_text(fields.get("question_id"))
            if not question_id or question_id in self._rows:
                self._refuse(path, where, "has an answer whose question_id is not its own", fields)
            else:
                self._rows[question_id] = (path, where, fields)

    def of(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer to a question, {} where there is none; raises UsageError for one that
        is about something else."""
        question_id = id_text(fields.get("question_id"))
        if question_id not in self._rows:
            return {}
        self._used.add(question_id)
        path, where, given = self._rows[question_id]
        for name in _OF_BOTH:
            here, there = text(fields.get(name)), text(given.get(name))
            if here and there and here.lstrip("0") != there.lstrip("0"):  # of COCO's 12 digits
                raise UsageError(
                    f"{path} has an answer about another picture than its question",
                    got=f"{name} {there} of question_id {question_id!r} in {where}",
                    expected=f"{here}, as the question has it",
                    todo="give the annotations that were published with these questions",
                )
        return {name: given.get(name) for name in self._columns}

    def left_over(self) -> list[Refused]:
        """Return the refused rows of all files of answers, once the questions have been read."""
        for question_id, (path, where, fields) in self._rows.items():
            if question_id not in self._used:
                self._refuse(path, where, "has an answer to no question", fields)
        return self._refused

    def _refuse(self, path: str, where: str, what: str, fields: Mapping[str, Any]) -> None:
        got = f"question_id {id_text(fields.get('question_id'))!r} in {where}"
        expected = "one answer for each question of the files given"
        error = UsageError(f"{path} {what}", got=got, expected=expected)
        self._refused.append((path, where, error))


def _read_file(
    path: str, name: str, rows: Iterable[Row], answers: _Answers, *, keep_faulty: bool
) -> QuestionFile:
    file = QuestionFile(path, name, [], [], [])
    for where, fields in rows:
        try:
            if isinstance(fields, UsageError):
                raise fields
            if name in ANSWER_COLUMNS:
                fields = {**fields, **answers.of(fields)}
            make = make_image_question if name in VQA else make_question
            question = make(path, where, fields, set_name=name)
        except UsageError as error:
            file.refused.append((path, where, error.with_traceback(None)))
            if not keep_faulty:
                continue
            read = {} if isinstance(fields, UsageError) else fields
            question = faulty_question(read, f"{error.what}: {error.got}")
        file.questions.append(question)
        file.places.append(where)
    return _by_video(file) if name in SEGMENT_SETS else file


def _by_video(file: QuestionFile) -> QuestionFile:
    """Return the file with one question for all rows of a video, where the first of them was; rows
    with a fault stay by themselves."""
    rows: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(file.questions):
        rows[question.video_id if question.fault is None else f"\0{place}"].append(place)
    joined = QuestionFile(file.path, file.set_name, [], [], file.refused)
    for places in rows.values():
        its, where = [file.questions[place] for place in places], file.places[places[0]]
        if its[0].fault is None:
            try:
                its = [join_segments(its)]
            except ValueError as err:
                error = UsageError(
                    f"{file.path} has a video that is for several things",
                    got=f"{err} of {its[0].video_id!r}, first in {where}",
                    expected="one split, and one group, for all segments of a video",
                )
                file.refused.append((file.path, where, error))
                continue
        joined.questions.append(its[0])
        joined.places.append(where)
    return joined


def _make_ids_unique(files: Sequence[QuestionFile]) -> None:
    """Give the questions of all files together ids that are unique.

    One that a single row gives stays. One that several share (NExT-QA's count within a video) gets
    the video before it, and the row's number (from 1) behind it where it is still not alone; a row
    without one gets that number. Whatever is made differs from every id that is given.
    """
    given = collections.Counter(
        question.question_id for file in files for question in file.questions
    )
    if len(given) == given.total() and "" not in given:  # most files
        return
    rows = [(file, place) for file in files for place in range(len(file.questions))]
    made = {
        number: question.question_id and f"{question.video_id}:{question.question_id}"
        for number, (file, place) in enumerate(rows)
        if given[(question := file.questions[place]).question_id] > 1 or not question.question_id
    }
    counts = collections.Counter(made.values())
    taken = set(given)
    for number, name in made.items():
        file, place = rows[number]
        question = file.questions[place]
        if name and counts[name] > 1:
            file.copies[place] = question.question_id
        new = name
        if not name or counts[name] > 1 or name in taken:
            new = f"{name}#{number + 1}" if name else str(number + 1)
            while new in taken or counts[new]:
                new = f"{new}#" if name else f"#{new}"
        taken.add(new)
        file.questions[place] = dataclasses.replace(question, question_id=new)
