"""The input pipeline: cached features joined with questions, as batches padded on the right.

A batch is

    {"features": float[b, n, d], "words": int32[b, l], "answer": int32[b] (a count: float32),
     "weight": float32[b], "index": int64[b], "place": int32[b]}

and "choices": int32[b, c, l] for questions with candidates,

with features in the cache's own float16 or float32: they become float32 on the device.

Of a global batch (`train.data.epoch_order`) each replica gets the rows of its own lanes, padded to
the longest clip of the *global* batch. `weight` is one over the number of real rows of the global
batch: the sum of weight × loss over all replicas is its mean loss. Rows that only fill up have
index -1 and weight 0. `place` is the row's place in the global batch (`train.model.row_dropout`).
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.cache import layout
from framebank.features.cache.reader import Place, check_finite, check_record
from framebank.features.errors import JobError
from framebank.features.questions.question import Question
from framebank.features.questions.word_cutting import encode_texts
from framebank.train.data.epoch_order import NO_ROW, Ints, Plan, Stored, plan_epoch
from framebank.train.data.shard_files import ShardFiles
from framebank.train.model.heads import Head

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache
    from framebank.features.cache.record import FeatureRecord

SHUFFLE_BYTES = 2**28
_OPEN_FILES = 32

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class QuestionTable:
    """Questions as numbers: `words` is padded int32[q, l], `answer` is the head's `truth`.

    `choices` int32[q, c, l] are the words of the candidates where there are any. Of segments a
    question is a window (`train.data.windows`), and `answer` int32[q, w] the class of each row.
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

    def steps(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return -(-len(self) // batch_size)


def _stack(tables: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the rows of all, padded on the right to the widest."""
    shapes = np.array([table.shape for table in tables])
    made = np.zeros((shapes[:, 0].sum(), *shapes[:, 1:].max(axis=0)), np.int32)
    start = 0
    for table in tables:
        made[(slice(start, start + len(table)), *map(slice, table.shape[1:]))] = table
        start += len(table)
    return made


@dataclasses.dataclass(frozen=True)
class Share:
    """Which replicas this process feeds: `first` and the `local` ones after it, of `replicas`."""

    first: int = 0
    local: int = 1
    replicas: int = 1


class Clips(Protocol):
    """Features by number of video, the order being that of shard and place."""

    def read(self, number: int) -> NDArray[Any]: ...

    def times(self, number: int) -> NDArray[np.int64]: ...

    def announce(self, numbers: NDArray[np.int64]) -> None: ...


class ShardClips:
    """Clips in shards, each checked, and kept while all that was read fits into `keep_bytes`: then
    shards are read once per run, otherwise once per epoch."""

    def __init__(self, places: Sequence[Place], files: ShardFiles, *, keep_bytes: int) -> None:
        self._places, self._files, self._room = places, files, keep_bytes
        self._lock = threading.Lock()
        self._kept: dict[int, NDArray[Any]] = {}
        self._open: collections.OrderedDict[str, BinaryIO] = collections.OrderedDict()

    def read(self, number: int) -> NDArray[Any]:
        """Return float[n, d]; raises CacheError that names shard, record and video."""
        if number in self._kept:
            return self._kept[number]
        features = self._record(number).features
        check_finite(self._places[number].video_id, features)
        if features.nbytes <= self._room:
            self._room -= features.nbytes
            self._kept[number] = features
        return features

    def times(self, number: int) -> NDArray[np.int64]:
        """Return int64[n], the milliseconds of each row; raises CacheError as well."""
        return self._record(number).pts_ms

    def _record(self, number: int) -> FeatureRecord:
        place = self._places[number]
        with self._lock:  # the next epoch may be read while this one is judged
            file = self._file(place.shard)
            file.seek(place.offset)
            frame = file.read(place.length)
        where = f"{layout.check_name(place.shard)}{layout.TFRECORD_SUFFIX}"
        return check_record(place, frame, where)

    def announce(self, numbers: NDArray[np.int64]) -> None:
        """Say which videos will be read, in order."""
        shards = dict.fromkeys(
            self._places[number].shard for number in numbers.tolist() if number not in self._kept
        )
        self._files.announce([shard for shard in shards if shard not in self._open])

    def _file(self, shard: str) -> BinaryIO:
        if shard not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = self._files.open(shard)
        self._open.move_to_end(shard)
        return self._open[shard]


class Features:
    """Features of the videos that have questions, as batches; `width` is d, `numbers` are those by
    which `clips` knows the videos."""

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
        self.dtype = np.dtype(dtype)
        self.numbers = {video_id: number for number, video_id in enumerate(video_ids)}
        self._shuffle_bytes = shuffle_bytes

    def batches(
        self,
        table: QuestionTable,
        *,
        batch_size: int,
        seed: Sequence[int] | None = None,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """Yield this process's questions once, but for the first `skip` batches: shuffled by
        `seed`, else in order of place. "index" says which they are.

        For each step there is one batch per local replica, one after the other.
        """
        video = np.array([self.numbers[q.video_id] for q in table.questions], np.int64)
        plan = plan_epoch(
            self.stored,
            video,
            batch_size=batch_size,
            window_bytes=self._shuffle_bytes,
            frame_bytes=self.width * self.dtype.itemsize,
            seed=seed,
        )
        share = self.share
        local = range(share.first, share.first + share.local)
        replica = self.stored.replica(self.stored.lane[video], replicas=share.replicas)
        coming = _Coming(plan, skip, video, np.isin(replica, local), self.clips)
        texts = {"words": table.words}
        if table.choices is not None:
            texts["choices"] = table.choices
        lengths = {name: (words != 0).sum(axis=-1) for name, words in texts.items()}
        for rows, frames in zip(plan.rows[skip:], plan.frames[skip:].tolist(), strict=True):
            weight = np.float32(1 / max(int(np.count_nonzero(rows >= 0)), 1))
            for number in local:
                places = np.flatnonzero((rows >= 0) & (replica[rows] == number))
                size = batch_size if share.replicas == 1 else max(len(places), 1)
                missing = (0, size - len(places))
                index = np.pad(rows[places], missing, constant_values=NO_ROW)
                asked = np.maximum(index, 0)
                features = np.zeros((size, max(frames, 1), self.width), self.dtype)
                for row, its in enumerate(video[rows[places]].tolist()):
                    clip = coming.take(its)
                    features[row, : len(clip)] = clip
                batch: dict[str, NDArray[Any]] = {
                    "features": features,
                    "answer": table.answer[asked],
                    "weight": (index >= 0) * weight,
                    "index": index,
                    "place": np.pad(places, missing).astype(np.int32),
                }
                for name, words in texts.items():
                    batch[name] = words[asked][..., : max(int(lengths[name][rows].max()), 1)]
                with tf.device("cpu:0"):
                    yield {name: tf.convert_to_tensor(column) for name, column in batch.items()}


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
    files: ShardFiles,
    share: Share = Share(),
    keep_bytes: int = 0,
    shuffle_bytes: int = SHUFFLE_BYTES,
) -> Features:
    """Return the features of `video_ids`, read from `files`, the shards of `cache`."""
    places = _find_places(cache, video_ids)
    _, shards = np.unique([place.shard for place in places], return_inverse=True)
    frames = [place.rows for place in places]
    stored = Stored.dealt(shards, frames, replicas=share.replicas)
    return Features(
        [place.video_id for place in places],
        stored,
        ShardClips(places, files, keep_bytes=keep_bytes),
        width=cache.feature_dim or 0,
        dtype=cache.spec.read_dtype,
        share=share,
        shuffle_bytes=shuffle_bytes,
    )


def _find_places(cache: Cache, video_ids: Collection[str]) -> list[Place]:
    """Return where the records of `video_ids` lie, in order of shard and offset.

    Raises JobError when the cache does not have one.
    """
    places = [Place(**row) for row in cache.done(Place._fields, video_ids).to_pylist()]
    if len(places) != len(video_ids):
        missing = sorted(set(video_ids) - {place.video_id for place in places})
        raise JobError("the cache changed while it was read", got=f"no record of {missing[:5]}")
    return sorted(places, key=lambda place: (place.shard, place.offset))
