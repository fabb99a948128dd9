"""ExtractShard: the one ParDo that decodes, infers, writes and commits a shard.

A shard is durable when its sidecar is there (`shard_writer.py`). Its name and bytes follow from
its videos and the spec, so a bundle that an engine runs again finds the sidecar and only passes the
rows on.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from framebank import __version__
from framebank.features.cache import layout
from framebank.features.cache.sidecar import CatalogRow, Sidecar, read_sidecar
from framebank.features.errors import JobError, UsageError
from framebank.features.extraction.engine import Engine, SharedEngine
from framebank.features.extraction.one_clip import build_network, computing
from framebank.features.network.weights import localise_weights
from framebank.features.stores import storage
from framebank.pipelines.extract.plan import ExtractConfig, ShardPlan
from framebank.pipelines.extract.shard_writer import ShardWriter
from framebank.pipelines.jobs.progress import CountsWriter
from framebank.pipelines.jobs.worker_faults import check_address_space, told_to_client

if TYPE_CHECKING:
    from framebank.features.extraction.batches import FrameNetwork

NAMESPACE = "framebank"  # of every counter


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


# The network of this process, whatever bundles, stages, threads and DoFn instances there are. Beam
# drops it when another shared thing (a model that answers) is taken, or one with another tag.
_NETWORK = Shared()
_ENGINE = SharedEngine()
_log = logging.getLogger(__name__)


class ExtractShard(beam.DoFn):  # type: ignore[misc]
    """ShardPlan → the shard's report and its catalog rows, read back from its sidecar.

    A worker process holds one network and one set of decoder processes, however many instances and
    threads of this it serves; they take turns, a shard at a time. Resident memory of such a process
    with inception_v3 in float32 and batches of 32, on two cores: 1.1 GiB, and 20 MiB for each
    further thread.
    """

    def __init__(self, config: ExtractConfig) -> None:
        self._config = config
        self._frames = Metrics.counter(NAMESPACE, "frames")
        self._videos = {
            state: Metrics.counter(NAMESPACE, f"videos_{state}")
            for state in ("done", "quarantined")
        }
        self._passed_on = Metrics.counter(NAMESPACE, "shards_already_committed")

    def setup(self) -> None:
        with told_to_client():
            check_version(self._config)
        self._counts = CountsWriter(self._config.progress_folder)

    def teardown(self) -> None:
        _ENGINE.leave(self)

    def process(self, plan: ShardPlan) -> Iterator[dict[str, Any] | CatalogRow]:
        with told_to_client():
            if storage.exists(layout.sidecar_path(self._config.cache, plan.shard)):
                self._passed_on.inc()
                _log.info("shard %s is committed already", plan.shard)
            else:
                try:
                    self._extract(plan)
                finally:
                    self._counts.counts.unsafe = 0
            sidecar = read_sidecar(self._config.cache, plan.shard)
            _check_rows(self._config, plan, sidecar)
            yield report_of(sidecar)
            yield from sidecar.rows

    def _extract(self, plan: ShardPlan) -> None:
        frames = self._counts.counts.frames
        config = self._config

        def build() -> Engine:  # on first use: committed shards need no network and no decoders
            return Engine(shared_network(config), config.spec, config.policy)

        job = (config.run_id, config.spec.fingerprint, config.policy, config.batch_size)
        with (
            _ENGINE.turn(self, job, build) as engine,
            ShardWriter(config.cache, plan.shard, run_id=config.run_id, spec=config.spec) as writer,
        ):
            start = time.monotonic()
            kept = writer.adopt_parts()
            refs = [ref for ref in plan.longest_first if ref.video_id not in kept]

            def on_frames(count: int) -> None:
                self._frames.inc(count)
                self._counts.counts.frames += count
                self._count_safe(writer.keep(if_due=True))

            for result in engine.run(refs, on_frames=on_frames):
                self._videos[writer.add(result)].inc()
                self._counts.counts.unsafe += 1
                self._count_safe(writer.keep(if_due=True))
            self._count_safe(writer.commit(engine.balance.to_json()), now=True)
        _log.info(
            "shard %s: %d videos, %d frames, %.1f MiB of video in %.1f s",
            *(plan.shard, len(plan.refs), self._counts.counts.frames - frames),
            *(plan.video_bytes / 2**20, time.monotonic() - start),
        )

    def _count_safe(self, states: list[str], *, now: bool = False) -> None:
        """Tell the client that videos with these states are safe from now on."""
        counts = self._counts.counts
        for state in states:
            setattr(counts, state, getattr(counts, state) + 1)
        counts.unsafe -= len(states)
        self._counts.write(now=now or bool(states))


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


def shared_network(config: ExtractConfig) -> FrameNetwork:
    """Return the network of this process for `config`, built by the first thread that asks."""

    def build() -> FrameNetwork:
        check_address_space()
        weights = localise_weights(config.weights)
        return build_network(config.spec, weights, batch_size=config.batch_size)

    tag = (*computing(config.spec), config.batch_size)
    network: FrameNetwork = _NETWORK.acquire(build, tag)
    return network


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
