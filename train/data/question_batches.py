"""Batches of questions with the features of their videos, in the order in which shards hold them.

Each shard is opened once and read forward, so that a cache in a bucket costs few requests; a batch
is bounded in questions and in bytes. Dimension letters: b batch, n frames, d feature width.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.trained_model import pad_clips
from framebank.features.cache.catalog import catalog_text
from framebank.features.cache.reader import check_finite
from framebank.features.questions.question import Question

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

BATCH_QUESTIONS = 64
BATCH_BYTES = 128 << 20


def question_batches(
    cache: Cache,
    questions: Sequence[Question],
    *,
    most: int = BATCH_QUESTIONS,
    most_bytes: int = BATCH_BYTES,
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Yield the places in `questions` of b of them, with their features float32[b, n, d].

    Clips are padded on the right with rows of zeros. A batch holds at most `most` questions and
    `most_bytes` of features, but always one. Raises KeyError, CacheError.
    """
    by_video: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(questions):
        by_video[question.video_id].append(place)
    places: list[int] = []
    clips: list[NDArray[Any]] = []
    longest = 0
    for record in cache.read(by_video):
        clip = record.features
        check_finite(record.video_id, clip)
        for place in by_video[catalog_text(record.video_id)]:
            longer = max(longest, len(clip))
            size_bytes = (len(clips) + 1) * longer * clip.shape[1] * 4
            if clips and (len(clips) >= most or size_bytes > most_bytes):
                yield places, pad_clips(clips)
                places, clips, longer = [], [], len(clip)
            places.append(place)
            clips.append(clip)
            longest = longer
    if clips:
        yield places, pad_clips(clips)
