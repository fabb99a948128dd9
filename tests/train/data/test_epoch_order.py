"""framebank.epoch_order and what reads by it: every row once, by one replica, in an order of its
own."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from framebank.features.questions.question import Question
from framebank.train.data.batches import Features, QuestionTable, Share
from framebank.train.data.epoch_order import LANES, NO_ROW, Stored, plan_epoch


def stored(shards: int, per_shard: int = 7) -> Stored:
    dice = np.random.default_rng(shards)
    shard = np.repeat(np.arange(shards), per_shard)
    return Stored.dealt(shard.tolist(), dice.integers(1, 40, len(shard)).tolist())


@pytest.mark.parametrize("shards", [1, 3, 16, 41])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 16])
def test_each_video_has_one_replica_and_whole_shards_where_there_are_enough(
    shards: int, replicas: int
) -> None:
    videos = stored(shards)
    assert videos.lane.min() >= 0 and videos.lane.max() < LANES
    replica = videos.replica(videos.lane, replicas=replicas)
    readers = collections.defaultdict(set)
    for shard, reader in zip(videos.shard.tolist(), replica.tolist(), strict=True):
        readers[shard].add(reader)
    if shards >= LANES:
        assert all(len(each) == 1 for each in readers.values())
    elif shards >= replicas:  # only shards at a border between replicas are read by both
        assert sum(len(each) - 1 for each in readers.values()) <= replicas - 1
    if shards * 7 >= 2 * LANES:
        assert set(replica.tolist()) == set(range(replicas))


@pytest.mark.parametrize("seed", [None, [3, 0], [3, 1]])
@pytest.mark.parametrize("size", [1, 8, 50])
def test_every_row_once_in_batches_of_like_length(seed: list[int] | None, size: int) -> None:
    videos = stored(20, 60)
    asked = np.random.default_rng(1).integers(0, len(videos.shard), 1500)
    plan = plan_epoch(
        videos, asked, batch_size=size, window_bytes=16 * 300, frame_bytes=1, seed=seed
    )
    rows = plan.rows.reshape(-1)
    assert sorted(rows[rows != NO_ROW].tolist()) == list(range(1500))
    assert len(plan.rows) == -(-1500 // size) and (rows[:-1] != NO_ROW).sum() >= 1500 - 1
    frames = videos.frames[asked]
    for batch, longest in zip(plan.rows, plan.frames, strict=True):
        assert frames[batch[batch >= 0]].max() == longest
    if size == 8:  # four lengths' buckets waste less than one
        padded = (plan.frames[:, None] - frames[plan.rows])[plan.rows >= 0].sum()
        assert padded < 0.35 * frames.sum()
    again = plan_epoch(
        videos, asked, batch_size=size, window_bytes=16 * 300, frame_bytes=1, seed=seed
    )
    np.testing.assert_array_equal(plan.rows, again.rows)


class CountingClips:
    """Clips that know how often they were read and that a reader holds at any time."""

    def __init__(self, videos: Stored) -> None:
        self.videos, self.read_times = videos, collections.Counter[int]()

    def announce(self, numbers: np.ndarray) -> None:
        self.announced = numbers.tolist()

    def read(self, number: int) -> np.ndarray:
        self.read_times[number] += 1
        return np.full((int(self.videos.frames[number]), 2), number, np.float16)


def test_replicas_share_each_batch_and_read_each_video_once() -> None:
    videos = stored(5)
    names = [f"v{number}" for number in range(len(videos.shard))]
    questions = [Question(str(n), names[n % len(names)], "what?", "a") for n in range(90)]
    table = QuestionTable(questions, np.ones((90, 1), np.int32), np.zeros(90, np.int32))

    def batches(share: Share, skip: int = 0) -> tuple[list[dict], CountingClips]:
        clips = CountingClips(videos)
        features = Features(names, videos, clips, width=2, dtype=np.float16, share=share)
        made = features.batches(table, batch_size=8, seed=[1, 2], skip=skip)
        return [{k: v.numpy() for k, v in batch.items()} for batch in made], clips

    whole, clips = batches(Share())
    assert set(clips.read_times.values()) == {1} and len(clips.announced) == len(names)
    parts = [batches(Share(first, 1, 4)) for first in range(4)]
    for number, batch in enumerate(whole):
        rows = {}
        for part, _ in parts:
            piece = part[number]
            assert piece["features"].shape[1] == batch["features"].shape[1]
            for row in np.flatnonzero(piece["index"] >= 0):
                rows[int(piece["place"][row])] = {k: v[row] for k, v in piece.items()}
        for place in np.flatnonzero(batch["index"] >= 0):
            for name in ("features", "words", "answer", "weight", "index"):
                np.testing.assert_array_equal(rows[place][name], batch[name][place])
        assert len(rows) == int((batch["index"] >= 0).sum())
    read = collections.Counter[int]()
    for _, each in parts:
        read.update(each.read_times)
    assert set(read.values()) == {1} and len(read) == len(names)
    late, fewer = batches(Share(), skip=10)
    assert len(late) == len(whole) - 10 and len(fewer.read_times) < len(names)
    np.testing.assert_array_equal(late[0]["features"], whole[10]["features"])
