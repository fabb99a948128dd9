"""Shards of several caches that one decoding fills.

What any of the caches lacks is dealt into shards once. Of each of these shards a cache gets the
videos that it lacks itself, under the name and with the bytes that a run for this cache alone gives
them; where all lack the same, the shards are the very ones of such runs.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

from framebank.features.errors import CacheError
from framebank.features.video import VideoRef
from framebank.pipelines.extract.plan import ShardPlan, plan_shards, read_plan, shard_name

# A shard for each cache; None where a cache has all of its videos.
ShardGroup = tuple[ShardPlan | None, ...]


def plan_groups(
    todos: Sequence[Sequence[VideoRef]],
    *,
    fingerprints: Sequence[str],
    videos_per_shard: int | None = None,
) -> list[list[ShardPlan]]:
    """Return the shards of each cache, of which `todos` are what it lacks."""
    if len(todos) == 1:
        (refs,), (only,) = todos, fingerprints
        return [plan_shards(refs, fingerprint=only, videos_per_shard=videos_per_shard)]
    lacking = [{ref.video_id: ref for ref in refs} for refs in todos]
    of_any: dict[str, VideoRef] = {}
    for some in reversed(lacking):
        of_any |= some
    planned: list[list[ShardPlan]] = [[] for _ in todos]
    for whole in plan_shards(
        list(of_any.values()), fingerprint="", videos_per_shard=videos_per_shard
    ):
        ids = [ref.video_id for ref in whole.refs]
        for shards, own, fingerprint in zip(planned, lacking, fingerprints, strict=True):
            if refs := tuple(own[video_id] for video_id in ids if video_id in own):
                shards.append(ShardPlan(shard_name(refs, fingerprint), refs, whole.place))
    return planned


def read_groups(paths: Sequence[Sequence[str]]) -> Iterator[ShardGroup]:
    """Yield what belongs together of the plans of each cache, in the order of the job."""
    plans = [_placed(number, own) for number, own in enumerate(paths)]
    merged = heapq.merge(*plans, key=lambda found: found[0])
    for place, some in itertools.groupby(merged, key=lambda found: found[0]):
        group: list[ShardPlan | None] = [None] * len(paths)
        for _, number, plan in some:
            if group[number] is not None:
                raise CacheError(f"two shards have the place {place} of a plan", got=paths[number])
            group[number] = plan
        yield tuple(group)


def _placed(number: int, paths: Sequence[str]) -> Iterator[tuple[int, int, ShardPlan]]:
    for path in sorted(paths):
        for plan in read_plan(path):
            yield plan.place, number, plan
