"""Where the features of a clip come from: the shards, read in the order of a plan.

`ShardClips` reads records at the places that the catalog names, checks each, and keeps what it
read as long as all that this worker reads fits into its budget; then shards are read once per run,
otherwise once per epoch.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from framebank.features.cache import layout
from framebank.features.cache.reader import Place, check_finite, check_record
from framebank.features.errors import JobError
from framebank.train.data.shard_files import ShardFiles

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_OPEN_FILES = 32


class Clips(Protocol):
    """Features by number of video, the order being that of shard and place."""

    def read(self, number: int) -> NDArray[Any]: ...

    def announce(self, numbers: NDArray[np.int64]) -> None: ...


class ShardClips:
    """Clips in shards."""

    def __init__(self, places: Sequence[Place], files: ShardFiles, *, keep_bytes: int) -> None:
        """`keep_bytes` may be kept in memory; reading beyond it keeps nothing more."""
        self._places, self._files, self._room = places, files, keep_bytes
        self._lock = threading.Lock()
        self._kept: dict[int, NDArray[Any]] = {}
        self._open: collections.OrderedDict[str, BinaryIO] = collections.OrderedDict()

    def read(self, number: int) -> NDArray[Any]:
        """Return float[n, d]; raises CacheError that names shard, record and video."""
        if number in self._kept:
            return self._kept[number]
        place = self._places[number]
        with self._lock:  # the next epoch may be read while this one is judged
            file = self._file(place.shard)
            file.seek(place.offset)
            frame = file.read(place.length)
        where = f"{layout.check_name(place.shard)}{layout.TFRECORD_SUFFIX}"
        features = check_record(place, frame, where).features
        check_finite(place.video_id, features)
        if features.nbytes <= self._room:
            self._room -= features.nbytes
            self._kept[number] = features
        return features

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


def find_places(cache: Cache, video_ids: Collection[str]) -> list[Place]:
    """Return where the records of `video_ids` lie, in order of shard and offset.

    Raises JobError when the cache does not have one.
    """
    places = [Place(**row) for row in cache.done(Place._fields, video_ids).to_pylist()]
    if len(places) != len(video_ids):
        missing = sorted(set(video_ids) - {place.video_id for place in places})
        raise JobError("the cache changed while it was read", got=f"no record of {missing[:5]}")
    return sorted(places, key=lambda place: (place.shard, place.offset))
