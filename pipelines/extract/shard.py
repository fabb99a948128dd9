"""ExtractShard: the one ParDo that decodes, infers, writes and commits shards.

A shard is durable when its sidecar is there (`shard_writer.py`). Its name and bytes follow from
its videos and the spec, so a bundle that an engine runs again finds the sidecar and only passes the
rows on. Some shards are extracted in one go: while the last clips of one are decoded, those of the
next begin, and neither the decoders nor the network run dry in between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.shared import Shared

from framebank import __version__
from framebank.features.cache import layout
from framebank.features.cache.sidecar import CatalogRow, Sidecar, read_sidecar
from framebank.features.errors import JobError, UsageError
from framebank.features.extraction import network_process
from framebank.features.extraction.balance import Balance
from framebank.features.extraction.coming import coming_networks
from framebank.features.extraction.engine import Engine, Result, SharedEngine
from framebank.features.extraction.one_clip import build_network, computing
from framebank.features.machine import check_address_space
from framebank.features.network.weights import localise_weights
from framebank.features.stores import storage
from framebank.features.video import VideoRef
from framebank.pipelines.extract.groups import ShardGroup
from framebank.pipelines.extract.plan import ExtractConfig, ShardPlan
from framebank.pipelines.extract.shard_writer import ShardWriter
from framebank.pipelines.jobs.progress import CountsWriter
from framebank.pipelines.jobs.worker_faults import told_to_client

if TYPE_CHECKING:
    from framebank.features.extraction.batches import FrameNetwork

NAMESPACE = "framebank"  # of every counter
Row = tuple[int, "dict[str, Any] | CatalogRow"]  # the number of a cache, and what it got


def report_of(sidecar: Sidecar) -> dict[str, Any]:
    """Return what a committed shard says of itself, ahead of its rows.

    `seconds` on the worker `host`, and the `balance` there, whichever run and attempt that was.
    """
    return {
        "shard": sidecar.shard,
        "videos": len(sidecar.rows),
        "frames": sum(row.rows for row in sidecar.rows),
        "video_bytes": sum(max(0, row.size_bytes) for row in sidecar.rows),
        "seconds": sidecar.seconds,
        "host": sidecar.host,
        "quantisation": dataclasses.asdict(sidecar.quantisation),
        "parts": sidecar.parts,
        "balance": dict(sidecar.balance),
    }


# The networks of this process, whatever bundles, stages, threads and DoFn instances there are. Beam
# drops them when another shared thing (a model that answers) is taken, or one with another tag.
_NETWORKS = Shared()
_ENGINE = SharedEngine()
_log = logging.getLogger(__name__)


class ExtractShard(beam.DoFn):  # type: ignore[misc]
    """ShardGroup → (number of the cache, its shard's report or a catalog row of it), read back from
    the sidecars.

    A worker process holds each network once and one set of decoder processes, however many
    instances and threads of this it serves; they take turns, some shards at a time. Resident memory
    of such a process (of two where the network has its own, `network_process`) with inception_v3 in
    float32 and batches of 32, on two cores: 1.1 GiB, and 20 MiB for each further thread.
    """

    def __init__(self, *configs: ExtractConfig, together: int = 1) -> None:
        """`configs`: one for each cache; how clips are decoded is the same in all. So many shards
        of a bundle as are `together` are extracted in one go."""
        self._configs, self._together = configs, together
        self._frames = Metrics.counter(NAMESPACE, "frames")
        self._videos = {
            state: Metrics.counter(NAMESPACE, f"videos_{state}")
            for state in ("done", "quarantined")
        }
        self._passed_on = Metrics.counter(NAMESPACE, "shards_already_committed")

    def setup(self) -> None:
        with told_to_client():
            check_version(self._configs[0])
        self._counts = CountsWriter(self._configs[0].progress_folder)
        self._waiting: list[ShardGroup] = []

    def teardown(self) -> None:
        _ENGINE.leave(self)

    def start_bundle(self) -> None:
        self._waiting = []  # of a bundle that failed

    def process(self, group: ShardGroup) -> Iterator[Row]:
        self._waiting.append(group)
        if len(self._waiting) == self._together:
            yield from self._rows_of_waiting()

    def finish_bundle(self) -> Iterator[Any]:
        yield from map(GlobalWindows.windowed_value, self._rows_of_waiting())

    def _rows_of_waiting(self) -> Iterator[Row]:
        with told_to_client():
            waiting, self._waiting = self._waiting, []
            planned: list[tuple[int, ShardPlan]] = []
            left: list[dict[int, ShardPlan]] = []
            for group in waiting:
                own = [(number, plan) for number, plan in enumerate(group) if plan is not None]
                planned += own
                left.append({number: plan for number, plan in own if self._lacks(number, plan)})
            if lots := [plans for plans in left if plans]:
                try:
                    self._extract(lots)
                finally:
                    self._counts.counts.unsafe = 0
                    self._tell_in_hand({})
            for number, plan in planned:
                sidecar = read_sidecar(self._configs[number].cache, plan.shard)
                _check_rows(self._configs[number], plan, sidecar)
                yield number, report_of(sidecar)
                for row in sidecar.rows:
                    yield number, row

    def _lacks(self, number: int, plan: ShardPlan) -> bool:
        """Tell whether the shard is not in its cache yet."""
        there = storage.exists(layout.sidecar_path(self._configs[number].cache, plan.shard))
        if there:
            self._passed_on.inc()
            _log.info("shard %s is committed already", plan.shard)
        return not there

    def _extract(self, lots: Sequence[dict[int, ShardPlan]]) -> None:
        """Decode what is left of these shards, each lot by the number of their caches, and commit
        each lot once it is whole."""
        configs = self._configs
        job = tuple((c.run_id, c.spec.fingerprint, c.policy, c.batch_size) for c in configs)
        with _ENGINE.turn(self, job, self._build) as engine, contextlib.ExitStack() as opened:
            # The longest clips first, or the last lot would end with one decoder at work.
            lots = sorted(lots, key=lambda plans: max(plan.longest_s for plan in plans.values()))
            hands = [_ShardsInHand(plans, configs, opened) for plans in reversed(lots)]
            left = dict.fromkeys(hands)
            whose: dict[str, _ShardsInHand] = {}
            in_hand: dict[str, float] = {}  # when each clip was begun, the first of them first

            def keep() -> None:
                for hand in left:
                    for writer in hand.writers.values():
                        self._count_safe(writer.keep(if_due=True))

            def on_frames(count: int) -> None:
                self._frames.inc(count)
                self._counts.counts.frames += count
                keep()

            def begin() -> Iterator[tuple[VideoRef | None, ...]]:
                for hand in hands:
                    hand.begin()
                    for refs in hand.todo:
                        begun = next(ref for ref in refs if ref is not None)
                        whose[begun.video_id] = hand
                        in_hand[begun.video_id] = time.time()
                        self._tell_in_hand(in_hand)
                        yield refs

            for number, result in engine.run_all(begin(), on_frames=on_frames):
                hand = whose[result.ref.video_id]
                in_hand.pop(result.ref.video_id, None)
                self._tell_in_hand(in_hand)
                self._videos[hand.add(number, result)].inc()
                self._counts.counts.unsafe += 1
                keep()
                # Of each cache the last says what the engine did, when that has come to its end.
                if hand.is_whole and hand.is_followed(left):
                    del left[hand]
                    self._commit(hand, {})
            untold = dict(enumerate(engine.balances))
            for hand in left:
                self._commit(hand, untold)

    def _commit(self, hand: _ShardsInHand, untold: dict[int, Balance]) -> None:
        """Commit shards that are whole, with what is `untold`, by the number of the cache, which
        then is told."""
        hand.check_whole()
        for number, writer in hand.writers.items():
            balance = untold.pop(number, Balance()).to_json()
            self._count_safe(writer.commit(balance), now=True)
        hand.close()
        _log.info("%s", hand.line())

    def _build(self) -> Engine:  # on first use: committed shards need no network and no decoders
        networks = coming_networks(
            [config.spec for config in self._configs],
            lambda: shared_networks(self._configs),
            batch_size=self._configs[0].batch_size,
        )
        (first, config), *also = zip(networks, self._configs, strict=True)
        return Engine(
            first,
            config.spec,
            config.policy,
            also=[(network, further.spec) for network, further in also],
        )

    def _tell_in_hand(self, in_hand: dict[str, float]) -> None:
        """Tell the client which clip has been in hand for longest, where that is another one."""
        # As a list: another thread adds to it.
        counts, (clip, since_s) = self._counts.counts, next(iter([*in_hand.items()]), ("", 0.0))
        if clip != counts.clip:
            counts.clip, counts.since_s = clip, since_s
            self._counts.write(now=True)  # a clip that hangs is the last that is told of

    def _count_safe(self, states: list[str], *, now: bool = False) -> None:
        """Tell the client that videos with these states are safe from now on."""
        counts = self._counts.counts
        for state in states:
            setattr(counts, state, getattr(counts, state) + 1)
        counts.unsafe -= len(states)
        self._counts.write(now=now or bool(states))


class _ShardsInHand:
    """Shards of several caches that one decoding fills, from their first clip to their commit."""

    def __init__(
        self,
        plans: dict[int, ShardPlan],
        configs: Sequence[ExtractConfig],
        opened: contextlib.ExitStack,
    ) -> None:
        """`plans` by the number of the cache in `configs`; `opened` closes what is not `close`d."""
        own = opened.enter_context(contextlib.ExitStack())
        self._plans, self.close = plans, own.close
        self.writers = {
            number: own.enter_context(
                ShardWriter(
                    configs[number].cache,
                    plan.shard,
                    run_id=configs[number].run_id,
                    spec=configs[number].spec,
                )
            )
            for number, plan in plans.items()
        }
        left = {
            number: [ref for ref in plan.longest_first if ref.video_id not in kept]
            for number, plan in plans.items()
            for kept in [self.writers[number].adopt_parts()]
        }
        self.todo = list(_by_video(len(configs), left))
        self._due = sum(map(len, left.values()))  # results that are to come

    def begin(self) -> None:
        """Have the time count from now on."""
        for writer in self.writers.values():
            writer.begin()
            if self.is_whole:  # parts had all of it
                writer.end()

    def add(self, number: int, result: Result) -> str:
        """Take a result for the cache with this number; return the state that its video got. From
        the last one on no time counts."""
        state = self.writers[number].add(result)
        self._due -= 1
        if self.is_whole:
            for writer in self.writers.values():
                writer.end()
        return state

    @property
    def is_whole(self) -> bool:
        return not self._due

    def is_followed(self, left: Iterable[_ShardsInHand]) -> bool:
        """Tell whether for each cache others in hand are still to become whole."""
        return all(
            any(number in other.writers and not other.is_whole for other in left)
            for number in self.writers
        )

    def check_whole(self) -> None:
        """Raise JobError where a result is missing; what is committed stays as it is."""
        if not self.is_whole:
            raise JobError(
                "the videos of shards do not add up",
                got=f"{self._due} results too few",
                expected="one for each video of "
                + ", ".join(p.shard for p in self._plans.values()),
                todo="run the same command again, and report this",
            )

    def line(self) -> str:
        """Return what to log of shards that are committed."""
        refs = {ref.video_id: ref for plan in self._plans.values() for ref in plan.refs}
        frames = max(writer.frames for writer in self.writers.values())
        mib = sum(max(0, ref.size_bytes) for ref in refs.values()) / 2**20
        shards = " and ".join(plan.shard for plan in self._plans.values())
        took_s = max(writer.seconds for writer in self.writers.values())
        return (
            f"shard {shards}: {len(refs)} videos, {frames} frames, {mib:.1f} MiB of video in "
            f"{took_s:.1f} s"
        )


def check_version(config: ExtractConfig) -> None:
    """Raise UsageError on a worker whose Framebank is not the submitter's."""
    if config.framebank_version != __version__:
        raise UsageError(
            "the workers have another version of Framebank than this machine",
            got=f"framebank {__version__} on the worker {socket.gethostname()}",
            expected=f"framebank {config.framebank_version}",
            todo="build the worker image anew (infra/docker) or update the workers' environment, "
            "and start the worker pools again",
        )


def shared_networks(configs: Sequence[ExtractConfig]) -> list[FrameNetwork]:
    """Return the networks of this process for `configs`, built by the first thread that asks."""

    def build() -> _Networks:
        return _Networks(map(_network, configs))

    tag = tuple((*computing(config.spec), config.batch_size) for config in configs)
    networks: _Networks = _NETWORKS.acquire(build, tag)
    return networks


def _network(config: ExtractConfig) -> FrameNetwork:
    if (process := network_process.serving()) is not None:
        return process.build(config.spec, config.weights, batch_size=config.batch_size)
    check_address_space()
    weights = localise_weights(config.weights)
    return build_network(config.spec, weights, batch_size=config.batch_size)


class _Networks(list["FrameNetwork"]):
    """A list that Beam can hold on to, which takes a weak reference."""


def _by_video(
    caches: int, todo: dict[int, list[VideoRef]]
) -> Iterator[tuple[VideoRef | None, ...]]:
    """Yield for each video its ref by the number of the cache, None where that has it."""
    by_id: dict[str, dict[int, VideoRef]] = {}
    for number, refs in todo.items():
        for ref in refs:
            by_id.setdefault(ref.video_id, {})[number] = ref
    for refs_of in by_id.values():
        yield tuple(map(refs_of.get, range(caches)))


def _check_rows(config: ExtractConfig, plan: ShardPlan, sidecar: Sidecar) -> None:
    """Hold what was written against what was asked for: each video once, and no other."""
    written = sorted(row.video_id for row in sidecar.rows)
    asked = sorted(ref.video_id for ref in plan.refs)
    if sidecar.fingerprint != config.spec.fingerprint:
        raise JobError(
            f"shard {plan.shard} was made in another way than this job makes it",
            got=f"fingerprint {sidecar.fingerprint}",
            expected=config.spec.fingerprint,
            todo="run `framebank verify CACHE`, and let one job at a time write to a cache",
        )
    if written != asked:
        raise JobError(
            f"shard {plan.shard} does not account for its videos",
            got=f"{len(written)} rows in its sidecar",
            expected=f"one row for each of its {len(asked)} videos",
            todo="run `framebank verify CACHE`, and report this",
        )
