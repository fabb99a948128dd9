"""What a question is for: to train, to choose the best epoch, or to judge. One rule for all.

1. A row that states a split has it; in a file that is named for one the other rows have that. To
   train, names count only beside other files, and only where they leave something to train on.
2. A row without one follows its video, where other rows of it have one.
3. The others are dealt by video with a stable hash, so that a video stays on its side when the
   files grow. For a model that is asked, what it has seen trained it and the rest judges it.
4. Where there is no val, a share of the training videos becomes it.
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

from framebank.features.questions.question import Question, with_split

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {split: split for split in SPLITS} | {"training": "train", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("valid", "validation", "dev"), "val")
VAL_SHARE = 0.1
TEST_SHARE = 0.1

Seen = Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """How rows without a split are dealt: `seed` of the hash, and shares of the videos.

    At a `val_share` of 0 no val split is made.
    """

    seed: int = 0
    val_share: float = VAL_SHARE
    test_share: float = TEST_SHARE


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

    `has_seen` says of a video whether the model that is asked has seen it.
    """
    remarks: list[str] = []
    dealt = _fill_in(questions, rule, has_seen, remarks)
    if rule.val_share and not any(question.split == "val" for question in dealt):
        dealt = _carve_val(dealt, rule, remarks)
    return dealt, remarks


def deal_to_ask(
    questions: Sequence[Question], rule: SplitRule, has_seen: Seen
) -> tuple[list[Question], list[str], bool]:
    """Return the questions as `deal_splits` does, or with all in test that the model has not seen
    where it was not trained by these splits, and whether that is so.

    A video that stands on both sides in the files is on both here too.
    """
    dealt, remarks = deal_splits(questions, rule, has_seen=has_seen)
    seen = {video_id: has_seen(video_id) for video_id in {q.video_id for q in dealt}}
    learnt = {q.video_id for q in dealt if q.split != "test"}
    judges = any(q.split == "test" for q in dealt) or all(seen.values())
    if judges and all(name in learnt for name, known in seen.items() if known):
        return dealt, remarks, False
    again = [
        with_split(q, "test" if not seen[q.video_id] else "val" if q.split == "val" else "train")
        for q in dealt
    ]
    return again, [*remarks, "all that the model has not seen is test"], True


def follow_videos(questions: Sequence[Question], otherwise: str) -> list[Question]:
    """Return the questions, those without a split with that of their video, else `otherwise`."""
    stated = _stated(questions)
    return [_with_split(q, stated.get(q.video_id, otherwise)) for q in questions]


def video_place(video_id: str, *, seed: int) -> float:
    """Return the video's place in [0, 1), from a hash of id and seed."""
    digest = hashlib.sha256(f"{seed}\0{video_id}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _stated(questions: Sequence[Question]) -> dict[str, str]:
    return {q.video_id: q.split for q in questions if q.split is not None}


def _with_split(question: Question, split: str) -> Question:
    return with_split(question, split) if question.split is None else question


def _fill_in(
    questions: Sequence[Question], rule: SplitRule, has_seen: Seen | None, remarks: list[str]
) -> list[Question]:
    """Split questions without a split by video; one whose video has a split follows it."""
    given = _stated(questions)
    loose = {q.video_id for q in questions if q.split is None} - set(given)
    have = set(given.values())
    test_share = 0.0 if have and "test" not in have else rule.test_share
    places = {video_id: video_place(video_id, seed=rule.seed) for video_id in loose}
    chosen = {
        video_id: _split_at(place, test_share, rule.val_share) for video_id, place in places.items()
    }
    if not given:
        _fill_empty(chosen, places, rule)
    if has_seen is not None:
        for video_id in loose:
            learnt = "train" if chosen[video_id] == "test" else chosen[video_id]
            chosen[video_id] = learnt if has_seen(video_id) else "test"
    if loose:
        by = "what the model has seen" if has_seen is not None else "video"
        remarks.append(f"{len(loose)} videos without a split were split by {by}")
    chosen |= given
    return [_with_split(q, chosen[q.video_id]) for q in questions]


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
    """Move a share of the training videos (at least one, if two are left) to val."""
    video_ids = {q.video_id for q in questions if q.split == "train"}
    if len(video_ids) < 2:
        if video_ids:
            remarks.append("one video alone trains: the best epoch is chosen on the training split")
        return questions
    order = sorted(video_ids, key=lambda v: (video_place(v, seed=rule.seed), v), reverse=True)
    # At least one of them, and one is left to train on.
    carved = set(order[: min(max(1, round(rule.val_share * len(order))), len(order) - 1)])
    remarks.append(f"no val split was given: {len(carved)} training videos became val")
    return [
        with_split(q, "val") if q.split == "train" and q.video_id in carved else q
        for q in questions
    ]
