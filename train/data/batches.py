"""The input pipeline: cached features joined with questions, as batches padded on the right.

A batch is

    {"features": float[b, n, d], "words": int32[b, l], "answer": int32[b] (a count: float32),
     "weight": float32[b], "index": int64[b], "place": int32[b]}

and "choices": int32[b, c, l] for questions with candidates,

with features in the cache's own float16 or float32: they become float32 on the device.

The order of an epoch and what is in each global batch follow from seed and epoch alone
(`train.data.epoch_order`); of a global batch each replica gets the rows of its own lanes, padded to
the longest clip of the *global* batch. `weight` is one over the number of real rows of the global
batch, so that the sum of weight × loss over any number of replicas is the batch's mean loss. Rows
that only fill up have index -1 and weight 0. `place` is the row's place in the global batch, from
which dropout takes its noise (`train.model.row_dropout`).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.questions.question import Question
from framebank.features.questions.word_cutting import encode_texts
from framebank.train.data.clip_features import (
    Clips,
    ShardClips,
    find_places,
)
from framebank.train.data.epoch_order import NO_ROW, Ints, Plan, Stored, plan_epoch
from framebank.train.data.shard_files import ShardFiles, Staging, shard_files
from framebank.train.model.heads import Head

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

SHUFFLE_BYTES = 2**28

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class QuestionTable:
    """Questions as numbers: `words` is padded int32[q, l], `answer` is the head's `truth`.

    `choices` int32[q, c, l] are the words of the candidates where there are any.
    """

    questions: Sequence[Question]
    words: NDArray[np.int32]
    answer: NDArray[Any]
    choices: NDArray[np.int32] | None = None

    @classmethod
    def of(cls, questions: Sequence[Question], head: Head, *, text: Any) -> QuestionTable:
        """`text` turns string[q] into int[q, l], as `train.model.text.word_numbers` does."""
        asked = encode_texts(question.question for question in questions)
        words = np.asarray(text(tf.constant(asked, tf.string)))
        choices = head.choices(questions, text)
        return cls(questions, words.astype(np.int32), head.truth(questions), choices)

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, rows: Ints) -> QuestionTable:
        """Return some of the rows."""
        questions = [self.questions[row] for row in rows.tolist()]
        choices = None if self.choices is None else self.choices[rows]
        return QuestionTable(questions, self.words[rows], self.answer[rows], choices)

    def join(self, other: QuestionTable) -> QuestionTable:
        """Return the rows of both, one after the other."""
        tables = (self, other)
        words = _stack([table.words for table in tables])
        choices = None
        if self.choices is not None and other.choices is not None:
            choices = _stack([self.choices, other.choices])
        answers = np.concatenate([table.answer for table in tables])
        return QuestionTable([*self.questions, *other.questions], words, answers, choices)


def _stack(tables: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the rows of all, padded on the right to the widest."""
    most = np.max([table.shape[1:] for table in tables], axis=0)
    return np.concatenate(
        [
            np.pad(
                table,
                [(0, 0), *((0, int(size - own)) for size, own in zip(most, table.shape[1:]))],
            )
            for table in tables
        ]
    )


@dataclasses.dataclass(frozen=True)
class Share:
    """Which replicas this process feeds: `first` and the `local` ones after it, of `replicas`."""

    first: int = 0
    local: int = 1
    replicas: int = 1


def steps_per_epoch(table: QuestionTable, batch_size: int) -> int:
    return -(-len(table) // batch_size)


class Features:
    """Features of the videos that have questions, as batches; `width` is d."""

    def __init__(
        self,
        video_ids: Sequence[str],
        stored: Stored,
        clips: Clips,
        *,
        width: int,
        dtype: Any,
        share: Share = Share(),
        shuffle_bytes: int = SHUFFLE_BYTES,
    ) -> None:
        """`video_ids` are in the order of `stored`; batches have features of `dtype`."""
        self.width, self.stored, self.clips, self.share = width, stored, clips, share
        self._dtype = np.dtype(dtype)
        self._number = {video_id: number for number, video_id in enumerate(video_ids)}
        self._shuffle_bytes = shuffle_bytes

    def number(self, video_id: str) -> int:
        """Return the number by which `clips` knows the video."""
        return self._number[video_id]

    def training_batches(
        self, table: QuestionTable, *, batch_size: int, seed: int, epoch: int, skip: int = 0
    ) -> Iterator[Batch]:
        """Yield epoch `epoch` in its own order, without its first `skip` batches.

        For each step there is one batch per local replica, one after the other.
        """
        return self._batches(table, batch_size, skip, [seed, epoch])

    def batches(self, table: QuestionTable, *, batch_size: int) -> Iterator[Batch]:
        """Yield this process's questions once, in order of place; "index" says which."""
        return self._batches(table, batch_size, 0, None)

    def _batches(
        self, table: QuestionTable, batch_size: int, skip: int, seed: Sequence[int] | None
    ) -> Iterator[Batch]:
        video = np.array([self._number[q.video_id] for q in table.questions], np.int64)
        plan = plan_epoch(
            self.stored,
            video,
            batch_size=batch_size,
            window_bytes=self._shuffle_bytes,
            frame_bytes=self.width * self._dtype.itemsize,
            seed=seed,
        )
        share = self.share
        longest = _longest_texts(table)
        replica = self.stored.replica(self.stored.lane[video], replicas=share.replicas)
        ours = (replica >= share.first) & (replica < share.first + share.local)
        coming = _Coming(plan, skip, video, ours, self.clips)
        for step in range(skip, len(plan.rows)):
            rows = plan.rows[step]
            weight = 1 / max(int(np.count_nonzero(rows >= 0)), 1)
            for number in range(share.first, share.first + share.local):
                places = np.flatnonzero((rows >= 0) & (replica[rows] == number))
                size = batch_size if share.replicas == 1 else max(len(places), 1)
                clips = [coming.take(int(video[row])) for row in rows[places]]
                shape = (size, max(int(plan.frames[step]), 1), self.width)
                batch = _assemble(table, rows[places], clips, shape, self._dtype)
                for name, used in longest.items():
                    batch[name] = batch[name][..., : max(int(used[rows].max()), 1)]
                batch["weight"] = (batch["index"] >= 0) * np.float32(weight)
                batch["place"][: len(places)] = places
                with tf.device("cpu:0"):
                    yield {name: tf.convert_to_tensor(column) for name, column in batch.items()}


def _longest_texts(table: QuestionTable) -> dict[str, Ints]:
    """Return by column how many words each question has, int64[q]; of candidates the longest."""
    used = {"words": (table.words != 0).sum(axis=1)}
    if table.choices is not None:
        used["choices"] = (table.choices != 0).sum(axis=2).max(axis=1)
    return used


def _assemble(
    table: QuestionTable,
    rows: NDArray[np.int64],
    clips: Sequence[NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: Any,
) -> dict[str, NDArray[Any]]:
    """Return a batch of `shape` (b, n, d) with `rows` at its beginning; weights are left to do."""
    index = np.full(shape[0], NO_ROW, np.int64)
    index[: len(rows)] = rows
    features = np.zeros(shape, dtype)
    for row, clip in enumerate(clips):
        features[row, : len(clip)] = clip
    asked = np.maximum(index, 0)
    choices = {} if table.choices is None else {"choices": table.choices[asked]}
    return choices | {
        "features": features,
        "words": table.words[asked],
        "answer": table.answer[asked],
        "weight": np.zeros(shape[0], np.float32),
        "index": index,
        "place": np.zeros(shape[0], np.int32),
    }


class _Coming:
    """Reads a video when its first row is wanted and holds it until its last: within a window of
    the shuffle the rows of a video lie close together."""

    def __init__(self, plan: Plan, skip: int, video: Ints, ours: NDArray[np.bool_], clips: Clips):
        rows = plan.rows[skip:].reshape(-1)
        rows = rows[rows >= 0]
        wanted = video[rows[ours[rows]]]
        self._uses, self._clips = collections.Counter(wanted.tolist()), clips
        self._held: dict[int, NDArray[Any]] = {}
        clips.announce(np.array(list(self._uses), np.int64))  # in order of first use

    def take(self, number: int) -> NDArray[Any]:
        if number not in self._held:
            self._held[number] = self._clips.read(number)
        self._uses[number] -= 1
        return self._held[number] if self._uses[number] else self._held.pop(number)


def cached_features(
    cache: Cache,
    video_ids: Mapping[str, Any],
    *,
    files: ShardFiles | None = None,
    share: Share = Share(),
    keep_bytes: int = 0,
    shuffle_bytes: int = SHUFFLE_BYTES,
) -> Features:
    """Return the features of `video_ids`, read from the shards of `cache` (or staged `files`)."""
    places = find_places(cache, video_ids)
    names = {shard: number for number, shard in enumerate(sorted({p.shard for p in places}))}
    stored = Stored.dealt(
        [names[place.shard] for place in places],
        [place.rows for place in places],
        replicas=share.replicas,
    )
    files = files or shard_files(cache.path, Staging())
    return Features(
        [place.video_id for place in places],
        stored,
        ShardClips(places, files, keep_bytes=keep_bytes),
        width=cache.feature_dim or 0,
        dtype=np.float16 if cache.spec.dtype == "float16" else np.float32,
        share=share,
        shuffle_bytes=shuffle_bytes,
    )
