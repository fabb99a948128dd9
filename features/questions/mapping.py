"""Mapping files: other names for the videos of a question file, as MSVD's youtube_mapping.txt.

A line holds two names, the question file's and the cache's, in either order, parted by a tab, a
comma, a semicolon or spaces; or a JSON object, name to name (NExT-QA's map to VidOR's folders).
White space of a name stays, where spaces do not part it.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from framebank.features.errors import UsageError
from framebank.features.questions.files import read_text
from framebank.features.questions.question import Question
from framebank.features.questions.videos import same_form, wishes
from framebank.features.stores import json_text, tables

_EXPECTED = "two names in each line, as in MSVD's youtube_mapping.txt: -4wsuPCjDBc_5_15 vid1"

Pair = tuple[str, str, str]  # where it stands, left, right


def map_videos(files: Sequence[list[Question]], path: str) -> list[list[Question]]:
    """Return the questions of each file with the names that the mapping at `path` gives them.

    A video that the mapping does not name keeps its own. Raises UsageError when the mapping cannot
    be read, names none of the videos, or one of them twice.
    """
    pairs = read_pairs(path)
    names = {
        same_form(name)
        for questions in files
        for question in questions
        for name in wishes(question.video_id, question.aliases)
    }
    left = sum(same_form(pair[1]) in names for pair in pairs)
    right = sum(same_form(pair[2]) in names for pair in pairs)
    if not left and not right:
        raise UsageError(
            f"{path} names none of the videos that are asked about",
            got=f"{len(pairs)} pairs, the first {pairs[0][1]!r} and {pairs[0][2]!r}",
            expected="the questions' videos, for example " + ", ".join(sorted(names)[:3]),
        )
    # The side that knows more of the questions' videos is theirs.
    known = _by_name(path, pairs if left >= right else [(w, b, a) for w, a, b in pairs])
    return [_renamed(questions, known) for questions in files]


def _by_name(path: str, pairs: Iterable[Pair]) -> dict[str, str]:
    known: dict[str, str] = {}
    for where, given, other in pairs:
        name = same_form(given)
        if known.setdefault(name, other) != other:
            raise UsageError(
                f"{path} gives one video two names",
                got=f"{name!r} is {known[name]!r} and, in {where}, {other!r}",
                expected="one name for each video",
            )
    return known


def _renamed(questions: list[Question], known: Mapping[str, str]) -> list[Question]:
    made: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
    renamed = []
    for question in questions:
        key = (question.video_id, question.aliases)
        if key not in made:
            own = wishes(*key)
            given = [known[name] for name in map(same_form, own) if name in known]
            made[key] = (*given, *own[:-1]) if given else question.aliases
        renamed.append(dataclasses.replace(question, aliases=made[key]))
    return renamed


def read_pairs(path: str) -> list[Pair]:
    """Return (where, left, right) of each line; raises UsageError for a line of another form."""
    content = read_text(path, option="--mapping")
    if content.lstrip().startswith("{"):
        return _read_object(path, content)
    lines = [(number, line.rstrip("\r\n")) for number, line in tables.numbered_lines(content)]
    if not lines:
        raise UsageError(f"{path} is empty", expected=_EXPECTED)
    delimiter = next((mark for mark in "\t,;" if mark in lines[0][1]), None)
    pairs = []
    for number, line in lines:
        if delimiter is None:
            cells = [cell for cell in line.split(" ") if cell]
        else:
            cells = next(csv.reader([line], delimiter=delimiter))
        if len(cells) != 2 or not all(map(str.strip, cells)):
            got = f"{line.strip()[:80]!r} in line {number}"
            raise UsageError(f"{path} is no mapping of names", got=got, expected=_EXPECTED)
        pairs.append((f"line {number}", cells[0], cells[1]))
    return pairs


def _read_object(path: str, content: str) -> list[Pair]:
    try:
        named = json_text.parse(content)
    except ValueError as err:
        raise UsageError(f"{path} is not valid JSON", got=err, expected=_EXPECTED) from err
    pairs = [(f"entry {n}", str(a), str(b)) for n, (a, b) in enumerate(named.items(), start=1)]
    if not pairs or any(isinstance(other, list | dict) for other in named.values()):
        raise UsageError(f"{path} is no mapping of names", expected='{"name": "other name", ...}')
    return pairs
