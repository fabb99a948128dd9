"""The row that a video leaves behind, and the sidecar that commits a shard.

A sidecar is created after the shard's file of records is whole and durable, and never written over:
of two attempts at a shard the first one counts. It holds one row per video, done or quarantined,
the name, size and SHA-256 of that file, and a checksum of all this (`sha256`).
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from framebank.features.cache import layout
from framebank.features.cache.record import QuantisationError
from framebank.features.errors import CacheError
from framebank.features.stores import json_text, storage
from framebank.features.video import Extracted, Rejected, VideoRef

STATES = ("done", "quarantined")


@dataclasses.dataclass(frozen=True)
class CatalogRow:
    """What became of one video in one run.

    A done row says where its record lies: the `record`-th of the file `shard` (`layout.file_name`),
    `length` bytes from `offset` with its frame. A quarantined row has record -1 and a stage, class
    and message; the message of a done row warns of what its container states and is not so.
    `fingerprint` is that of the spec it was made with, "" where that was not kept. `checked` says
    how much of a done video was decoded, and so judged: "whole", or "sampled", where it was what
    its rows needed; "" in rows of earlier versions, which decoded the whole of each.
    `run_id` sorts by time: of two rows of one video that of the larger run_id holds.
    `time` is UTC, ISO 8601. `columns` are the manifest's further columns.
    """

    video_id: str
    uri: str
    size_bytes: int
    generation: str
    key: str
    state: str
    attempt: int
    run_id: str
    time: str
    shard: str
    record: int = -1
    offset: int = 0
    length: int = 0
    rows: int = 0
    partial: bool = False
    decode_errors: int = 0
    capped: bool = False
    content_sha256: str = ""
    source_container: str = ""
    source_codec: str = ""
    source_width: int = 0
    source_height: int = 0
    source_rate_fps: float = 0.0
    source_duration_s: float = 0.0
    source_frames: int = 0
    stage: str = ""
    error_class: str = ""
    message: str = ""
    fingerprint: str = ""
    checked: str = ""
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"columns": dict(self.columns)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CatalogRow:
        """Build from `to_json`'s dict; raises TypeError for unknown or missing fields."""
        row = cls(**fields)
        if row.state not in STATES:
            raise ValueError(f"state {row.state!r}")
        return row


# The catalog's own columns, in order; a manifest may not bring one of these names.
COLUMN_NAMES = tuple(
    field.name for field in dataclasses.fields(CatalogRow) if field.name != "columns"
)


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What commits one shard. `quantisation` is over all features of the shard.

    `file` is what rows call its file of records (`layout.tfrecord_path` has its path).
    `seconds` is how long the worker `host` took for it; 0 and "" where that was not kept. `balance`
    is what its parts did meanwhile (`extraction/balance.py`), {} where that was not kept.
    """

    shard: str
    run_id: str
    fingerprint: str
    tfrecord_bytes: int
    tfrecord_sha256: str
    quantisation: QuantisationError
    rows: tuple[CatalogRow, ...]
    seconds: float = 0.0
    host: str = ""
    file: str = ""
    parts: int = 0  # that were kept of this shard, as far as who committed it knows
    balance: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.file:  # one file a shard, under the shard's own name
            object.__setattr__(self, "file", self.shard)


def utc_now() -> str:
    """Return the time as rows and summaries have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def done_row(extracted: Extracted, *, fingerprint: str, **where: Any) -> CatalogRow:
    """Return the row of a video whose record was written; `where` are run_id, time, shard, record,
    offset and length."""
    return CatalogRow(
        **_identity(extracted.ref, fingerprint),
        **where,
        state="done",
        rows=len(extracted.features),
        partial=extracted.partial,
        decode_errors=extracted.decode_errors,
        capped=extracted.capped,
        message=extracted.warning,
        checked=extracted.checked,
        content_sha256=extracted.content_sha256,
        **{f"source_{name}": value for name, value in vars(extracted.source).items()},
    )


def quarantined_row(rejected: Rejected, *, fingerprint: str, **where: Any) -> CatalogRow:
    """Return the row of a video that cannot be used; `where` are run_id, time and shard."""
    return CatalogRow(
        **_identity(rejected.ref, fingerprint),
        **where,
        state="quarantined",
        stage=rejected.stage,
        error_class=rejected.error_class,
        message=rejected.message,
    )


def _identity(ref: VideoRef, fingerprint: str) -> dict[str, Any]:
    return {
        "video_id": ref.video_id,
        "uri": ref.uri,
        "size_bytes": ref.size_bytes,
        "generation": ref.generation,
        "key": ref.key(fingerprint),
        "attempt": ref.attempt,
        "fingerprint": fingerprint,
        "columns": dict(ref.columns),
    }


def write_sidecar(cache: str, sidecar: Sidecar) -> bool:
    """Commit a shard: create its sidecar; False where another attempt at it was first."""
    fields = vars(sidecar) | {
        "quantisation": dataclasses.asdict(sidecar.quantisation),
        "rows": [row.to_json() for row in sidecar.rows],
    }
    data = json.dumps(fields | {"sha256": checksum(fields)}, indent=1).encode() + b"\n"
    path = layout.sidecar_path(cache, sidecar.shard)
    return storage.write_atomic(path, data, create_only=True)


def remove_shard(cache: str, shard: str) -> None:
    """Remove a shard that nobody reads any more: its sidecar first, which took it out of sight."""
    path = layout.sidecar_path(cache, shard)
    try:
        file = read_sidecar(cache, shard).file
    except CacheError:  # gone already, or damaged: then what lies there by its name is found
        file = None
    storage.delete(path)
    if file is not None:
        storage.delete(layout.tfrecord_path(cache, file))


def count_kept(cache: str, committed: Collection[str], videos: Mapping[str, int]) -> int:
    """Return how many videos of the shards in `videos` (name: count) are safe.

    `committed` are the names of shards that are; a part counts as long as its whole is none.
    """
    kept = sum(videos.get(name, 0) for name in committed)
    for name in committed:
        whole = layout.whole_of(name)
        if whole in videos and whole not in committed:
            kept += _videos_of(cache, name)
    return kept


@functools.lru_cache(maxsize=10_000)
def _videos_of(cache: str, shard: str) -> int:
    try:
        return len(read_sidecar(cache, shard).rows)
    except CacheError:  # removed meanwhile, or damaged
        return 0


def checksum(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of a sidecar's fields (without `sha256` itself)."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_sidecar(cache: str, name: str) -> Sidecar:
    """Read the sidecar of a shard, or of the file `name` of one.

    Raises FileMissingError, CacheError for a damaged one and for one that names another file.
    """
    path = layout.sidecar_path(cache, name)
    shard = layout.shard_of(name)
    try:
        fields = json_text.parse(storage.read_bytes(path))
        if fields.pop("sha256") != checksum(fields):
            raise ValueError("its checksum does not hold")
        sidecar = Sidecar(
            shard=fields["shard"],
            run_id=layout.check_name(fields["run_id"]),
            fingerprint=str(fields["fingerprint"]),
            tfrecord_bytes=int(fields["tfrecord_bytes"]),
            tfrecord_sha256=str(fields["tfrecord_sha256"]),
            quantisation=QuantisationError.from_json(fields["quantisation"]),
            rows=tuple(CatalogRow.from_json(row) for row in fields["rows"]),
            seconds=float(fields.get("seconds", 0.0)),
            host=str(fields.get("host", "")),
            file=layout.check_name(fields.get("file", shard)),
            parts=int(fields.get("parts", 0)),
            balance={str(k): float(v) for k, v in dict(fields.get("balance", {})).items()},
        )
        if sidecar.shard != shard or layout.shard_of(sidecar.file) != shard:
            raise ValueError(f"it is about another shard than {shard}")
        if any(row.shard != sidecar.file for row in sidecar.rows):
            raise ValueError(f"a row of it lies in another file than {sidecar.file}")
        if name not in (shard, sidecar.file):
            raise ValueError(f"it names the file {sidecar.file}, not {name}")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as err:
        raise CacheError(
            f"the sidecar {path} is damaged",
            got=f"{type(err).__name__}: {err}",
            todo="restore it, or delete it so that the next run makes its shard again",
        ) from err
    return sidecar
