"""The questions of each split, as `features.questions.splits` deals them, and the held ones.

The held split of retraining are videos that judge models and that none of them has seen. A video is
held by a hash of its id alone, so it stays held whatever is added later, and whatever its bytes
become. A held video that a model has seen all the same (`features.questions.seen_videos`), since
another share was held then, or since a copy of it goes by another id, judges nobody.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from framebank.features.errors import UsageError
from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import Seen
from framebank.features.questions.splits import (
    SPLITS,
    VAL_SHARE,
    SplitRule,
    cut_groups,
    deal_splits,
    deal_to_ask,
    follow_videos,
)
from framebank.features.terminal import few
from framebank.train.model.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Splits:
    """The questions of each split, and what a person should know about how they came about.

    `changed` says that they are not what training makes of the files, since the model that is asked
    would then be judged on what it has seen; `carved` that no file names a val split, so that val
    are training videos set aside.
    """

    train: list[Question]
    val: list[Question]
    test: list[Question]
    remarks: tuple[str, ...] = ()
    changed: bool = False
    carved: bool = False

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

    def sides(self) -> dict[str, list[str]]:
        """Return the splits that each video stands in, in the order of SPLITS."""
        found = collections.defaultdict[str, list[str]](list)
        for name in SPLITS:
            for video_id in {question.video_id for question in self.of(name)}:
                found[video_id].append(name)
        return found


def assign_splits(
    questions: Sequence[Question],
    *,
    seed: int,
    val_share: float = VAL_SHARE,
    group_by: str | None = None,
) -> Splits:
    """Give every question a split; raises UsageError when there is nothing to train on, where the
    files' own splits cut a group, and for a pattern that finds none.

    Where the file has no val split `val_share` of the training videos become it, at 0 none.
    """
    grouped = SplitRule(group_by=group_by).grouped(questions)
    _check_groups(grouped, group_by)
    splits = splits_of(grouped, seed=seed, val_share=val_share)
    if not splits.train:
        counts = ", ".join(f"{len(splits.of(name))} of {name}" for name in SPLITS)
        raise UsageError(
            "there is nothing to train on",
            got=f"{len(questions)} questions: {counts}",
            todo="give a file with training questions. A split stands in the column split, else in "
            "the file's name (val_q.csv is val); rows without either are split by video",
        )
    return splits


def splits_to_train(questions: Sequence[Question], config: TrainConfig) -> Splits:
    """Return the splits that a training under `config` has; raises what `assign_splits` does."""
    return assign_splits(
        questions, seed=config.seed, val_share=config.val_share, group_by=config.group_by
    )


def _check_groups(questions: Sequence[Question], group_by: str | None) -> None:
    alone = sorted({q.video_id for q in questions if q.group is None})
    if group_by is not None and questions and len(alone) == len({q.video_id for q in questions}):
        raise UsageError(
            "--group-by finds no group in any video's id",
            got=f"{group_by!r}, for ids such as {', '.join(alone[:3])}",
            expected="a pattern whose first group, else all of it, names the source in an id",
        )
    stated = [question for question in questions if question.split is not None]
    if groups := cut_groups(stated):
        raise UsageError(
            "the files put clips of one group on both sides of a split",
            got=f"{few(groups)} ({len(groups)} in all)",
            expected="all clips of a group in one split",
            todo="correct the column split, or leave it out: groups are then split whole",
        )


def splits_of(
    questions: Sequence[Question],
    *,
    seed: int,
    val_share: float = VAL_SHARE,
    group_by: str | None = None,
    seen: Seen | None = None,
    contents: Mapping[str, str] | None = None,
    judges: bool = False,
) -> Splits:
    """Give every question a split, as `assign_splits` does, where none need be left to train on.

    `seen` is what the model that is asked has seen; `contents` maps videos to hashes of files. With
    `judges` test holds nothing that it has seen (`deal_to_ask`).
    """
    rule = SplitRule(seed, val_share, group_by=group_by)
    hashes, changed = contents or {}, False
    has_seen = None if seen is None else lambda q: seen.has(q.video_id, hashes, group=q.group)
    if judges and has_seen is not None:
        dealt, remarks, changed = deal_to_ask(questions, rule, has_seen)
    else:
        dealt, remarks = deal_splits(questions, rule, has_seen=has_seen)
    train, val, test = ([q for q in dealt if q.split == name] for name in SPLITS)
    splits = Splits(train, val, test)
    leaks = sorted(video_id for video_id, its in splits.sides().items() if len(its) > 1)
    if leaks:
        remarks.append(
            f"WARNING: {len(leaks)} videos stand on both sides of a split, so the figures flatter: "
            + ", ".join(leaks[:5])
        )
    if not splits.test:
        judge = splits.judged_on
        remarks.append(f"there are no test questions: figures are of the split {judge}")
    carved = not any(question.split == "val" for question in questions)
    return dataclasses.replace(splits, remarks=tuple(remarks), changed=changed, carved=carved)


def is_held(source: str, *, share: float) -> bool:
    """Return whether a video, or a group, is among the `share` that is held."""
    digest = hashlib.sha256(b"held\0" + source.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def part_questions(
    questions: Sequence[Question], *, share: float
) -> tuple[list[Question], list[Question]]:
    """Return (questions to train on, held questions)."""
    held = {name for name in {q.source for q in questions} if is_held(name, share=share)}
    return (
        [question for question in questions if question.source not in held],
        [question for question in questions if question.source in held],
    )


def seen_by(questions: Iterable[Question], contents: Mapping[str, str]) -> Seen:
    """Return what a model trained on `questions` has seen: all but the videos of test."""
    dealt = [q for q in follow_videos(list(questions), "train") if q.split != "test"]
    videos = {question.video_id for question in dealt}
    return Seen(
        frozenset(videos),
        frozenset(contents[name] for name in videos if name in contents),
        frozenset(question.group for question in dealt if question.group is not None),
    )
