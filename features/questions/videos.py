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
"""

from __future__ import annotations

import collections
import difflib
import functools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from framebank.features.cache.catalog import catalog_text
from framebank.features.decoding.suffixes import without_suffix
from framebank.features.questions.question import Question, about

_MOST_NAMES = 20_000  # among which a misspelt one is looked for, in 50 ms
_MOST_LOOKS = 20  # for a misspelt name, in one catalog
_SHOWN = 3

# Name → the clip of that name, or all clips where they are several.
_Index = dict[str, str | tuple[str, ...]]


def same_form(name: str) -> str:
    """Return `name` in NFC, as two forms of one name are compared."""
    return unicodedata.normalize("NFC", name)


def _without_suffix(video_id: str) -> str:
    return same_form(without_suffix(video_id))


def _file_name(video_id: str) -> str:
    return same_form(video_id.rpartition("/")[2])


def _bare_name(video_id: str) -> str:
    return _without_suffix(video_id.rpartition("/")[2])


# The readings after the first, and whether only a name without a folder is read so.
_READINGS: tuple[tuple[Callable[[str], str], bool], ...] = (
    (same_form, False),
    (_without_suffix, False),
    (_file_name, True),
    (_bare_name, True),
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
            return "several videos go by that name: " + _listed(several)
        near = self.near(video_id, aliases)
        return f"did you mean {_listed(near)}?" if near else ""

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


def _listed(video_ids: Sequence[str]) -> str:
    more = ", ..." if len(video_ids) > _SHOWN else ""
    return ", ".join(map(repr, video_ids[:_SHOWN])) + more
