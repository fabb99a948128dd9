"""On which questions a model is judged, and what it knew of them: an honest figure needs both.

A model keeps the list of the videos that it has seen (`features.questions.seen_videos`). Where all
of these train by the splits that a plain training of the files would make, it is judged on their
test split. Else (a registry, whose held videos no file names, other files that call test what it
has seen, or nothing) it is judged on all that it has not seen:
`features.questions.splits.deal_to_ask`, by which scoring goes too. A model without the list, which
older versions saved, is judged on a split as its training would make it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from framebank.features.errors import UsageError
from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import NO_LIST, content_hashes, find_seen
from framebank.train.data.splits import SPLITS, Splits, splits_of

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_FLATTERS = "so the figures flatter"
_NO_TRAINING = "the files hold no training questions: nothing stands beside the model"
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Asked:
    """The split `name` of `splits` is judged. `unseen` says that `splits` were made by what the
    model has seen, as no training of the files makes them; `flatters` tells what it knew of the
    split, "" where nothing. `seen` are the videos of all questions that it has seen, None where it
    keeps no list."""

    splits: Splits
    name: str
    unseen: bool = False
    flatters: str = ""
    seen: tuple[str, ...] | None = None

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
    as_trained: bool = False,
) -> Asked:
    """Return what is asked; `split` None is what the model has not seen, else test.

    `same_files` says that the model was trained from these questions and this cache, `chosen_on`
    which split its best epoch was chosen by, `as_trained` that it was trained from these files,
    whatever has come into the cache since. Raises UsageError, CacheError.
    """
    list_of_model = find_seen(model_dir)
    videos = {question.video_id: None for question in questions}
    contents = {} if list_of_model is None else content_hashes(cache, set(videos))
    seen = None
    if list_of_model is not None:
        seen = tuple(name for name in videos if list_of_model.has(name, contents))
    splits = splits_of(
        questions,
        seed=seed,
        val_share=val_share,
        seen=list_of_model,
        contents={} if as_trained else contents,
        judges=split is None,
    )
    if not splits.train:
        splits = dataclasses.replace(splits, remarks=(_NO_TRAINING,))
    if seen is not None and splits.changed:
        return _unseen(splits, seen, videos=len(videos))
    asked = Asked(splits, split or splits.judged_on, seen is not None and not same_files, seen=seen)
    if not asked.questions:
        counts = ", ".join(f"{len(splits.of(name))} of {name}" for name in SPLITS)
        raise UsageError(f"there is no question of the split {asked.name}", got=counts)
    remarks = splits.remarks
    if seen:
        told = f"the model has seen {len(seen)} of the {len(videos)} videos: {_some(seen)}"
        remarks = (*remarks, told)
    elif seen is None and not same_files:
        remarks = (*remarks, f"NOTE: {NO_LIST}: what it knows of these cannot be told")
    return dataclasses.replace(
        asked,
        splits=dataclasses.replace(splits, remarks=remarks),
        flatters=_flatters(asked, same_files=same_files, chosen_on=chosen_on),
    )


def _flatters(asked: Asked, *, same_files: bool, chosen_on: str) -> str:
    known = frozenset(asked.seen or ())
    about = [question.video_id for question in asked.questions if question.video_id in known]
    named = f" ({_some(tuple(dict.fromkeys(about)))})" if about else ""
    if same_files and asked.name == "train":
        knew = f"the model learnt from these questions{named}"
    elif same_files and asked.name == chosen_on:
        knew = f"the model's best epoch was chosen by these questions{named}"
    elif about:
        knew = (
            f"{len(about)} of these {len(asked.questions)} questions are about videos that the "
            f"model has seen{named}"
        )
    elif asked.name == "train" and asked.seen is None:
        knew = "what stands beside the model learnt, and maybe it, from these questions"
    else:
        return ""
    return f"{knew}, {_FLATTERS}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _unseen(splits: Splits, seen: tuple[str, ...], *, videos: int) -> Asked:
    """Return all questions about videos that were not seen, which are test."""
    if not splits.test:
        raise UsageError(
            "the model has seen every video of these questions",
            got=f"{videos} videos: {_some(seen)}",
            todo="give questions about other videos, or --split to judge it on these all the same",
        )
    note = (
        f"the model is judged on {videos - len(seen)} of {videos} videos, all that it has not seen"
    )
    if seen:
        note += f"; it has seen {_some(seen)}"
    notes = (note,) if splits.train else (note, _NO_TRAINING)
    return Asked(dataclasses.replace(splits, remarks=notes), "test", unseen=True, seen=seen)
