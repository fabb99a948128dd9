"""Which clip of a cache a question is about: one rule for every command.

A clip's id is the path that `extract` gave it. A question names it, from the strictest reading to
the loosest,

1. exactly, white space and all;
2. but for the form of its accents (NFC or NFD: macOS writes the latter into file names);
3. without the suffix of a video, on either side: `b/clip` or `b/clip.avi` for `b/clip.mp4`;
4. by its bare file name, wherever the clip lies: `clip.mp4` for `b/clip.mp4`;
5. by that without the suffix of a video.

The first reading that any clip of the catalog answers to decides, whatever the state of that clip:
a question about a clip in quarantine is not answered from its namesake. Where several answer to it
no clip is meant. A name with a folder never means a clip of another folder.

A mapping file gives other names to the videos of a question file, as MSVD's youtube_mapping.txt. A
line holds two names, the question file's and the cache's, in either order, parted by a tab, a
comma, a semicolon or spaces; or it is a JSON object, name to name (NExT-QA's map to VidOR's
folders). White space of a name stays, where spaces do not part it.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import difflib
import functools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from framebank.features.errors import UsageError
from framebank.features.questions.files import read_text
from framebank.features.questions.question import Question, about
from framebank.features.stores import json_text, tables
from framebank.features.terminal import few
from framebank.features.video import catalog_text, without_suffix

_MOST_NAMES = 20_000  # among which a misspelt one is looked for, in 50 ms
_MOST_LOOKS = 20  # for a misspelt name, in one catalog
_SHOWN = 3
_MAPPING = "two names in each line, as in MSVD's youtube_mapping.txt: -4wsuPCjDBc_5_15 vid1"

# Name → the clip of that name, or all clips where they are several.
_Index = dict[str, str | tuple[str, ...]]
_Pair = tuple[str, str, str]  # where it stands, left, right


def same_form(name: str) -> str:
    """Return `name` in NFC, as two forms of one name are compared."""
    return unicodedata.normalize("NFC", name)


# The readings after the first, and whether only a name without a folder is read so.
_READINGS: tuple[tuple[Callable[[str], str], bool], ...] = (
    (same_form, False),
    (lambda name: same_form(without_suffix(name)), False),
    (lambda name: same_form(name.rpartition("/")[2]), True),
    (lambda name: same_form(without_suffix(name.rpartition("/")[2])), True),
)


def wishes(video_id: str, aliases: Sequence[str]) -> list[str]:
    """Return the names that a question's video may go by, the likeliest first.

    An integer N of a video without aliases also stands for "vid<N>".
    """
    if not aliases and video_id.isdecimal():
        return [video_id, f"vid{video_id}"]
    return [*aliases, video_id]


class ClipNames:
    """The ids of all clips of a catalog, whatever their state, and what means which of them."""

    def __init__(self, video_ids: Iterable[str]) -> None:
        self._ids = dict.fromkeys(video_ids)
        self._indices: dict[Callable[[str], str], _Index] = {}
        self._looks = 0

    def find(self, video_id: str, aliases: Sequence[str] = ()) -> str | None:
        """Return the id of the clip that is meant, None where it is none or not clear."""
        found = self._answering(video_id, aliases)
        return found[0] if len(found) == 1 else None

    def hint(self, video_id: str, aliases: Sequence[str] = ()) -> str:
        """Return what may have been meant where `find` gives None, "" where nothing comes near."""
        several = self._answering(video_id, aliases)
        if several:
            return "several videos go by that name: " + few(list(map(repr, several)), _SHOWN)
        near = self.near(video_id, aliases)
        return f"did you mean {few(list(map(repr, near)), _SHOWN)}?" if near else ""

    def near(self, video_id: str, aliases: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the ids that come near: those that differ in folder, case, white space or what
        follows the last dot alone, else in a few letters (for the first of many names only)."""
        names = [_folded(name) for name in map(catalog_text, wishes(video_id, aliases))]
        index = self._index(_folded)
        shorter = [name.rpartition(".")[0] for name in names]
        alike = [index[name] for name in dict.fromkeys((*names, *shorter)) if name in index]
        found = tuple(id for ids in alike for id in _several(ids))
        if found or len(index) > _MOST_NAMES or self._looks >= _MOST_LOOKS:
            return found[: _SHOWN + 1]
        self._looks += 1
        close = (difflib.get_close_matches(name, index, n=_SHOWN, cutoff=0.8) for name in names)
        return tuple(id for name in next(filter(None, close), []) for id in _several(index[name]))

    def _answering(self, video_id: str, aliases: Sequence[str]) -> tuple[str, ...]:
        """Return the clips that answer to the strictest reading that any answers to."""
        names = list(map(catalog_text, wishes(video_id, aliases)))
        for name in names:
            if name in self._ids:
                return (name,)
        for key, bare in _READINGS:
            index = self._index(key)
            for name in names:
                if (found := index.get(key(name))) is not None and not (bare and "/" in name):
                    return _several(found)
        return ()

    def _index(self, key: Callable[[str], str]) -> _Index:
        if key not in self._indices:
            index: _Index = {}
            more: dict[str, list[str]] = collections.defaultdict(list)
            for video_id in self._ids:
                name = key(video_id)
                if index.setdefault(name, video_id) != video_id:
                    more[name].append(video_id)
            for name, others in more.items():
                index[name] = (*_several(index[name]), *others)
            self._indices[key] = index
        return self._indices[key]


def find_videos(questions: Iterable[Question], names: ClipNames) -> Iterator[str | None]:
    """Yield for each question the id of the clip that it is about, None for none."""
    find = functools.cache(names.find)
    for question in questions:
        yield find(question.video_id, question.aliases)


def join_questions(
    questions: Iterable[Question], names: ClipNames
) -> tuple[list[Question], list[Question]]:
    """Return the questions about a clip, with its id, and those about none."""
    questions = list(questions)
    matched: list[Question] = []
    unmatched: list[Question] = []
    for question, video_id in zip(questions, find_videos(questions, names), strict=True):
        if video_id is None:
            unmatched.append(question)
        else:
            matched.append(about(question, video_id))
    return matched, unmatched


def _several(found: str | tuple[str, ...]) -> tuple[str, ...]:
    return (found,) if isinstance(found, str) else found


def _folded(video_id: str) -> str:
    name = unicodedata.normalize("NFKC", video_id.replace("\\", "/")).casefold()
    return without_suffix("".join(name.rpartition("/")[2].split()))


def map_videos(files: Sequence[list[Question]], path: str) -> None:
    """Give the questions of each file the names that the mapping at `path` has for their videos.

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

    @functools.cache
    def aliases(video_id: str, before: tuple[str, ...]) -> tuple[str, ...]:
        own = wishes(video_id, before)
        given = [known[name] for name in map(same_form, own) if name in known]
        return (*given, *own[:-1]) if given else before

    for questions in files:
        questions[:] = [
            dataclasses.replace(q, aliases=aliases(q.video_id, q.aliases)) for q in questions
        ]


def _by_name(path: str, pairs: Iterable[_Pair]) -> dict[str, str]:
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


def read_pairs(path: str) -> list[_Pair]:
    """Return (where, left, right) of each line; raises UsageError for a line of another form."""
    content = read_text(path, option="--mapping")
    if content.lstrip().startswith("{"):
        return _read_object(path, content)
    lines = [(number, line.rstrip("\r\n")) for number, line in tables.numbered_lines(content)]
    if not lines:
        raise UsageError(f"{path} is empty", expected=_MAPPING)
    delimiter = next((mark for mark in "\t,;" if mark in lines[0][1]), None)
    pairs = []
    for number, line in lines:
        if delimiter is None:
            cells = [cell for cell in line.split(" ") if cell]
        else:
            cells = next(csv.reader([line], delimiter=delimiter))
        if len(cells) != 2 or not all(map(str.strip, cells)):
            got = f"{line.strip()[:80]!r} in line {number}"
            raise UsageError(f"{path} is no mapping of names", got=got, expected=_MAPPING)
        pairs.append((f"line {number}", cells[0], cells[1]))
    return pairs


def _read_object(path: str, content: str) -> list[_Pair]:
    try:
        named = json_text.parse(content)
    except ValueError as err:
        raise UsageError(f"{path} is not valid JSON", got=err, expected=_MAPPING) from err
    pairs = [(f"entry {n}", str(a), str(b)) for n, (a, b) in enumerate(named.items(), start=1)]
    if not pairs or any(isinstance(other, list | dict) for other in named.values()):
        raise UsageError(f"{path} is no mapping of names", expected='{"name": "other name", ...}')
    return pairs
