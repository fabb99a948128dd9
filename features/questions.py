"""A question about a video: its record, what measures its answer, and its video in a cache.

Question files are read by features.question_sets.
"""

from __future__ import annotations

import collections
import dataclasses
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from features.errors import UsageError

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
# How a question is answered → the measure of its answers, as the published sets are judged.
HEADS = {
    "open": "accuracy",
    "choice": "accuracy",
    "count": "mean square error",
    "yes_no": "accuracy",
}
# What a softmax over an answer vocabulary can learn and answer.
VOCABULARY_HEADS = ("open", "yes_no")
YES_NO = ("yes", "no")
QUESTION_WORDS = ("what", "who", "how", "when", "where", "which", "why", "is", "are", "does", "do")


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One question about one video; `answer` is None where it is not known.

    `split` is "train", "val", "test" or None; `type` is the file's own, as text; `head` is one of
    HEADS. A multiple choice has its `choices`, `right` is the index of the true one (from 0) and
    `answer` its text. `aliases` are other names of the video, tried before `video_id`. `fault` says
    why a row cannot be asked; its texts are then what could be read of it. Such rows are kept for
    scoring alone.
    """

    question_id: str
    video_id: str
    question: str
    answer: str | None = None
    split: str | None = None
    type: str | None = None
    head: str = "open"
    choices: tuple[str, ...] = ()
    right: int | None = None
    aliases: tuple[str, ...] = ()
    fault: str | None = None

    @property
    def measure(self) -> str:
        """Return what answers to this question are judged by."""
        return HEADS[self.head]

    @property
    def number(self) -> float | None:
        """Return the true number of a counting question; None elsewhere or if not known."""
        return float(self.answer) if self.head == "count" and self.answer is not None else None

    @property
    def kind(self) -> str:
        """Return the type to report under: the file's own, else the question's first word."""
        if self.type is not None:
            return self.type
        words = self.question.split(maxsplit=1)
        word = words[0].lower().strip("?!.,:;¿¡\"'") if words else ""
        return word if word in QUESTION_WORDS else "other"


def split_of_name(path: str) -> str | None:
    """Return the split that a file is named for (`train_qa.json`, `Test_count_question.csv`)."""
    words = re.split(r"[^a-z]+", PurePosixPath(path).stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


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


def head_kind(questions: Iterable[Question]) -> str:
    """Return the one way to answer that `questions` ask for: "open", "choice" or "count".

    Raises UsageError for several: no model learns them together.
    """
    counts: collections.Counter[str] = collections.Counter()
    first: dict[str, Question] = {}
    for question in questions:
        kind = "open" if question.head in VOCABULARY_HEADS else question.head
        counts[kind] += 1
        first.setdefault(kind, question)
    if len(counts) > 1:
        rare = min(counts, key=lambda kind: counts[kind])
        one = f"{first[rare].question!r:.60} of {first[rare].video_id}"
        raise UsageError(
            "one model cannot learn to answer in several ways",
            got=", ".join(f"{count} questions for {kind}" for kind, count in counts.most_common())
            + f" ({one} is for {rare})",
            expected="files that ask for one of open, choice, count",
            todo="train a model for each (`framebank questions` shows what a file asks)",
        )
    return next(iter(counts), "open")


def join_questions(
    questions: Iterable[Question], video_ids: Iterable[str]
) -> tuple[list[Question], list[Question]]:
    """Match questions to `video_ids`; return (matched, with the cache's video_id; unmatched).

    A question's video matches an id exactly, else the one id that has the same path without
    suffix, or the same file name with or without suffix. Its aliases are tried first; an integer N
    of a video that has none also stands for "vid<N>".
    """
    exact = set(video_ids)
    by_name: dict[str, str | None] | None = None
    fields = operator.attrgetter(*(field.name for field in dataclasses.fields(Question)))
    found: dict[tuple[str, tuple[str, ...]], str | None] = {}
    matched: list[Question] = []
    unmatched: list[Question] = []
    for question in questions:
        wanted = (question.video_id, question.aliases)
        if wanted not in found:
            names = wishes(*wanted)
            match = next((name for name in names if name in exact), None)
            if match is None:
                by_name = _by_name(exact) if by_name is None else by_name
                match = _match(names, by_name)
            found[wanted] = match
        match = found[wanted]
        if match is None:
            unmatched.append(question)
        elif match == question.video_id:
            matched.append(question)
        else:
            question_id, _, *rest = fields(
                question
            )  # dataclasses.replace takes three times as long
            matched.append(Question(question_id, match, *rest))
    return matched, unmatched


def wishes(video_id: str, aliases: Sequence[str]) -> list[str]:
    """Return the names that a question's video may go by, the likeliest first."""
    if not aliases and video_id.isdecimal():
        return [video_id, f"vid{video_id}"]
    return [*aliases, video_id]


def _by_name(exact: Iterable[str]) -> dict[str, str | None]:
    """Return the other names of videos; None stands at a name that several have."""
    by_name: dict[str, str | None] = {}
    for video_id in exact:
        for name in _names(video_id):
            if by_name.setdefault(name, video_id) != video_id:
                by_name[name] = None
    return by_name


def _match(wishes: Sequence[str], by_name: Mapping[str, str | None]) -> str | None:
    for wish in wishes:
        for name in _names(wish):
            video_id = by_name.get(name)
            if video_id is not None:
                return video_id
    return None


def _names(video_id: str) -> list[str]:
    """Return the other names of a video, the most telling first."""
    folder, slash, name = video_id.rstrip("/").rpartition("/")
    dot = name.rfind(".")
    stem = name[:dot] if 0 < dot < len(name) - 1 else name
    names = dict.fromkeys((video_id, f"{folder}{slash}{stem}", name, stem))
    names.pop("", None)
    return list(names)
