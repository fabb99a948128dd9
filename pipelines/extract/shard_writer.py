"""What is finished of a shard, kept and committed.

Records first, under a temporary name and renamed (in a bucket one upload to the final name), the
sidecar last, created and never written over. What is finished of a shard is kept in parts while the
rest is at work, so one that was cut off begins where it was some seconds before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import IO

from framebank.features.cache import layout
from framebank.features.cache.record import QuantisationError, framed_record
from framebank.features.cache.sidecar import (
    CatalogRow,
    Sidecar,
    done_row,
    quarantined_row,
    read_sidecar,
    utc_now,
    write_sidecar,
)
from framebank.features.errors import CacheError, FramebankError, JobError, VideoRejected
from framebank.features.extraction.engine import Result, close_all
from framebank.features.spec import FeatureSpec, check_same_spec
from framebank.features.stores import storage
from framebank.features.stores.disk import bytes_sha256
from framebank.features.stores.temporary import explained, temporary_error
from framebank.features.video import Extracted, Rejected

_KEEP_EVERY_S = 20.0  # what a killed worker may lose of finished videos

# One commit at a time can be cut off by the end of this process, and none is: whoever ends it
# takes this lock first, and keeps for itself what the writers below have finished.
COMMITTING = threading.RLock()
_LIVE: weakref.WeakSet[ShardWriter] = weakref.WeakSet()


def keep_finished() -> None:
    """Commit what is finished of the shards in hand, as far as that goes (for the way out)."""
    for writer in list(_LIVE):
        writer.keep_what_can_be()


def stop(*, wait_s: float) -> None:
    """Keep what is finished and end the decoders of this process (for the way out).

    A commit that is under way is waited for; none begins after it.
    """
    if COMMITTING.acquire(timeout=wait_s):
        keep_finished()
    close_all()


class ShardWriter:
    """Collects the results of one shard and commits them.

    Records wait in a temporary file, not in memory: every frame of a shard of long clips is
    gigabytes. In the shard they stand in the order of their video ids, whoever was done first.

    A shard that takes long is kept in parts (`keep`), each a small committed shard with what was
    finished since the one before. Whoever begins the shard again takes them up (`adopt_parts`); the
    whole shard is written all the same, with the same bytes as without them, and `FinishRun`
    removes the parts. Of a run that ended before, the next one catalogues them.
    """

    def __init__(self, cache: str, shard: str, *, run_id: str, spec: FeatureSpec) -> None:
        self._cache, self._shard, self._run_id, self._spec = cache, shard, run_id, spec
        with explained():
            self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="framebank-")
        # Offset and length are those in the spool; no row says yet in which file it lies.
        self._rows: dict[str, CatalogRow] = {}
        self._errors: dict[str, QuantisationError] = {}
        self._unkept: dict[str, str] = {}  # video id → state
        self._parts = 0  # how many there are, as far as this attempt knows
        self._kept_at = self._start = time.monotonic()
        self._end: float | None = None
        self._lock = threading.RLock()  # `keep_finished` comes from another thread

    def __enter__(self) -> ShardWriter:
        _LIVE.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # whatever ends the shard costs the videos in hand only
            self.keep_what_can_be()
        _LIVE.discard(self)
        self._spool.close()

    def begin(self) -> None:
        """Have the time that the shard takes count from now on."""
        self._kept_at = self._start = time.monotonic()

    def end(self) -> None:
        """Have the time that the shard takes count to now, whenever it is committed."""
        self._end = time.monotonic()

    @property
    def seconds(self) -> float:
        return (self._end or time.monotonic()) - self._start

    @property
    def frames(self) -> int:
        """How many frames the videos so far have."""
        with self._lock:
            return sum(row.rows for row in self._rows.values())

    def add(self, result: Result) -> str:
        """Take one result; return the state that its video got ("done" or "quarantined")."""
        origin = {
            "fingerprint": self._spec.fingerprint,
            "run_id": self._run_id,
            "time": utc_now(),
            "shard": "",
        }
        if isinstance(result, Extracted):
            try:
                framed, error = framed_record(result, spec=self._spec)
            except VideoRejected as bad:
                result = Rejected(result.ref, bad.stage, bad.error_class, bad.message)
            else:
                row = done_row(result, **origin, length=len(framed))
                return self._take(row, framed, error)
        return self._take(quarantined_row(result, **origin), b"", QuantisationError())

    def _take(self, row: CatalogRow, framed: bytes, error: QuantisationError) -> str:
        with self._lock:
            if row.state == "done":
                try:
                    row = dataclasses.replace(row, offset=self._spool.seek(0, 2))
                    self._spool.write(framed)
                except OSError as fault:
                    raise temporary_error(fault) from fault
            self._rows[row.video_id] = row
            self._errors[row.video_id] = error
            self._unkept[row.video_id] = row.state
            return row.state

    def adopt_parts(self) -> Collection[str]:
        """Take up what an attempt before this one kept; return the ids of those videos.

        Of this run's attempts only: what other runs left was seen to before this one began.
        """
        while self._part_exists():
            with contextlib.suppress(CacheError):  # a part that is damaged is done again
                self._adopt(read_sidecar(self._cache, self._part))
            self._parts += 1
        with self._lock:
            self._unkept.clear()
            return set(self._rows)

    def _adopt(self, part: Sidecar) -> None:
        if (part.run_id, part.fingerprint) != (self._run_id, self._spec.fingerprint):
            return
        data = storage.read_bytes(layout.tfrecord_path(self._cache, part.file))
        if bytes_sha256(data) != part.tfrecord_sha256:
            return
        with self._lock:
            for row in part.rows:
                if row.video_id not in self._rows:
                    framed = data[row.offset : row.offset + row.length]
                    self._take(row, framed, QuantisationError())
            if part.rows:  # of the videos together: what one of them adds is not known
                self._errors[part.rows[0].video_id] = part.quantisation

    def keep(self, *, if_due: bool = False) -> list[str]:
        """Commit as a part what is finished and not yet safe; return the states of that."""
        if if_due and time.monotonic() - self._kept_at < _KEEP_EVERY_S:
            return []
        with COMMITTING, self._lock:
            states = list(self._unkept.values())
            while states and (self._part_exists() or not self._publish(self._part, self._unkept)):
                self._parts += 1  # of another attempt at this shard, which is still at work
            self._parts += bool(states)
            self._unkept.clear()
            self._kept_at = time.monotonic()
            return states

    def keep_what_can_be(self) -> None:
        """`keep`, on the way out: what cannot be kept now is done again, and no more is lost."""
        with contextlib.suppress(FramebankError, OSError, ValueError):
            self.keep()

    def commit(self, balance: Mapping[str, float] = MappingProxyType({})) -> list[str]:
        """Write the shard and commit it, with the `balance` of the engine that made it; return the
        states of what is safe since.

        Where another attempt was first, its shard holds, and what this one wrote is removed.
        """
        with COMMITTING, self._lock:
            # Looked at first: whoever wakes late need not write what is there already.
            if not storage.exists(layout.sidecar_path(self._cache, self._shard)):
                self._publish(self._shard, self._rows, balance)
            states = list(self._unkept.values())
            self._unkept.clear()
            return states

    @property
    def _part(self) -> str:
        return layout.part_name(self._shard, self._parts)

    def _part_exists(self) -> bool:
        return storage.exists(layout.sidecar_path(self._cache, self._part))

    def _publish(
        self,
        shard: str,
        video_ids: Collection[str],
        balance: Mapping[str, float] = MappingProxyType({}),
    ) -> bool:
        """Write the records of these videos, then the sidecar; before that nothing counts.

        Returns False, and leaves nothing, where another attempt at the shard was first.
        """
        ids = sorted(video_ids)
        rows = sorted((self._rows[video_id] for video_id in ids), key=lambda row: row.state)
        done = [row for row in rows if row.state == "done"]
        digest, size_bytes = hashlib.sha256(), 0
        for chunk in self._records(done):
            digest.update(chunk)
            size_bytes += len(chunk)
        file = layout.file_name(shard, digest.hexdigest())
        path = layout.tfrecord_path(self._cache, file)
        storage.write_atomic(path, self._records(done))
        written = storage.find(path)
        if written is None or written.size_bytes != size_bytes:
            raise JobError(
                f"shard {shard} is not as it was written",
                got=written and f"{written.size_bytes} bytes",
                expected=f"{size_bytes} bytes",
                todo="check the disk or bucket, then run the same command again",
            )
        sidecar = Sidecar(
            shard=shard,
            run_id=self._run_id,
            fingerprint=self._spec.fingerprint,
            tfrecord_bytes=size_bytes,
            tfrecord_sha256=digest.hexdigest(),
            quantisation=sum((self._errors[video_id] for video_id in ids), QuantisationError()),
            rows=tuple(_placed(rows, file)),
            seconds=round(self.seconds, 3),
            host=socket.gethostname(),
            file=file,
            parts=0 if layout.whole_of(shard) else self._parts,
            balance=dict(balance),
        )
        _check_spec(self._cache, self._spec)
        if write_sidecar(self._cache, sidecar):
            return True
        if read_sidecar(self._cache, shard).file != file:  # the same bytes have the same name
            storage.delete(path)
        return False

    def _records(self, rows: Iterable[CatalogRow]) -> Iterator[bytes]:
        for row in rows:
            self._spool.seek(row.offset)
            yield self._spool.read(row.length)


def _placed(rows: Iterable[CatalogRow], file: str) -> Iterator[CatalogRow]:
    """Yield rows, those with a record first, with the places that their records have in `file`."""
    offset = 0
    for number, row in enumerate(rows):
        if row.state == "done":
            row = dataclasses.replace(row, record=number, offset=offset)
            offset += row.length
        yield dataclasses.replace(row, shard=file)


def _check_spec(cache: str, spec: FeatureSpec) -> None:
    """Raise SpecMismatchError, JobError where `cache` is no cache of `spec` any more."""
    there = layout.read_spec(cache)
    if there is None:
        raise JobError(
            f"{layout.spec_path(cache)} is gone",
            got="a cache that was removed while this job ran",
            todo="let nobody remove a cache that a job writes to; run the same command again",
        )
    check_same_spec(there, spec, where=cache)
