"""What a question is for: to train, to choose the best epoch, or to judge. One rule for all.

1. A row that states a split has it; in a file that is named for one the other rows have that. To
   train, names count only beside other files, and only where they leave something to train on.
2. A row without one follows its source, where other rows of it have one. A source is a video, or
   the clips of one group: the column `group` states it, or a pattern finds it in the clip's id.
3. The others are dealt by source with a stable hash, so that a source stays on its side when the
   files grow. For a model that is asked, what it has seen trained it and the rest judges it.
4. Where there is no val, a share of the training sources becomes it.
5. Where a model that is asked has seen what does not train by these splits, or there is no test
   split, it was trained otherwise: then all that it has not seen is test. Whoever asks about the
   files that a model was trained on tells what it has seen by ids alone: copies of training videos
   that its training judged it on stay where they were.

Training, evaluation and scoring go this way with the seed and the share of the model, over the
questions that have an answer and a video that is done: they agree on each. Of the files that a
model was trained on, names count as they did then.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from framebank.features.errors import UsageError
from framebank.features.questions.question import Question, with_group, with_split
from framebank.features.questions.sources import compile_grouping, group_of, suspect_sources
from framebank.features.terminal import few

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {split: split for split in SPLITS} | {"training": "train", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("valid", "validation", "dev"), "val")
VAL_SHARE = 0.1
TEST_SHARE = 0.1

Seen = Callable[[Question], bool]


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """How rows without a split are dealt: `seed` of the hash, and shares of the sources.

    At a `val_share` of 0 no val split is made. `group_by` is the pattern that finds the group of a
    row without one in its video's id.
    """

    seed: int = 0
    val_share: float = VAL_SHARE
    test_share: float = TEST_SHARE
    group_by: str | None = None

    def grouped(self, questions: Sequence[Question]) -> list[Question]:
        """Return the questions with their groups: a row without one has that of the other rows
        about its video, else what the pattern finds.

        Raises UsageError for a video of two groups, and for a pattern that is none.
        """
        groups: dict[str, str | None] = {}
        for q in questions:
            if q.group is not None and groups.setdefault(q.video_id, q.group) != q.group:
                raise UsageError(
                    "a video has two groups",
                    got=f"{groups[q.video_id]!r} and {q.group!r} for {q.video_id}",
                    expected="one group, which all clips of its source have",
                )
        if self.group_by is not None:
            pattern = compile_grouping(self.group_by)
            for video_id in {q.video_id for q in questions} - set(groups):
                groups[video_id] = group_of(video_id, pattern)
        if not groups:
            return list(questions)
        return [
            q if q.group == (group := groups.get(q.video_id)) else with_group(q, group)
            for q in questions
        ]


def split_of_name(path: str) -> str | None:
    """Return the split that a file is named for (`train_qa.json`, `Test_count_question.csv`).

    A name that has several of them (`train_val.csv`) tells none.
    """
    words = re.split(r"[^a-z]+", PurePosixPath(path).stem.lower())
    named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return named.pop() if len(named) == 1 else None


def join_files(
    files: Sequence[tuple[str, Sequence[Question]]], *, to_train: bool
) -> list[Question]:
    """Return the questions of all files, (path, its questions), with the splits of their names.

    `to_train` says that the files are to be trained on, or that the model was.
    """
    named = [
        _with_split(question, split) if split else question
        for split, questions in ((split_of_name(path), questions) for path, questions in files)
        for question in questions
    ]
    if to_train:
        some = any(q.answer is not None and q.split in ("train", None) for q in named)
        if len(files) == 1 or not some:  # the names would leave nothing to train on
            return [question for _, questions in files for question in questions]
    return named


def deal_splits(
    questions: Sequence[Question], rule: SplitRule, *, has_seen: Seen | None = None
) -> tuple[list[Question], list[str]]:
    """Return the questions, each with a split, and remarks for people on how it came about.

    `has_seen` says of a question whether the model that is asked has seen its video.
    """
    remarks: list[str] = []
    dealt = _fill_in(rule.grouped(questions), rule, has_seen, remarks)
    if rule.val_share and not any(question.split == "val" for question in dealt):
        dealt = _carve_val(dealt, rule, remarks)
    _warn_of_sources(dealt, remarks)
    return dealt, remarks


def deal_to_ask(
    questions: Sequence[Question], rule: SplitRule, has_seen: Seen
) -> tuple[list[Question], list[str], bool]:
    """Return the questions as `deal_splits` does, or with all in test that the model has not seen
    where it was not trained by these splits, and whether that is so.

    A video that stands on both sides in the files is on both here too.
    """
    dealt, remarks = deal_splits(questions, rule, has_seen=has_seen)
    seen = _seen_sources(dealt, has_seen)
    learnt = {q.source for q in dealt if q.split != "test"}
    judges = any(q.split == "test" for q in dealt) or all(seen.values())
    if judges and all(name in learnt for name, known in seen.items() if known):
        return dealt, remarks, False
    again = [
        with_split(q, "test" if not seen[q.source] else "val" if q.split == "val" else "train")
        for q in dealt
    ]
    return again, [*remarks, "all that the model has not seen is test"], True


def follow_videos(questions: Sequence[Question], otherwise: str) -> list[Question]:
    """Return the questions, those without a split with that of their source, else `otherwise`."""
    stated = _stated(questions)
    return [_with_split(q, stated.get(q.source, otherwise)) for q in questions]


def video_place(video_id: str, *, seed: int) -> float:
    """Return the place of a video, or a group, in [0, 1), from a hash of id and seed."""
    digest = hashlib.sha256(f"{seed}\0{video_id}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _stated(questions: Sequence[Question]) -> dict[str, str]:
    return {q.source: q.split for q in questions if q.split is not None}


def _seen_sources(questions: Sequence[Question], has_seen: Seen) -> dict[str, bool]:
    """Return by source whether any of its videos was seen."""
    videos = {q.video_id: q for q in questions}
    known = {video_id: has_seen(question) for video_id, question in videos.items()}
    seen: dict[str, bool] = {}
    for question in questions:
        seen[question.source] = seen.get(question.source, False) or known[question.video_id]
    return seen


def _warn_of_sources(questions: Sequence[Question], remarks: list[str]) -> None:
    """Say where clips of one source stand on both sides of a split, or seem to by their ids."""
    if any(question.group is not None for question in questions):
        if groups := cut_groups(questions):
            remarks.append(
                f"WARNING: clips of one group stand on both sides of a split ({few(groups)}, "
                f"{len(groups)} in all), so the figures may flatter"
            )
        return
    split = {question.video_id: question.split for question in questions}
    sources = suspect_sources(split)
    sides: dict[str, set[str | None]] = {}
    for video_id, source in sources.items():
        sides.setdefault(source, set()).add(split[video_id])
    cut = sorted(source for source, its in sides.items() if len(its) > 1)
    if cut:
        remarks.append(
            f"WARNING: the ids look like {len(sources)} clips of {len(sides)} sources, of which "
            f"{len(cut)} stand on both sides of a split, so the figures may flatter: "
            f"{few(cut)}; give the column group, or --group-by"
        )


def cut_groups(questions: Sequence[Question]) -> list[str]:
    """Return the groups of which some clips have one split, and some another."""
    sides: dict[str, set[str | None]] = {}
    for question in questions:
        if question.group is not None:
            sides.setdefault(question.group, set()).add(question.split)
    return sorted(group for group, its in sides.items() if len(its) > 1)


def _with_split(question: Question, split: str) -> Question:
    return with_split(question, split) if question.split is None else question


def _fill_in(
    questions: Sequence[Question], rule: SplitRule, has_seen: Seen | None, remarks: list[str]
) -> list[Question]:
    """Split questions without a split by source; one whose source has a split follows it."""
    given = _stated(questions)
    loose = {q.source for q in questions if q.split is None} - set(given)
    of_groups = any(q.group is not None for q in questions)
    have = set(given.values())
    test_share = 0.0 if have and "test" not in have else rule.test_share
    places = {source: video_place(source, seed=rule.seed) for source in loose}
    chosen = {
        source: _split_at(place, test_share, rule.val_share) for source, place in places.items()
    }
    if not given:
        _fill_empty(chosen, places, rule)
    if has_seen is not None:
        seen = _seen_sources(questions, has_seen)
        for source in loose:
            learnt = "train" if chosen[source] == "test" else chosen[source]
            chosen[source] = learnt if seen[source] else "test"
    if loose:
        what = "groups" if of_groups else "videos"
        by = "what the model has seen" if has_seen is not None else what.removesuffix("s")
        remarks.append(f"{len(loose)} {what} without a split were split by {by}")
    chosen |= given
    return [_with_split(q, chosen[q.source]) for q in questions]


def _split_at(place: float, test_share: float, val_share: float) -> str:
    if place >= 1 - test_share:
        return "test"
    return "val" if place >= 1 - test_share - val_share else "train"


def _fill_empty(chosen: dict[str, str], places: dict[str, float], rule: SplitRule) -> None:
    """Where chance left a split without a video (there are few), split by rank instead."""
    wanted = {name for name in SPLITS if rule.val_share or name != "val"}
    if set(chosen.values()) == wanted:
        return
    order = sorted(chosen, key=lambda video_id: (places[video_id], video_id), reverse=True)
    tests = max(1, round(rule.test_share * len(order))) if len(order) >= 3 else 0
    vals = max(1, round(rule.val_share * len(order))) if rule.val_share and len(order) >= 2 else 0
    vals = min(vals, max(len(order) - tests - 1, 0))  # one is left to train on
    for rank, video_id in enumerate(order):
        chosen[video_id] = "test" if rank < tests else "val" if rank < tests + vals else "train"


def _carve_val(questions: list[Question], rule: SplitRule, remarks: list[str]) -> list[Question]:
    """Move a share of the training sources (at least one, if two are left) to val."""
    sources = {q.source for q in questions if q.split == "train"}
    what = "group" if any(q.group is not None for q in questions) else "video"
    if len(sources) < 2:
        if sources:
            remarks.append(
                f"one {what} alone trains: the best epoch is chosen on the training split"
            )
        return questions
    order = sorted(sources, key=lambda v: (video_place(v, seed=rule.seed), v), reverse=True)
    # At least one of them, and one is left to train on.
    carved = set(order[: min(max(1, round(rule.val_share * len(order))), len(order) - 1)])
    remarks.append(f"no val split was given: {len(carved)} training {what}s became val")
    return [
        with_split(q, "val") if q.split == "train" and q.source in carved else q for q in questions
    ]
