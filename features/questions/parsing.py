"""A row of a question file becomes a `Question`, by the rules of its set.

Ids are taken as they are, white space and all; other texts have single spaces. Nothing, an empty
cell and white space are the same, and so are true and "true", a list of choices and its JSON text.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from framebank.features.errors import UsageError
from framebank.features.questions.files import EXPECTED, NOTHING, RepeatedNames, load_json
from framebank.features.questions.known_sets import ACTIVITYNET, LABELS, PLAIN, SEGMENT_SETS, SETS
from framebank.features.questions.question import HEADS, LABEL, SEGMENTS, YES_NO, Question
from framebank.features.questions.splits import SPLIT_NAMES

VIDEO_COLUMNS = ("video", "gif_name", "video_name", "video_id")
ID_COLUMNS = ("question_id", "id", "qid")
_TEXTS = (
    *VIDEO_COLUMNS, *ID_COLUMNS, "question", "answer", "label", "split", "type", "head", "group",
    "start_s", "end_s", "subset",
)  # fmt: skip
_MOST_CHOICES = 100
_MOST_COUNT = 2**24  # to which float32, in which counts are learnt, holds whole numbers
_TRUTHS = {"true": "yes", "false": "no"}
_COMPOUND = frozenset((list, dict, RepeatedNames)).__contains__


class _Row(NamedTuple):
    path: str
    where: str
    fields: Mapping[str, Any]
    set_name: str

    def text(self, name: str) -> str:
        return text(self.fields.get(name))

    def fault(self, what: str, got: str, expected: str) -> UsageError:
        return UsageError(
            f"{self.path} has {what}", got=f"{got} in {self.where}", expected=expected
        )


def make_question(path: str, where: str, fields: Mapping[str, Any], *, set_name: str) -> Question:
    """Return the question of one row; raises UsageError for a row that cannot be one."""
    row = _Row(path, where, fields, set_name)
    if any(map(_COMPOUND, map(type, fields.values()))):
        _check_texts(row)
    known = SETS.get(set_name)
    video_columns = VIDEO_COLUMNS if known is None else (known.video,)
    id_columns = ID_COLUMNS if known is None else (known.question_id,)
    video = _first_id(fields, video_columns)
    labels = set_name == LABELS
    unasked = labels or set_name in SEGMENT_SETS
    question = "" if unasked else text(fields.get("question"))
    if not video or not (question or unasked):
        missing = "video" if not video else "question"
        raise UsageError(f"{path} has a row without a {missing}", got=where, expected=EXPECTED)
    if labels:
        return Question(
            question_id=_first_id(fields, id_columns),
            video_id=sys.intern(video),
            question="",
            answer=sys.intern(text(fields.get("label"))) or None,
            split=_split(row),
            head=LABEL,
            group=_group(row),
        )
    if unasked:
        return _segment(row, video)
    choices = _choices(row)
    answer = text(fields.get("answer")) or None
    if not choices or all(map(_as_truth, choices)):
        # CSV writes true and false where JSON has what is read as yes and no.
        choices = tuple(_as_truth(choice) or choice for choice in choices)
        answer = answer and (_as_truth(answer) or answer)
    right = None
    if answer is not None and choices:
        if set_name == PLAIN:
            _check_clear(row, choices)
        right = _right(row, answer, choices)
    head = _head(row, answer, choices)
    if head == "count" and answer is not None:
        _check_number(row, answer)
    return Question(
        question_id=_first_id(fields, id_columns),
        video_id=sys.intern(video),  # the texts that a million rows share are kept once
        question=question,
        answer=choices[right] if right is not None else answer and sys.intern(answer),
        split=_split(row),
        type=_type(row),
        head=head,
        choices=choices,
        right=right,
        aliases=(known.alias.format(video),) if known is not None and known.alias else (),
        group=_group(row),
    )


def _segment(row: _Row, video: str) -> Question:
    """Return the question of one segment, or of a video of which it is known, or is not, that
    nothing happens in it."""
    label, times = row.text("label"), [row.text(name) for name in ("start_s", "end_s")]
    nothing = label.casefold() == NOTHING
    segments: tuple[tuple[float, float, str], ...] = ()
    if not nothing and (label or any(times)):
        try:
            start_s, end_s = map(float, times)
        except ValueError:
            start_s = end_s = math.nan
        if not label or not (0 <= end_s < math.inf and start_s <= end_s):
            raise row.fault(
                "a segment that is not valid",
                f"{label!r} from {times[0]!r} to {times[1]!r}",
                "a label, and the seconds in which it begins and ends",
            )
        segments = ((max(start_s, 0.0), end_s, sys.intern(label)),)
    return Question(
        question_id=video,
        video_id=sys.intern(video),
        question="",
        answer=segments[0][2] if segments else "" if nothing else None,
        split=_split(row),
        head=SEGMENTS,
        aliases=(f"v_{video}",) if row.set_name == ACTIVITYNET else (),
        group=_group(row),
        segments=segments,
    )


def join_segments(questions: Sequence[Question]) -> Question:
    """Return one question of all that a file says of one video, which is in its first row; raises
    ValueError for several splits or groups."""
    first = questions[0]
    segments = tuple(sorted(one for question in questions for one in question.segments))
    for name in ("split", "group"):
        stated = {getattr(question, name) for question in questions} - {None}
        if len(stated) > 1:
            raise ValueError(f"{name} {' and '.join(sorted(stated))}")
    lasts: dict[str, float] = collections.defaultdict(float)
    for start_s, end_s, label in segments:
        lasts[label] += end_s - start_s
    known = any(question.answer is not None for question in questions)
    longest = min(lasts, key=lambda label: (-lasts[label], label), default="" if known else None)
    return dataclasses.replace(
        first,
        answer=longest,
        split=next((q.split for q in questions if q.split is not None), None),
        group=next((q.group for q in questions if q.group is not None), None),
        segments=segments,
    )


def faulty_question(fields: Mapping[str, Any], fault: str) -> Question:
    """Return what can be read of a row that `make_question` refused; `fields` may be empty."""
    cells = {name: cell for name, cell in fields.items() if not _COMPOUND(type(cell))}
    asked = text(cells.get("question"))
    return Question(
        _first_id(cells, ID_COLUMNS), _first_id(cells, VIDEO_COLUMNS), asked, fault=fault
    )


def text(value: Any) -> str:
    """Return a cell as text with single spaces; numbers as they are written, nothing as ""."""
    if type(value) is str:  # most of a million rows
        return " ".join(value.split())
    if value is None or value != value:  # NaN, which is how pandas writes an empty cell
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split())


def id_text(value: Any) -> str:
    """Return a cell that holds an id: as it is, but for white space alone, which is nothing."""
    if type(value) is str:
        return value if value.strip() else ""
    return text(value)


def _first_id(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next(filter(None, (id_text(fields.get(name)) for name in names)), "")


def _as_truth(answer: str) -> str | None:
    return answer if answer in YES_NO else _TRUTHS.get(answer.lower())


def _check_texts(row: _Row) -> None:
    for name in _TEXTS:
        if isinstance(row.fields.get(name), list | dict):
            raise row.fault(
                "a row with something else than text",
                f"{name} {row.fields[name]!r:.60}",
                "text or a number; several answers are as many rows",
            )


@functools.lru_cache(maxsize=1000)
def _choice_columns(columns: tuple[str, ...]) -> list[str]:
    return sorted(name for name in columns if re.fullmatch(r"a[0-9]", name))


def _listed_choices(fields: Mapping[str, Any]) -> list[Any] | None:
    """Return the cell `choices` as a list, None where there is none; raises ValueError."""
    listed = fields.get("choices")
    if not isinstance(listed, list | dict):
        written = text(listed)
        if not written:
            return None
        listed = load_json(written)  # as a CSV cell holds it
    plain = isinstance(listed, list) and not any(map(_COMPOUND, map(type, listed)))
    if not isinstance(listed, list) or not plain or len(listed) > _MOST_CHOICES:
        raise ValueError("no list of texts")
    return listed


def _choices(row: _Row) -> tuple[str, ...]:
    """Return the choices of the list, else of the columns a0, a1, ...; a row may have fewer of
    these than its file, and begin with a1. One left out between others is "", as an empty cell."""
    names = _choice_columns(tuple(row.fields))
    if not names and "choices" not in row.fields:  # most of a million rows
        return ()
    try:
        listed = _listed_choices(row.fields)
    except ValueError as err:
        raise row.fault(
            "choices that cannot be read",
            f"{row.fields['choices']!r:.60}",
            f'a JSON list of at most {_MOST_CHOICES} texts, as ["one", "two"], or columns '
            "a0, a1, ...",
        ) from err
    if listed is not None:
        return tuple(map(text, listed))
    cells = {int(name[1]): cell for name in names if (cell := row.text(name))}
    if len(cells) < 2:
        return ()
    return tuple(cells.get(place, "") for place in range(0 if 0 in cells else 1, max(cells) + 1))


def _right(row: _Row, answer: str, choices: tuple[str, ...]) -> int:
    """Return the index of the true choice: the answer is that index (from 0), or its text.

    Of equal choices it is the first, as it is of equal scores.
    """
    named = _named(answer, choices) or answer
    if named in choices:
        return choices.index(named)
    truths = [_as_truth(choice) for choice in choices]
    if (truth := _as_truth(answer)) in truths and truth is not None:
        return truths.index(truth)
    expected = f"0 to {len(choices) - 1}, or one of " + ", ".join(choices)[:200]
    raise row.fault("an answer that is none of its choices", repr(answer), expected)


def _named(answer: str, choices: tuple[str, ...]) -> str:
    """Return the choice that `answer` is the index of, "" where it is none."""
    # NExT-QA names its choices a0…a4, TGIF-QA a1…a5; both count the answer from 0.
    is_index = answer.isdecimal() and len(answer) < 4 and int(answer) < len(choices)
    return choices[int(answer)] if is_index else ""


def _check_clear(row: _Row, choices: tuple[str, ...]) -> None:
    answer = row.text("answer")
    listed = _listed_choices(row.fields) or ()
    meant = isinstance(row.fields["answer"], int) and set(map(type, listed)) == {str}
    if answer in choices and _named(answer, choices) not in ("", answer) and not meant:
        raise row.fault(
            "an answer that may be a place or a choice",
            f"{answer!r} of {' | '.join(choices):.100}",
            'the place as a number, choices as text: "answer": 2, "choices": ["1", ...]',
        )


def _head(row: _Row, answer: str | None, choices: tuple[str, ...]) -> str:
    known = SETS.get(row.set_name)
    head = known.head if known is not None else "choice" if choices else "open"
    if known is not None and known.yes_no == row.text("type"):
        # NExT-OE's binary questions offer other pairs too ("wild or domesticated").
        head = "yes_no" if answer in ("yes", "no", None) else "open"
    if known is None and (stated := row.text("head").lower()):
        head = stated
    if head not in HEADS or head in (LABEL, SEGMENTS) or (head == "choice") != bool(choices):
        raise row.fault(
            "a question whose kind of answer is not clear",
            f"{head!r} with {len(choices)} choices",
            "head: " + " | ".join(list(HEADS)[:4]) + "; choices for the kind choice alone",
        )
    if head == "yes_no" and answer not in (*YES_NO, None):
        raise row.fault(
            "a yes-or-no question with another answer",
            f"{answer!r:.60}",
            "yes or no; questions with other answers are open",
        )
    return head


def _check_number(row: _Row, answer: str) -> None:
    try:
        if abs(float(answer)) <= _MOST_COUNT:
            return
        expected = f"a number from {-_MOST_COUNT} to {_MOST_COUNT}"
    except ValueError:
        expected = "a number"
    raise row.fault("a count that is not a number", f"{answer!r:.60}", expected)


def _type(row: _Row) -> str | None:
    """Return the type as it is reported: a number with its name ("3 yes/no"), else as published."""
    code, known = sys.intern(row.text("type")), SETS.get(row.set_name)
    if known is None or not code:
        return code or (known.all_of_type if known else None)
    return f"{code} {known.types[code]}" if code.isdecimal() and code in known.types else code


def _group(row: _Row) -> str | None:
    return sys.intern(row.text("group")) or None


def _split(row: _Row) -> str | None:
    name = row.text("split").lower()
    if not name and row.set_name == ACTIVITYNET:
        name = row.text("subset").lower()
    if name and name not in SPLIT_NAMES:
        raise row.fault("an unknown split", repr(name), "train, val or test")
    return SPLIT_NAMES.get(name)
