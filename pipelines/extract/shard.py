"""ExtractShard: the one ParDo that decodes, infers, writes and commits a shard.

A shard is durable when its sidecar is there: records first, under a temporary name and renamed (in
a bucket one upload to the final name), the sidecar last, created and never written over. Its name
and bytes follow from its videos and the spec, so a bundle that an engine runs again finds the
sidecar and only passes the rows on. What is finished of a shard is kept in parts while the rest is
at work, so one that was cut off begins where it was some seconds before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from framebank import __version__
from framebank.features.cache import layout
from framebank.features.cache.record import QuantisationError
from framebank.features.cache.sidecar import CatalogRow, Sidecar, read_sidecar
from framebank.features.errors import JobError, UsageError
from framebank.features.extraction.engine import Engine, close_all
from framebank.features.extraction.one_clip import build_network
from framebank.features.network.weights import localise_weights
from framebank.features.stores import storage
from framebank.pipelines.extract.plan import ExtractConfig, ShardPlan
from framebank.pipelines.extract.shard_writer import ShardWriter, committing, keep_finished
from framebank.pipelines.jobs.progress import CountsWriter
from framebank.pipelines.jobs.worker_faults import check_address_space, told_to_client

if TYPE_CHECKING:
    from framebank.features.network.frozen_network import Network

NAMESPACE = "framebank"  # of every counter


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What a committed shard says of itself, ahead of its rows.

    `seconds` on the worker `host`, whichever run and attempt that was.
    """

    shard: str
    videos: int
    frames: int
    video_bytes: int
    seconds: float
    host: str
    quantisation: QuantisationError
    parts: int = 0

    @classmethod
    def of(cls, sidecar: Sidecar) -> ShardReport:
        return cls(
            shard=sidecar.shard,
            videos=len(sidecar.rows),
            frames=sum(row.rows for row in sidecar.rows),
            video_bytes=sum(max(0, row.size_bytes) for row in sidecar.rows),
            seconds=sidecar.seconds,
            host=sidecar.host,
            quantisation=sidecar.quantisation,
            parts=sidecar.parts,
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ShardReport:
        error = QuantisationError.from_json(fields["quantisation"])
        return cls(**fields | {"quantisation": error})


class SharedEngine:
    """The engine of a process: built when it is first needed, closed when its last user leaves.

    Runners have several instances of a DoFn in the threads of one process (Flink: one for each
    slot). With an engine each, memory and decoders would be multiplied by the slots, and a worker
    that dies would cost a shard for each slot instead of one. So they take turns, a shard at a
    time; one engine keeps all cores busy by itself.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._users = 0
        self._engine: Engine | None = None
        self._made_for: Hashable = None

    def join(self) -> None:
        """Count one more user."""
        with self._counting:
            self._users += 1

    def leave(self) -> None:
        """Count one user less; the last one ends the decoder processes."""
        with self._counting:
            self._users -= 1
            if self._users:
                return
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    @contextlib.contextmanager
    def turn(self, job: Hashable, build: Callable[[], Engine]) -> Iterator[Engine]:
        """Yield the engine to one thread at a time; `build` makes it for the first of a job.

        After an exception it is closed: its decoders may still be at the clips of that shard.
        """
        with self._turn:
            if self._made_for != job:
                self._close()
            if self._engine is None:
                self._engine, self._made_for = build(), job
            try:
                yield self._engine
            except BaseException:
                self._close()
                raise


# The network of this process, whatever bundles, stages, threads and DoFn instances there are. Beam
# drops it when another shared thing (a model that answers) is taken, or one with another tag.
_NETWORK = Shared()
_ENGINE = SharedEngine()
_log = logging.getLogger(__name__)


def stop(*, wait_s: float) -> None:
    """Keep what is finished and end the decoders of this process (for the way out).

    A commit that is under way is waited for; none begins after it.
    """
    if committing().acquire(timeout=wait_s):
        keep_finished()
    close_all()


class ExtractShard(beam.DoFn):  # type: ignore[misc]
    """ShardPlan → the shard's report and its catalog rows, read back from its sidecar.

    A worker process holds one network and one set of decoder processes, however many instances and
    threads of this it serves; they take turns, a shard at a time. Resident memory of such a process
    with inception_v3 in float32 and batches of 32, on two cores: 1.1 GiB, and 20 MiB for each
    further thread.
    """

    def __init__(self, config: ExtractConfig) -> None:
        self._config = config
        self._joined = False
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
        if self._joined:
            _ENGINE.leave()
            self._joined = False

    def process(self, plan: ShardPlan) -> Iterator[ShardReport | CatalogRow]:
        with told_to_client():
            if storage.exists(layout.sidecar_path(self._config.cache, plan.shard)):
                self._passed_on.inc()
                _log.info("shard %s is committed already", plan.shard)
            else:
                self._extract(plan)
            sidecar = read_sidecar(self._config.cache, plan.shard)
            _check_rows(self._config, plan, sidecar)
            yield ShardReport.of(sidecar)
            yield from sidecar.rows

    def _extract(self, plan: ShardPlan) -> None:
        frames = self._counts.counts.frames
        config = self._config
        if not self._joined:
            _ENGINE.join()
            self._joined = True
        # Built on first use: a bundle of committed shards needs no network and no decoders.
        job = (config.run_id, config.spec.fingerprint, config.policy, config.batch_size)
        with (
            _ENGINE.turn(job, self._build_engine) as engine,
            ShardWriter(config.cache, plan.shard, run_id=config.run_id, spec=config.spec) as writer,
            self._none_unsafe_after(),
        ):
            start = time.monotonic()
            kept = writer.adopt_parts()
            refs = [ref for ref in plan.refs if ref.video_id not in kept]

            def on_frames(count: int) -> None:
                self._frames.inc(count)
                self._counts.counts.frames += count
                self._count_safe(writer.keep_if_due())

            for result in engine.run(refs, on_frames=on_frames):
                self._videos[writer.add(result)].inc()
                self._counts.counts.unsafe += 1
                self._count_safe(writer.keep_if_due())
            self._count_safe(writer.commit(), now=True)
        _log.info(
            "shard %s: %d videos, %d frames, %.1f MiB of video in %.1f s",
            *(plan.shard, len(plan.refs), self._counts.counts.frames - frames),
            *(plan.video_bytes / 2**20, time.monotonic() - start),
        )

    @contextlib.contextmanager
    def _none_unsafe_after(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._counts.counts.unsafe = 0

    def _count_safe(self, states: list[str], *, now: bool = False) -> None:
        """Tell the client that videos with these states are safe from now on."""
        counts = self._counts.counts
        for state in states:
            setattr(counts, state, getattr(counts, state) + 1)
        counts.unsafe -= len(states)
        self._counts.write(now=now or bool(states))

    def _build_engine(self) -> Engine:
        return Engine(shared_network(self._config), self._config.spec, self._config.policy)


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


def shared_network(config: ExtractConfig) -> Network:
    """Return the network of this process for `config`, built by the first thread that asks."""

    def build() -> Network:
        check_address_space()
        weights = localise_weights(config.weights)
        return build_network(config.spec, weights, batch_size=config.batch_size)

    spec = config.spec
    tag = (spec.backbone, spec.layer, spec.weights_sha256, spec.precision, config.batch_size)
    network: Network = _NETWORK.acquire(build, tag)
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
