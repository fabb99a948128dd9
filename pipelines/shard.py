"""ExtractShard: the one ParDo that decodes, infers, writes and commits a shard.

A shard is durable when its sidecar is there: records first, under a temporary name and renamed (in
a bucket one upload to the final name), the sidecar last. Its name and bytes follow from its videos
and the spec, so a bundle that an engine runs again finds the sidecar and only passes the rows on,
and one that was cut off writes the same file again.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from features import layout, storage
from features.decoder_pool import DecoderPolicy
from features.engine import Engine, Result, close_all
from features.errors import FramebankError, JobError, VideoRejected
from features.extraction import build_network
from features.progress import CountsWriter
from features.record import QuantisationError, encode_record
from features.sidecar import (
    CatalogRow,
    Sidecar,
    done_row,
    quarantined_row,
    read_sidecar,
    write_sidecar,
)
from features.spec import FeatureSpec
from features.tfrecord import frame_record
from features.video import Extracted, Rejected
from features.weights import Weights
from pipelines.beam_options import mark_for_client
from pipelines.plan import ShardPlan

NAMESPACE = "framebank"  # of every counter


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """All that a worker needs to know; travels with the job."""

    cache: str
    run_id: str
    spec: FeatureSpec
    weights: Weights
    policy: DecoderPolicy
    batch_size: int = 32
    progress_folder: str | None = None


# One commit at a time can be cut off by the end of this process, and none is: see `stop`.
_COMMITTING = threading.Lock()


def committing() -> threading.Lock:
    """Return the lock that a commit holds; `stop` waits for it."""
    return _COMMITTING


def stop(*, wait_s: float) -> None:
    """End the decoders of this process, after a commit that is under way (for the way out)."""
    _COMMITTING.acquire(timeout=wait_s)
    close_all()


class ExtractShard(beam.DoFn):  # type: ignore[misc]
    """ShardPlan → the shard's catalog rows, read back from its sidecar."""

    def __init__(self, config: ExtractConfig, shared: Shared) -> None:
        self._config, self._shared = config, shared
        self._engine: Engine | None = None
        self._frames = Metrics.counter(NAMESPACE, "frames")
        self._videos = {
            state: Metrics.counter(NAMESPACE, f"videos_{state}")
            for state in ("done", "quarantined")
        }
        self._passed_on = Metrics.counter(NAMESPACE, "shards_already_committed")

    def setup(self) -> None:
        self._counts = CountsWriter(self._config.progress_folder)

    def teardown(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def process(self, plan: ShardPlan) -> Iterator[CatalogRow]:
        try:
            if storage.exists(layout.sidecar_path(self._config.cache, plan.shard)):
                self._passed_on.inc()
            else:
                self._extract(plan)
            yield from _check_rows(plan, read_sidecar(self._config.cache, plan.shard))
        except FramebankError as error:
            raise mark_for_client(error) from error
        except OSError as error:  # of the temporary folder: storage explains its own
            fault = storage.storage_error(tempfile.tempdir or "/tmp", error, "use")
            raise mark_for_client(fault) from error

    def _extract(self, plan: ShardPlan) -> None:
        with ShardWriter(self._config, plan.shard) as writer:
            for result in self._ready_engine().run(plan.refs, on_frames=self._count_frames):
                state = writer.add(result)
                self._videos[state].inc()
                setattr(self._counts.counts, state, getattr(self._counts.counts, state) + 1)
                self._counts.write()
            writer.commit()
        self._counts.write(now=True)

    def _count_frames(self, count: int) -> None:
        self._frames.inc(count)
        self._counts.counts.frames += count
        self._counts.write()

    def _ready_engine(self) -> Engine:
        """Build on first use: a bundle of committed shards needs no network and no decoders."""
        if self._engine is None:
            network = self._shared.acquire(self._build_network)
            self._engine = Engine(network, self._config.spec, self._config.policy)
        return self._engine

    def _build_network(self) -> Any:
        config = self._config
        return build_network(config.spec, config.weights, batch_size=config.batch_size)


def _check_rows(plan: ShardPlan, sidecar: Sidecar) -> tuple[CatalogRow, ...]:
    """Hold what was written against what was asked for: each video once, and no other."""
    written = sorted(row.video_id for row in sidecar.rows)
    asked = sorted(ref.video_id for ref in plan.refs)
    if written != asked:
        raise JobError(
            f"shard {plan.shard} does not account for its videos",
            got=f"{len(written)} rows in its sidecar",
            expected=f"one row for each of its {len(asked)} videos",
            todo="run `framebank verify CACHE`, and report this",
        )
    return sidecar.rows


class ShardWriter:
    """Collects the results of one shard and commits them.

    Records wait in a temporary file, not in memory: every frame of a shard of long clips is
    gigabytes. In the shard they stand in the order of their video ids, whoever was done first.
    """

    def __init__(self, config: ExtractConfig, shard: str) -> None:
        self._config, self._shard = config, shard
        self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="framebank-")
        self._done: dict[str, CatalogRow] = {}  # offset and length are those in the spool
        self._quarantined: dict[str, CatalogRow] = {}
        self._error = QuantisationError()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def add(self, result: Result) -> str:
        """Take one result; return the state that its video got ("done" or "quarantined")."""
        origin = {
            "fingerprint": self._config.spec.fingerprint,
            "run_id": self._config.run_id,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "shard": self._shard,
        }
        if isinstance(result, Extracted):
            try:
                payload, error = encode_record(result, spec=self._config.spec)
            except VideoRejected as bad:
                result = Rejected(result.ref, bad.stage, bad.error_class, bad.message)
            else:
                offset, length = self._spool_record(frame_record(payload))
                self._error = self._error + error
                row = done_row(result, **origin, record=-1, offset=offset, length=length)
                self._done[row.video_id] = row
                return row.state
        row = quarantined_row(result, **origin)
        self._quarantined[row.video_id] = row
        return row.state

    def _spool_record(self, framed: bytes) -> tuple[int, int]:
        try:
            offset = self._spool.tell()
            self._spool.write(framed)
        except OSError as error:
            raise storage.storage_error(tempfile.gettempdir(), error, "write") from error
        return offset, len(framed)

    def commit(self) -> None:
        """Write the shard, then its sidecar; nothing of it counts before the sidecar is there."""
        rows = self._placed_rows()
        path = layout.tfrecord_path(self._config.cache, self._shard)
        digest, size_bytes = hashlib.sha256(), 0
        with committing():
            with storage.open_atomic(path) as file:
                for chunk in self._ordered_records():
                    file.write(chunk)
                    digest.update(chunk)
                    size_bytes += len(chunk)
            written = storage.find(path)
            if written is None or written.size_bytes != size_bytes:
                raise JobError(
                    f"shard {self._shard} is not as it was written",
                    got=written and f"{written.size_bytes} bytes",
                    expected=f"{size_bytes} bytes",
                    todo="check the disk or bucket, then run the same command again",
                )
            sidecar = Sidecar(
                shard=self._shard,
                run_id=self._config.run_id,
                fingerprint=self._config.spec.fingerprint,
                tfrecord_bytes=size_bytes,
                tfrecord_sha256=digest.hexdigest(),
                quantisation=self._error,
                rows=tuple(rows),
            )
            write_sidecar(self._config.cache, sidecar)

    def _placed_rows(self) -> list[CatalogRow]:
        """Return the rows in the order of the shard, with the places their records will have."""
        rows, offset = [], 0
        for number, video_id in enumerate(sorted(self._done)):
            row = dataclasses.replace(self._done[video_id], record=number, offset=offset)
            rows.append(row)
            offset += row.length
        return rows + [self._quarantined[video_id] for video_id in sorted(self._quarantined)]

    def _ordered_records(self) -> Iterator[bytes]:
        for video_id in sorted(self._done):
            row = self._done[video_id]
            self._spool.seek(row.offset)
            yield self._spool.read(row.length)
