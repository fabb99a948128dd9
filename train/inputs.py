"""The input pipeline: cached features joined with questions, as batches padded on the right.

Features of the videos that have questions are held in memory when they fit the budget, as stored
(`HeldFeatures`); otherwise every epoch streams them from the shards (`StreamedFeatures`). Either
way a batch is

    {"features": float32[b, n, d], "words": int32[b, l], "answer": int32[b],
     "weight": float32[b], "index": int64[b]}

with b always the global batch size: missing rows at the end have index -1 and weight 0. `weight` is
one over the number of real rows of the global batch, so that the sum of weight × loss over any
number of replicas is the batch's mean loss. The order follows from seed and epoch alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.questions import Question
from train.vocabulary import AnswerVocabulary

_PREFETCH = 4
_SHUFFLE_BYTES = 2**28
_NO_ROW = -1

Batch = Mapping[str, Any]


class Cache(Protocol):
    """What training needs of `features.cache.Cache`."""

    def __iter__(self) -> Iterator[Any]: ...

    def dataset(self, *, shuffle_seed: int | None = None) -> tf.data.Dataset: ...


@dataclasses.dataclass(frozen=True)
class QuestionTable:
    """Questions as numbers: `words` is padded int32[q, l], `answer` int32[q] with OUTSIDE = -1."""

    questions: Sequence[Question]
    words: NDArray[np.int32]
    answer: NDArray[np.int32]

    @classmethod
    def of(
        cls, questions: Sequence[Question], vocabulary: AnswerVocabulary, *, text: Any
    ) -> QuestionTable:
        """`text` turns string[q] into int[q, l], as `train.model.word_numbers` does."""
        words = np.asarray(text(tf.constant([q.question for q in questions], tf.string)))
        answer = np.array([vocabulary.number(q.answer) for q in questions], np.int32)
        return cls(questions, words.astype(np.int32), answer)

    def __len__(self) -> int:
        return len(self.questions)


class Features(Protocol):
    """A source of batches; `width` is d."""

    width: int

    def training_batches(
        self, table: QuestionTable, *, batch_size: int, seed: int, epoch: int, skip: int = 0
    ) -> tf.data.Dataset: ...

    def batches(self, table: QuestionTable, *, batch_size: int) -> tf.data.Dataset: ...


def steps_per_epoch(table: QuestionTable, batch_size: int) -> int:
    return -(-len(table) // batch_size)


class HeldFeatures:
    """Features in memory, one flat array in the cache's dtype: float[frames, d]."""

    def __init__(self, clips: Mapping[str, NDArray[Any]]) -> None:
        """`clips` is video_id → float[n, d]."""
        self._place = {video_id: number for number, video_id in enumerate(clips)}
        flat = np.concatenate(list(clips.values()))
        self.width = int(flat.shape[1])
        lengths = [len(clip) for clip in clips.values()]
        # On the host: a batch travels to the device, never the whole cache.
        with tf.device("cpu:0"):
            self._clips = tf.RaggedTensor.from_row_lengths(tf.constant(flat), lengths)

    def training_batches(
        self, table: QuestionTable, *, batch_size: int, seed: int, epoch: int, skip: int = 0
    ) -> tf.data.Dataset:
        """Return epoch `epoch` in its own order, without its first `skip` batches."""
        order = np.random.default_rng([seed, epoch]).permutation(len(table))
        return self._batches(table, order, batch_size, skip)

    def batches(self, table: QuestionTable, *, batch_size: int) -> tf.data.Dataset:
        """Return every question once, in the table's order."""
        return self._batches(table, np.arange(len(table)), batch_size, 0)

    def _batches(
        self, table: QuestionTable, order: NDArray[np.int64], batch_size: int, skip: int
    ) -> tf.data.Dataset:
        missing = -len(order) % batch_size
        index = np.concatenate([order, np.full(missing, _NO_ROW, order.dtype)])
        index = index.reshape(-1, batch_size)[skip:]
        video = np.array([self._place[q.video_id] for q in table.questions], np.int64)
        with tf.device("cpu:0"):
            columns = [tf.constant(column) for column in (video, table.words, table.answer)]

        def assemble(index: tf.Tensor) -> dict[str, tf.Tensor]:
            row = tf.maximum(index, 0)
            video, words, answer = (tf.gather(column, row) for column in columns)
            features = tf.gather(self._clips, video).to_tensor()
            return _batch(index, features, words, answer, width=self.width)

        dataset = tf.data.Dataset.from_tensor_slices(index.astype(np.int64))
        return dataset.map(assemble, num_parallel_calls=2).prefetch(_PREFETCH)


class StreamedFeatures:
    """Features read from the shards in every epoch; memory is bounded by a shuffle buffer."""

    def __init__(self, cache: Cache, *, width: int, frames: float) -> None:
        """`frames` is how many a clip has on average; it sizes the shuffle buffer."""
        self._cache, self.width = cache, width
        self._buffer = max(2, int(_SHUFFLE_BYTES / (4 * width * max(frames, 1))))

    def training_batches(
        self, table: QuestionTable, *, batch_size: int, seed: int, epoch: int, skip: int = 0
    ) -> tf.data.Dataset:
        """Return epoch `epoch` in its own order, without its first `skip` batches."""
        mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
        rows = self._rows(table, seed=mixed).shuffle(
            self._buffer, seed=mixed, reshuffle_each_iteration=False
        )
        return self._batches(table, rows, batch_size, skip)

    def batches(self, table: QuestionTable, *, batch_size: int) -> tf.data.Dataset:
        """Return every question once, in the cache's order; "index" says which."""
        return self._batches(table, self._rows(table, seed=None), batch_size, 0)

    def _rows(self, table: QuestionTable, *, seed: int | None) -> tf.data.Dataset:
        """Return one element per question: (index int64, features float[n, d])."""
        of_video: dict[str, list[int]] = {}
        for number, question in enumerate(table.questions):
            of_video.setdefault(question.video_id, []).append(number)
        ids = list(of_video)
        keys = tf.lookup.KeyValueTensorInitializer(tf.constant(ids), tf.range(len(ids)))
        places = tf.lookup.StaticHashTable(keys, default_value=-1)
        numbers = tf.ragged.constant([of_video[video_id] for video_id in ids], tf.int64)

        def known(clip: Batch) -> tf.Tensor:
            return places.lookup(clip["video_id"]) >= 0

        def ask(clip: Batch) -> tf.data.Dataset:
            asked = tf.data.Dataset.from_tensor_slices(numbers[places.lookup(clip["video_id"])])
            return asked.map(lambda index: (index, clip["features"]))

        clips = self._cache.dataset(shuffle_seed=seed).filter(known)
        if seed is not None:
            clips = clips.shuffle(self._buffer, seed=seed, reshuffle_each_iteration=False)
        return clips.flat_map(ask)

    def _batches(
        self, table: QuestionTable, rows: tf.data.Dataset, batch_size: int, skip: int
    ) -> tf.data.Dataset:
        words, answer = tf.constant(table.words), tf.constant(table.answer)

        def assemble(index: tf.Tensor, features: tf.Tensor) -> dict[str, tf.Tensor]:
            missing = batch_size - tf.shape(index)[0]
            index = tf.pad(index, [[0, missing]], constant_values=_NO_ROW)
            features = tf.pad(features, [[0, missing], [0, 0], [0, 0]])
            row = tf.maximum(index, 0)
            words_of, answer_of = tf.gather(words, row), tf.gather(answer, row)
            return _batch(index, features, words_of, answer_of, width=self.width)

        padded = rows.padded_batch(batch_size, padded_shapes=([], [None, self.width]))
        return padded.skip(skip).map(assemble).prefetch(1)


def _batch(
    index: tf.Tensor, features: tf.Tensor, words: tf.Tensor, answer: tf.Tensor, *, width: int
) -> dict[str, tf.Tensor]:
    real = tf.cast(index >= 0, tf.float32)
    used = tf.reduce_max(tf.reduce_sum(tf.cast(words != 0, tf.int32), axis=1))
    features = tf.ensure_shape(tf.cast(features, tf.float32), [None, None, width])
    return {
        "features": features,
        "words": words[:, :used],
        "answer": answer,
        "weight": real / tf.reduce_sum(real),
        "index": index,
    }
