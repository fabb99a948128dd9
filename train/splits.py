"""Which questions train, which choose the best epoch, which judge: never two by one video.

Splits come from the file; questions without one are split by video with a stable hash, so that a
video stays on its side when the file grows.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

from features.errors import UsageError
from features.questions import Question, split_of_name

SPLITS = ("train", "val", "test")
VAL_SHARE = 0.1
_TEST_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Splits:
    """The questions of each split, and what a person should know about how they came about."""

    train: list[Question]
    val: list[Question]
    test: list[Question]
    remarks: tuple[str, ...] = ()

    @property
    def judged_on(self) -> str:
        """Return the split that figures are reported on: test, else val, else train."""
        return "test" if self.test else "val" if self.val else "train"

    @property
    def stopped_on(self) -> str:
        """Return the split that chooses the best epoch: val, else train."""
        return "val" if self.val else "train"

    def of(self, name: str) -> list[Question]:
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def with_file_splits(files: Sequence[tuple[str, list[Question]]]) -> list[Question]:
    """Join several files' questions; files named for splits (train_qa.json …) give them theirs.

    Names count only where several files were given, no row says otherwise, and one says train.
    """
    named = [split_of_name(path) for path, _ in files]
    use_names = len(files) > 1 and "train" in named
    joined = []
    for name, (_, questions) in zip(named, files, strict=True):
        for question in questions:
            if use_names and question.split is None and name is not None:
                question = dataclasses.replace(question, split=name)
            joined.append(question)
    return joined


def assign_splits(
    questions: Sequence[Question], *, seed: int, val_share: float = VAL_SHARE
) -> Splits:
    """Give every question a split; raises UsageError when there is nothing to train on.

    Where the file has no val split `val_share` of the training videos become it, at 0 none.
    """
    remarks: list[str] = []
    questions = _fill_in(questions, seed, val_share, remarks)
    if not any(question.split == "train" for question in questions):
        raise UsageError(
            "there is nothing to train on",
            got=f"{len(questions)} questions, none in the split train",
            todo="give a file with training questions, or leave the split column out",
        )
    if val_share and not any(question.split == "val" for question in questions):
        questions = _carve_val(questions, seed, val_share, remarks)
    _warn_of_leaks(questions, remarks)
    parts = {name: [q for q in questions if q.split == name] for name in SPLITS}
    if not parts["test"]:
        judge = "val" if parts["val"] else "train"
        remarks.append(f"there are no test questions: figures are of the split {judge}")
    return Splits(parts["train"], parts["val"], parts["test"], tuple(remarks))


def video_place(video_id: str, *, seed: int) -> float:
    """Return the video's place in [0, 1), from a hash of id and seed."""
    digest = hashlib.sha256(f"{seed}\0{video_id}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _fill_in(
    questions: Sequence[Question], seed: int, val_share: float, remarks: list[str]
) -> list[Question]:
    """Split questions without a split by video; one whose video has a split follows it."""
    given = {q.video_id: q.split for q in questions if q.split is not None}
    loose = {q.video_id for q in questions if q.split is None} - set(given)
    if not loose and all(q.split is not None for q in questions):
        return list(questions)
    have = {split for split in given.values() if split}
    test_share = 0.0 if have and "test" not in have else _TEST_SHARE
    places = {video_id: video_place(video_id, seed=seed) for video_id in loose}
    chosen = {
        video_id: _split_at(place, test_share, val_share) for video_id, place in places.items()
    }
    if not given:
        _fill_empty(chosen, places, val_share)
    if loose:
        remarks.append(f"{len(loose)} videos without a split were split by video")
    return [
        q
        if q.split is not None
        else dataclasses.replace(q, split=given.get(q.video_id) or chosen[q.video_id])
        for q in questions
    ]


def _split_at(place: float, test_share: float, val_share: float) -> str:
    if place >= 1 - test_share:
        return "test"
    return "val" if place >= 1 - test_share - val_share else "train"


def _fill_empty(chosen: dict[str, str], places: dict[str, float], val_share: float) -> None:
    """Where chance left a split without a video (there are few), split by rank instead."""
    wanted = {name for name in SPLITS if val_share or name != "val"}
    if set(chosen.values()) == wanted:
        return
    order = sorted(chosen, key=lambda video_id: (places[video_id], video_id), reverse=True)
    tests = max(1, round(_TEST_SHARE * len(order))) if len(order) >= 3 else 0
    vals = max(1, round(val_share * len(order))) if val_share and len(order) >= 2 else 0
    vals = min(vals, max(len(order) - tests - 1, 0))  # one is left to train on
    for rank, video_id in enumerate(order):
        chosen[video_id] = "test" if rank < tests else "val" if rank < tests + vals else "train"


def _carve_val(
    questions: list[Question], seed: int, val_share: float, remarks: list[str]
) -> list[Question]:
    """Move `val_share` of the training videos (at least one, if two are left) to val."""
    video_ids = {q.video_id for q in questions if q.split == "train"}
    if len(video_ids) < 2:
        remarks.append("one video alone trains: the best epoch is chosen on the training split")
        return questions
    order = sorted(video_ids, key=lambda v: (video_place(v, seed=seed), v), reverse=True)
    # At least one of them, and one is left to train on.
    carved = set(order[: min(max(1, round(val_share * len(order))), len(order) - 1)])
    remarks.append(f"no val split was given: {len(carved)} training videos became val")
    return [
        dataclasses.replace(q, split="val") if q.split == "train" and q.video_id in carved else q
        for q in questions
    ]


def _warn_of_leaks(questions: Iterable[Question], remarks: list[str]) -> None:
    sides: dict[str, set[str]] = {}
    for question in questions:
        sides.setdefault(question.video_id, set()).add(question.split or "")
    leaks = sorted(video_id for video_id, names in sides.items() if len(names) > 1)
    if leaks:
        remarks.append(
            f"WARNING: {len(leaks)} videos stand on both sides of a split, so the figures flatter: "
            + ", ".join(leaks[:5])
        )
