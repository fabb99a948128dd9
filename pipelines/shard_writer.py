"""ShardWriter: the results of one shard, put in order, written and committed.

What makes a shard durable is said in `pipelines/shard.py`.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO

from features import layout, storage
from features.engine import Result
from features.errors import JobError, VideoRejected
from features.record import QuantisationError, encode_record
from features.sidecar import CatalogRow, Sidecar, done_row, quarantined_row, write_sidecar
from features.spec import FeatureSpec
from features.tfrecord import frame_record
from features.video import Extracted, Rejected

# One commit at a time can be cut off by the end of this process, and none is: whoever ends it
# takes this lock first.
_COMMITTING = threading.Lock()


def committing() -> threading.Lock:
    """Return the lock that a commit holds."""
    return _COMMITTING


class ShardWriter:
    """Collects the results of one shard and commits them.

    Records wait in a temporary file, not in memory: every frame of a shard of long clips is
    gigabytes. In the shard they stand in the order of their video ids, whoever was done first.
    """

    def __init__(self, cache: str, shard: str, *, run_id: str, spec: FeatureSpec) -> None:
        self._cache, self._shard, self._run_id, self._spec = cache, shard, run_id, spec
        self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="framebank-")
        self._done: dict[str, CatalogRow] = {}  # offset and length are those in the spool
        self._quarantined: dict[str, CatalogRow] = {}
        self._error = QuantisationError()
        self._start = time.monotonic()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def add(self, result: Result) -> str:
        """Take one result; return the state that its video got ("done" or "quarantined")."""
        origin = {
            "fingerprint": self._spec.fingerprint,
            "run_id": self._run_id,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "shard": self._shard,
        }
        if isinstance(result, Extracted):
            try:
                payload, error = encode_record(result, spec=self._spec)
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
        path = layout.tfrecord_path(self._cache, self._shard)
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
                run_id=self._run_id,
                fingerprint=self._spec.fingerprint,
                tfrecord_bytes=size_bytes,
                tfrecord_sha256=digest.hexdigest(),
                quantisation=self._error,
                rows=tuple(rows),
                seconds=round(time.monotonic() - self._start, 3),
                host=socket.gethostname(),
            )
            write_sidecar(self._cache, sidecar)

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
