"""What question files hold, in figures: rows, types, answers, and the share of the commonest.

With a cache also what `framebank train` would make of them: which videos are there, and how many
questions train, choose the epoch and judge.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from framebank.features.questions.check import find_odd_rows
from framebank.features.questions.question import Question
from framebank.features.questions.reading import OddRow, QuestionFile
from framebank.features.questions.sets import SETS
from framebank.features.questions.splits import (
    SPLITS,
    SplitRule,
    deal_splits,
    join_files,
    split_of_name,
)
from framebank.features.questions.videos import ClipNames, find_videos, join_questions

NO_SPLIT = "none"
_SPLITS = (*SPLITS, NO_SPLIT)


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
        "refused": sum(not row.kept for row in odd),
        "sets": {name: _describe_set(name, its, cached) for name, its in by_set.items()},
        **({} if cached is None else {"cache": _in_cache(files, cached, rule or SplitRule())}),
        "odd_by_kind": dict(collections.Counter(row_kind(row) for row in odd).most_common()),
        "odd": [_odd_json(row) for row in odd],
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


def row_kind(row: OddRow) -> str:
    """Return what is odd about a row, without the file's name."""
    return row.what.removeprefix(f"{row.path} ")


def _odd_json(row: OddRow) -> dict[str, str]:
    named = {"file": row.path, "where": row.where, "what": row_kind(row), "got": row.got}
    return named | {"expected": row.expected, "decision": row.decision}


def _describe_set(
    name: str, files: Sequence[QuestionFile], cached: _Cached | None
) -> dict[str, Any]:
    splits: dict[str, list[Question]] = {split: [] for split in _SPLITS}
    for file in files:
        named = split_of_name(file.path) or NO_SPLIT
        for question in file.questions:
            splits[question.split or named].append(question)
    splits = {split: questions for split, questions in splits.items() if questions}
    known = SETS.get(name)
    found: dict[str, Any] = {
        "title": known.title if known else "plain",
        "splits": {
            split: _describe_split(questions, splits.get("train", questions), cached)
            | ({"published": known.published.get(split)} if known else {})
            for split, questions in splits.items()
        },
        "types": _counted(q.kind for questions in splits.values() for q in questions),
        "type_names": dict(known.types) if known else {},
        "in_several_splits": _in_several_splits(splits, cached),
    }
    return found


def _describe_split(
    questions: Sequence[Question], train: Sequence[Question], cached: _Cached | None
) -> dict[str, Any]:
    answers = {question.answer for question in questions if question.answer is not None}
    found: dict[str, Any] = {
        "questions": len(questions),
        "videos": len({question.video_id for question in questions}),
        "answered": sum(question.answer is not None for question in questions),
        "distinct_answers": len(answers),
        "heads": _counted(question.head for question in questions),
        "measures": sorted({question.measure for question in questions}),
        "majority": _majority(questions, train),
    }
    if cached is not None:
        found["in_cache"] = len(cached.done(questions))
    return found


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
    return f"choice {question.right}" if question.right is not None else question.answer


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
