"""The order of an epoch: worked out beforehand, the same for any number of workers.

The videos are dealt into LANES lanes, whole shards at a time (runs of records where shards are
fewer than lanes); replica r of R reads the lanes from r·LANES/R on. Each lane is shuffled for
itself, first its shards, then rows in windows of so many bytes; the lanes are merged evenly, and
batches are cut from the merged order (infra/decisions/0003-training-loop.md)."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LANES = 16
NO_ROW = -1
_BUCKETS = 4
_BATCHES_PER_BUCKET = 16  # with fewer, most batches would be the mixed ones of the end

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where videos lie, in order of shard and place: int64[v] each.

    `shard` numbers the shards, `frames` counts rows, `lane` says who reads the video.
    """

    shard: Ints
    frames: Ints
    lane: Ints
    lanes: int

    @classmethod
    def dealt(cls, shard: ArrayLike, frames: ArrayLike, *, replicas: int = 1) -> Stored:
        """Deal videos into lanes; more than LANES replicas need as many lanes."""
        shards, counts = np.asarray(shard, np.int64), np.asarray(frames, np.int64)
        lanes = max(LANES, replicas)
        return cls(shards, counts, _deal(shards, counts, lanes), lanes)

    def replica(self, lane: Ints, *, replicas: int) -> Ints:
        """Return which of the replicas reads each of `lane`."""
        return lane * replicas // self.lanes


def _deal(shard: Ints, frames: Ints, lanes: int) -> Ints:
    if not len(shard):
        return np.zeros(0, np.int64)
    sizes = np.bincount(shard, weights=frames)
    if np.count_nonzero(sizes) < lanes:  # by record: runs of about the same number of frames
        middle = np.cumsum(frames) - frames / 2
        return np.minimum((middle * lanes / frames.sum()).astype(np.int64), lanes - 1)
    of_shard = np.zeros(len(sizes), np.int64)
    loads = [(0.0, lane) for lane in range(lanes)]
    for number in np.lexsort((np.arange(len(sizes)), -sizes)):
        load, lane = heapq.heappop(loads)
        of_shard[number] = lane
        heapq.heappush(loads, (load + float(sizes[number]), lane))
    return of_shard[shard]


@dataclasses.dataclass(frozen=True)
class Plan:
    """An epoch: `rows` int64[steps, b] numbers the table's rows, NO_ROW where a batch is short.

    `frames` int64[steps] is what each batch is padded to; `reading` holds the videos of each lane
    in the order in which they are read.
    """

    rows: Ints
    frames: Ints
    reading: list[Ints]


def plan_epoch(
    stored: Stored,
    video: Ints,
    *,
    batch_size: int,
    window_bytes: int = 0,
    frame_bytes: int = 1,
    seed: Sequence[int] | None = None,
) -> Plan:
    """Plan an epoch over rows about videos `video` int64[q]; without `seed` in order of place.

    `window_bytes`, over all lanes, is how much a shuffle may hold; a frame takes `frame_bytes`.
    """
    used = np.unique(video)
    rank = stored.shard
    random, phase = np.arange(len(video)), np.zeros(stored.lanes)
    if seed is not None:
        dice = np.random.default_rng(seed)
        rank = dice.permutation(int(stored.shard.max(initial=0)) + 1)[stored.shard]
        random, phase = dice.permutation(len(video)), dice.random(stored.lanes)
    read = used[np.lexsort((used, rank[used], stored.lane[used]))]
    place = np.zeros(len(stored.shard), np.int64)  # of each video: its window, or its very place
    place[read] = np.arange(len(read))
    if seed is not None:
        budget = max(window_bytes // stored.lanes, 1)
        place[read] = _windows(stored.frames[read] * frame_bytes, stored.lane[read], budget)
    order = np.lexsort((random, place[video], stored.lane[video]))
    merged = _merge(order, stored.lane[video[order]], phase)
    rows, longest = _cut(merged, stored.frames[video], batch_size)
    cuts = np.searchsorted(stored.lane[read], np.arange(1, stored.lanes))
    return Plan(rows, longest, np.split(read, cuts))


def _windows(size_bytes: Ints, lane: Ints, budget: int) -> Ints:
    """Number the windows of each lane; one holds `budget` bytes, or one clip that has more."""
    total = np.cumsum(size_bytes) - size_bytes
    starts = np.flatnonzero(np.append(True, lane[1:] != lane[:-1])) if len(lane) else lane
    return (total - np.repeat(total[starts], np.diff(np.append(starts, len(lane))))) // budget


def _merge(order: Ints, lane: Ints, phase: NDArray[np.float64]) -> Ints:
    """Merge the lanes (`order` is by lane) so that all of them end together."""
    counts = np.bincount(lane, minlength=len(phase))
    before = np.cumsum(counts) - counts
    at = (np.arange(len(order)) - before[lane] + phase[lane]) / np.maximum(counts[lane], 1)
    return order[np.lexsort((lane, at))]


def _cut(order: Ints, frames: Ints, batch_size: int) -> tuple[Ints, Ints]:
    """Cut `order` into batches of clips of like length; what is left over is mixed at the end."""
    bucket = _buckets(frames[order], len(order) // (_BATCHES_PER_BUCKET * batch_size))
    full, last, rest = [], [], []
    for number in range(int(bucket.max(initial=0)) + 1):
        places = np.flatnonzero(bucket == number)
        whole = len(places) // batch_size * batch_size
        full.append(places[:whole].reshape(-1, batch_size))
        last.append(full[-1][:, -1])
        rest.append(places[whole:])
    batches = np.concatenate(full)[np.argsort(np.concatenate(last))]
    tail = np.concatenate(rest)
    rows = np.concatenate([order[batches].reshape(-1), order[tail]])
    rows = np.append(rows, np.full(-len(rows) % batch_size, NO_ROW)).reshape(-1, batch_size)
    longest = np.where(rows >= 0, frames[rows], 0).max(axis=1, initial=0)
    return rows, longest


def _buckets(frames: Ints, most: int) -> Ints:
    """Return the bucket of each clip: quarters by length, fewer where there is little to cut."""
    count = max(1, min(_BUCKETS, most))
    if count == 1:
        return np.zeros(len(frames), np.int64)
    bounds = np.unique(np.quantile(frames, np.arange(1, count) / count))
    return np.searchsorted(bounds, frames, side="left").astype(np.int64)
