"""On which questions a model is judged, and what it knew of them: an honest figure needs both.

A model of a registry carries the list of the videos that it has seen (`train.held_split`). It is
judged on all others, whatever the splits of a plain training would be: those would call videos test
that it has learnt from. Any other model is judged on a split as its training made it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from features import storage
from features.errors import UsageError
from features.questions import Question
from features.seen_videos import SEEN, Seen, content_hashes, read_seen
from train.splits import SPLITS, Splits, splits_of

if TYPE_CHECKING:
    from features.cache import Cache

_FLATTERS = "so the figures flatter"


@dataclasses.dataclass(frozen=True)
class Asked:
    """The split `name` of `splits` is judged. `unseen` says that `splits` were made so that a model
    of a registry has seen nothing of it; `flatters` tells what it knew of it, "" where nothing."""

    splits: Splits
    name: str
    unseen: bool = False
    flatters: str = ""

    @property
    def questions(self) -> list[Question]:
        return self.splits.of(self.name)


def choose(
    questions: Sequence[Question],
    cache: Cache,
    model_dir: str,
    *,
    split: str | None,
    seed: int,
    val_share: float,
    same_files: bool,
    chosen_on: str,
) -> Asked:
    """Return what is asked; `split` None is what the model has not seen, else test.

    `same_files` says that the model was trained from these questions and this cache, `chosen_on`
    which split its best epoch was chosen by. Raises UsageError, CacheError.
    """
    contents: dict[str, str] = {}
    seen = None
    if storage.exists(storage.join(model_dir, SEEN)):
        seen = read_seen(model_dir)
        contents = content_hashes(cache, {question.video_id for question in questions})
    if seen is not None and split is None:
        return _unseen(questions, seen, contents)
    splits = _splits(questions, seed, val_share, seen, contents)
    asked = Asked(splits, split or splits.judged_on)
    if not asked.questions:
        counts = ", ".join(f"{len(splits.of(name))} of {name}" for name in SPLITS)
        raise UsageError(f"there is no question of the split {asked.name}", got=counts)
    flatters = ""
    if seen is not None:
        known = sum(seen.has(q.video_id, contents) for q in asked.questions)
        if known:
            flatters = (
                f"{known} of these {len(asked.questions)} questions are about videos that the "
                f"model has seen, {_FLATTERS}"
            )
    elif asked.name == "train":
        knew = (
            "the model learnt"
            if same_files
            else "what stands beside the model learnt, and maybe it,"
        )
        flatters = f"{knew} from these questions, {_FLATTERS}"
    elif same_files and asked.name == chosen_on:
        flatters = f"the model's best epoch was chosen by these questions, {_FLATTERS}"
    return dataclasses.replace(asked, flatters=flatters)


def _unseen(questions: Sequence[Question], seen: Seen, contents: dict[str, str]) -> Asked:
    """Return all questions about videos that were not seen as test, the others as train."""
    parts: dict[str, list[Question]] = {name: [] for name in SPLITS}
    for question in questions:
        known = seen.has(question.video_id, contents)
        name = "test" if not known else "val" if question.split == "val" else "train"
        parts[name].append(dataclasses.replace(question, split=name))
    videos = {question.video_id for question in questions}
    asked = {question.video_id for question in parts["test"]}
    if not asked:
        raise UsageError(
            "the model has seen every video of these questions",
            got=f"{len(videos)} videos",
            todo="give questions about other videos, or --split to judge it on these all the same",
        )
    note = f"the model is judged on {len(asked)} of {len(videos)} videos, all that it has not seen"
    return Asked(Splits(parts["train"], parts["val"], parts["test"], (note,)), "test", unseen=True)


def _splits(
    questions: Sequence[Question],
    seed: int,
    val_share: float,
    seen: Seen | None,
    contents: dict[str, str],
) -> Splits:
    """Return the splits as training makes them."""
    splits = splits_of(questions, seed=seed, val_share=val_share, seen=seen, contents=contents)
    if splits.train:
        return splits
    note = "the files hold no training questions: nothing stands beside the model"
    return dataclasses.replace(splits, remarks=(note,))
