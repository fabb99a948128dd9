"""What question files hold: rows, types, answers, the share of the commonest, and odd rows.

With a cache also what `framebank train` would make of them. Rows of published sets that repeat or
contradict each other or break their set's rules are kept, for a figure on fewer rows is none of the
published set, and named.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from framebank.features.questions.known_sets import SETS, QuestionSet
from framebank.features.questions.question import Question
from framebank.features.questions.reading import QuestionFile
from framebank.features.questions.splits import (
    SPLITS,
    SplitRule,
    deal_splits,
    join_files,
    split_of_name,
)
from framebank.features.questions.videos import ClipNames, find_videos, join_questions

NO_SPLIT = "none"
_MOST_COUNTED = 10  # TGIF-QA counts to ten, which stands for ten or more

_COLUMNS = ("file", "where", "what", "got", "expected", "decision")  # of an odd row
Oddity = tuple[str, str, str]  # what, got, expected


@dataclasses.dataclass(frozen=True)
class _Cached:
    """The videos of a cache: id → state."""

    states: Mapping[str, str]
    names: ClipNames

    def done(self, questions: Sequence[Question]) -> list[Question]:
        known, _ = join_questions(questions, self.names)
        return [question for question in known if self.states[question.video_id] == "done"]


def describe_files(
    files: Sequence[QuestionFile],
    states: Mapping[str, str] | None = None,
    *,
    rule: SplitRule | None = None,
) -> dict[str, Any]:
    """Return what the files hold, by set and split, with every odd row.

    `states` maps the ids of all videos of a cache to their state ("done" or "quarantined"); with
    them, how many questions match is counted. `rule` is by which `train` would split them.
    """
    cached = None if states is None else _Cached(states, ClipNames(states))
    by_set: dict[str, list[QuestionFile]] = collections.defaultdict(list)
    for file in files:
        by_set[file.set_name].append(file)
    odd = [row for file in files for row in find_odd_rows(file)]
    return {
        "files": [{"path": file.path, "set": file.set_name} for file in files],
        "questions": sum(len(file.questions) for file in files),
        "refused": sum(row["decision"] == "refused" for row in odd),
        "sets": {name: _describe_set(name, its, cached) for name, its in by_set.items()},
        **({} if cached is None else {"cache": _in_cache(files, cached, rule or SplitRule())}),
        "odd_by_kind": dict(collections.Counter(row["what"] for row in odd).most_common()),
        "odd": odd,
    }


def _in_cache(files: Sequence[QuestionFile], cached: _Cached, rule: SplitRule) -> dict[str, Any]:
    """Return which videos are not to be had, and how `train` deals the questions about the rest."""
    asked = join_files([(file.path, file.questions) for file in files], to_train=True)
    known, unknown = join_questions(asked, cached.names)
    lost = {q.video_id for q in known if cached.states[q.video_id] != "done"}
    answered = [q for q in known if q.video_id not in lost and q.answer is not None]
    dealt, _ = deal_splits(answered, rule)
    missing = {question.video_id: question.aliases for question in unknown}
    return {
        "train": {split: sum(q.split == split for q in dealt) for split in SPLITS},
        "quarantined": sorted(lost),
        "missing": {name: cached.names.hint(name, aliases) for name, aliases in missing.items()},
    }


def _describe_set(
    name: str, files: Sequence[QuestionFile], cached: _Cached | None
) -> dict[str, Any]:
    splits: dict[str, list[Question]] = {split: [] for split in (*SPLITS, NO_SPLIT)}
    for file in files:
        named = split_of_name(file.path) or NO_SPLIT
        for question in file.questions:
            splits[question.split or named].append(question)
    splits = {split: questions for split, questions in splits.items() if questions}
    known = SETS.get(name)
    return {
        "title": known.title if known else name,
        "splits": {
            split: _describe_split(questions, splits.get("train", questions), cached)
            | ({"published": known.published.get(split)} if known else {})
            for split, questions in splits.items()
        },
        "types": _counted(q.kind for questions in splits.values() for q in questions),
        "type_names": dict(known.types) if known else {},
        "in_several_splits": _in_several_splits(splits, cached),
    }


def _describe_split(
    questions: Sequence[Question], train: Sequence[Question], cached: _Cached | None
) -> dict[str, Any]:
    answers = {question.answer for question in questions if question.answer is not None}
    return {
        "questions": len(questions),
        "videos": len({question.video_id for question in questions}),
        "answered": sum(question.answer is not None for question in questions),
        "distinct_answers": len(answers),
        "heads": _counted(question.head for question in questions),
        "measures": sorted({question.measure for question in questions}),
        "majority": _majority(questions, train),
        **({} if cached is None else {"in_cache": len(cached.done(questions))}),
    }


def _majority(questions: Sequence[Question], train: Sequence[Question]) -> dict[str, Any] | None:
    """Return how often the commonest answer of `train` is right; of choices, the commonest place.

    For counts also the mean square error of always answering the rounded mean of `train`.
    """
    counts = collections.Counter(shown for q in train if (shown := _shown(q)) is not None)
    true = [shown for q in questions if (shown := _shown(q)) is not None]
    if not counts or not true:
        return None
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    found = {"answer": best, "share": sum(answer == best for answer in true) / len(true)}
    numbers = [q.number for q in train if q.number is not None]
    asked = [q.number for q in questions if q.number is not None]
    if numbers and asked:
        constant = round(sum(numbers) / len(numbers))
        errors = [(number - constant) ** 2 for number in asked]
        found |= {"constant": constant, "mean_square_error": sum(errors) / len(errors)}
    return found


def _shown(question: Question) -> str | None:
    chosen = question.head == "choice" and question.right is not None
    return f"choice {question.right}" if chosen else question.answer


def _in_several_splits(
    splits: Mapping[str, Sequence[Question]], cached: _Cached | None
) -> list[str]:
    seen: dict[str, str] = {}
    several: dict[str, None] = {}
    for split, questions in splits.items():
        clips = [None] * len(questions) if cached is None else find_videos(questions, cached.names)
        for question, clip in zip(questions, clips, strict=True):
            video_id = clip or question.video_id
            if seen.setdefault(video_id, split) != split:
                several[video_id] = None
    return list(several)


def _counted(names: Any) -> dict[str, int]:
    return dict(sorted(collections.Counter(names).items(), key=lambda item: (-item[1], item[0])))


def find_odd_rows(file: QuestionFile) -> list[dict[str, str]]:
    """Return all odd rows of a file: those that its reading refused, then those that are kept."""
    known = SETS.get(file.set_name)
    odd = []
    for path, where, error in file.refused:
        what, got = error.what.removeprefix(f"{path} "), str(error.got or "")
        odd.append((path, where, what, got, str(error.expected or ""), "refused"))
    first: dict[tuple[str, str], int] = {}
    partly = known is not None and any(question.answer is not None for question in file.questions)
    for place, (question, where) in enumerate(zip(file.questions, file.places, strict=True)):
        found = list(_in_text(question))
        before = first.setdefault((question.video_id, question.question), place)
        if before != place:
            found += _repeated(question, file.questions[before], file.places[before])
        if place in file.copies:
            found.append(("an id that another row has", file.copies[place], "ids of their own"))
        if known is not None:
            split = question.split or split_of_name(file.path)
            found += _against_set(question, known, file.set_name, split)
            if partly and question.answer is None:
                found.append(("no answer", "none", "an answer, as other rows of the file have"))
        odd += [(file.path, where, *oddity, "kept") for oddity in found]
    return [dict(zip(_COLUMNS, row, strict=True)) for row in odd]


def _repeated(question: Question, earlier: Question, where: str) -> Iterator[Oddity]:
    asked = f"{question.question!r} of {question.video_id}"
    if (earlier.answer, earlier.choices) == (question.answer, question.choices):
        yield "the same row again", asked, f"once, as in {where}"
    elif earlier.answer != question.answer:
        got, expected = f"{question.answer!r} to {asked}", f"{earlier.answer!r}, as in {where}"
        yield "the same question with another answer", got, expected


def _in_text(question: Question) -> Iterator[Oddity]:
    for value in (question.question, question.answer or ""):
        if "\ufffd" in value:
            yield "characters that were lost", repr(value), "text without U+FFFD"
    if len(set(question.choices)) < len(question.choices):
        listed = " | ".join(question.choices)
        if question.answer is not None and question.choices.count(question.answer) > 1:
            yield "the true answer stands twice among the choices", listed, "choices that differ"
        else:
            yield "two choices are alike", listed, "choices that differ"


def _against_set(
    question: Question, known: QuestionSet, set_name: str, split: str | None
) -> Iterator[Oddity]:
    code = (question.type or "").split(" ", 1)[0]
    if known.types and code not in known.types:
        yield "a type that the set does not have", repr(code), " ".join(known.types)
    if known.yes_no is not None and question.answer is not None:
        says = question.answer in ("yes", "no")
        if says != (code == known.yes_no):
            what = "yes or no in another type" if says else "a binary question with another answer"
            got = f"{question.answer!r} to {question.question!r}, type {question.type}"
            yield what, got, f"yes and no in type {known.yes_no} and there alone"
    if set_name == "activitynet-qa":
        start = f"v_{question.video_id}_"
        if not question.question_id.startswith(start):
            yield "an id of another video", question.question_id, start + "N"
    if question.number is not None and question.number not in range(_MOST_COUNTED + 1):
        yield "a count out of range", str(question.answer), f"0 to {_MOST_COUNTED}"
    numbers = known.videos.get(split or "")
    if numbers is not None and not (
        question.video_id.isdecimal() and int(question.video_id) in numbers
    ):
        expected = f"{numbers.start} to {numbers.stop - 1} in {split}"
        yield "a video that is not of this split", question.video_id, expected
