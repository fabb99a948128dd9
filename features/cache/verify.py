"""Reading a whole cache back: every checksum, shape and value, and every table against the others.

Each fault is one line that names the file, and the record and video where there is one. What a
killed run leaves behind and the next clears away is a remark. Memory holds one record and the
catalog's columns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from framebank.features.cache import catalog, layout, sidecar
from framebank.features.cache import reader as reading
from framebank.features.errors import CacheError, FramebankError
from framebank.features.spec import FeatureSpec
from framebank.features.stores import json_text, storage
from framebank.features.video import catalog_text

_CHUNK_BYTES = 1 << 20
# What a catalog row and its sidecar row must agree in.
_COMPARED = tuple(name for name in sidecar.COLUMN_NAMES if name != "shard")


@dataclasses.dataclass
class Report:
    """What was found. `faults` empty means that the cache is intact."""

    faults: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    shards: int = 0
    records: int = 0
    frames: int = 0
    size_bytes: int = 0
    feature_dim: int | None = None
    damaged_shards: list[str] = dataclasses.field(default_factory=list)
    damaged_files: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def about(self, shard: str) -> Iterator[None]:
        """What is found or raised inside is of `shard`: where it is a fault, that is damaged."""
        before = len(self.faults)
        try:
            yield
        except FramebankError as err:
            self.faults.append(_one_line(err))
        if len(self.faults) > before and shard not in self.damaged_shards:
            self.damaged_shards.append(shard)


def verify_cache(path: str, *, progress: Callable[[int, int], None] | None = None) -> Report:
    """Read the cache at `path` back; `progress` gets (shards done, shards in all).

    Raises UsageError when there is no cache at all; every other fault is in the report.
    """
    report = Report()
    strange = [
        name
        for folder in (path, *(storage.join(path, name) for name in layout.FOLDERS))
        for name in storage.iter_strange(folder)
    ]
    # Whatever lists a cache passes over them.
    report.faults += [f"{name} is a pipe, a device or a link to nowhere" for name in strange]
    if layout.spec_path(path) in strange:
        return report
    try:
        spec = reading.open_spec(path)
    except CacheError as err:  # a damaged one; that there is none at all is a UsageError
        report.faults.append(_one_line(err))
        return report
    rows = _catalog_rows(path, report)
    committed = layout.committed_shards(path)
    for number, shard in enumerate(committed):
        with report.about(shard):
            for fault in _check_shard(path, shard, spec, rows, report):
                report.faults.append(fault)
        if progress is not None:
            progress(number + 1, len(committed))
    _check_lost(rows, report)
    _check_summaries(path, report, emptied=not committed and not rows.newest_runs)
    leftovers = layout.find_leftovers(path)
    report.remarks += [f"left by a stopped run, not read: {leftover}" for leftover in leftovers]
    return report


def _one_line(err: FramebankError) -> str:
    parts = [err.what.replace("\n", "; ")]
    if err.got is not None:
        parts.append(f"got {err.got}")
    if err.expected is not None:
        parts.append(f"expected {err.expected}")
    return ": ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])


class _Rows:
    """All rows of all catalogs, by the file of records that they lie in."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.sort_by("shard")
        files = self._table.column("shard").to_pylist()
        starts = [at for at, file in enumerate(files) if at == 0 or file != files[at - 1]]
        self.spans = {files[s]: (s, e) for s, e in itertools.pairwise([*starts, len(files)])}
        newest = self._table.group_by("video_id").aggregate([("run_id", "max")])
        columns = (newest.column(name).to_pylist() for name in ("video_id", "run_id_max"))
        self.newest_runs: dict[str, str] = dict(zip(*columns, strict=True))

    def pop(self, file: str) -> list[dict[str, Any]] | None:
        """Return the rows of a file, once; None where the catalogs have none."""
        if file not in self.spans:
            return None
        start, end = self.spans.pop(file)
        rows: list[dict[str, Any]] = self._table.slice(start, end - start).to_pylist()
        return rows

    def twice(self) -> list[dict[str, Any]]:
        """Return what `_repeated` does where two rows hold: no reader can say which counts.

        Two runs that met at one shard have both its rows, which are the same.
        """
        names = ["video_id", "run_id", "shard"]
        rows = _repeated(self._table.select(names).group_by(names).aggregate([]))
        return [row for row in rows if self.newest_runs[row["video_id"]] == row["run_id"]]


def _repeated(table: pa.Table) -> list[dict[str, Any]]:
    """Return the videos and runs that stand in several rows of `table`, with their shards."""
    names, lists = ["video_id", "run_id"], [("shard", "count"), ("shard", "list")]
    found = table.group_by(names).aggregate(lists)
    rows: list[dict[str, Any]] = found.filter(
        pc.greater(found.column("shard_count"), 1)
    ).to_pylist()
    return rows


def _catalog_rows(path: str, report: Report) -> _Rows:
    columns = ["shard", *_COMPARED]
    tables = [catalog.fixed_schema().empty_table().select(columns)]
    files = catalog.catalog_files(path)
    if not files:
        report.remarks.append("there is no catalog yet: run the same extract command again")
    for file in files:
        try:
            tables.append(catalog.read_file(file, columns))
        except FramebankError as err:
            report.faults.append(_one_line(err))
            report.damaged_files.append(file)
        else:
            _say_twice(_repeated(tables[-1]), report)
    rows = _Rows(pa.concat_tables(tables))
    _say_twice(rows.twice(), report)
    return rows


def _say_twice(rows: Iterable[Mapping[str, Any]], report: Report) -> None:
    for row in rows:
        said = f"video {row['video_id']!r} has {len(row['shard_list'])} rows of run {row['run_id']}"
        for shard in sorted(set(map(layout.shard_of, row["shard_list"]))):
            with report.about(shard):
                report.faults.append(f"{said}, of them in {shard}")


def _check_lost(rows: _Rows, report: Report) -> None:
    """Name what is in a catalog and not committed: no sidecar names its file of records."""
    newest = rows.newest_runs.items()
    for file in list(rows.spans):
        lost = ((row["video_id"], row["run_id"]) for row in rows.pop(file) or [])
        live = [video_id for video_id, run_id in lost if (video_id, run_id) in newest]
        shard = layout.shard_of(file)
        if live:
            with report.about(shard):
                report.faults.append(
                    f"shard {shard}: the catalog has {len(live)} videos of it "
                    f"({', '.join(map(repr, live[:3]))}), it has no sidecar that names {file}"
                )
        else:
            report.remarks.append(f"shard {shard} was lost; its videos were extracted again since")


def _check_shard(
    path: str, shard: str, spec: FeatureSpec, rows: _Rows, report: Report
) -> Iterator[str]:
    report.shards += 1
    try:
        found = sidecar.read_sidecar(path, shard)
    except FramebankError:
        for file in [file for file in rows.spans if layout.shard_of(file) == shard]:
            rows.pop(file)  # told already
        raise
    if found.fingerprint != spec.fingerprint:
        got = f"got fingerprint {found.fingerprint}, expected {spec.fingerprint}"
        yield f"shard {shard}: made with another spec: {got}"
    known = rows.pop(found.file)
    if known is None:
        report.remarks.append(
            f"shard {shard} is committed but in no catalog: the next extract run sees to it"
        )
    else:
        yield from _compare_rows(shard, found, known, rows)
    tfrecord = layout.tfrecord_path(path, found.file)
    try:
        with storage.open_read(tfrecord) as stream:
            yield from _check_bytes(stream, tfrecord, found, spec, report)
    except storage.FileMissingError:
        done = sum(row.state == "done" for row in found.rows)
        yield f"shard {shard}: {tfrecord} is missing, with {done} videos"


def _compare_rows(
    shard: str, found: sidecar.Sidecar, known: list[dict[str, Any]], rows: _Rows
) -> Iterator[str]:
    expected = {catalog_text(row.video_id): row for row in found.rows}
    if len(expected) != len(found.rows):
        yield f"shard {shard}: its sidecar has two rows of one video"
    seen: set[str] = set()
    for row in known:
        video_id = row["video_id"]
        seen.add(video_id)
        if video_id not in expected:
            yield f"shard {shard}: video {video_id!r} is in the catalog, not in its sidecar"
            continue
        for name in _COMPARED:
            want = getattr(expected[video_id], name)
            want = catalog_text(want) if isinstance(want, str) else want
            if row[name] != want and not (row[name] != row[name] and want != want):  # NaN
                differ = f"{row[name]!r} in the catalog, {want!r} in the sidecar"
                yield f"shard {shard}, video {video_id!r}: {name} is {differ}"
    for video_id in expected:
        # A row that no catalog took up, for there was one of another shard already, is no loss.
        if video_id not in seen and video_id not in rows.newest_runs:
            yield f"shard {shard}: video {video_id!r} is in its sidecar, not in the catalog"


class _Hashing:
    """Reads a stream from front to back, hashing all that passes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.place = 0

    def read(self, length: int) -> bytes:
        data = self._stream.read(length)
        self.sha256.update(data)
        self.place += len(data)
        return data

    def skip_to(self, place: int | None) -> int:
        """Read on to `place` (to the end for None); returns how many bytes that were."""
        start = self.place
        while place is None or self.place < place:
            length = _CHUNK_BYTES if place is None else min(_CHUNK_BYTES, place - self.place)
            if not self.read(length):
                break
        return self.place - start


def _check_bytes(
    stream: BinaryIO, path: str, found: sidecar.Sidecar, spec: FeatureSpec, report: Report
) -> Iterator[str]:
    hashing = _Hashing(stream)
    done = sorted((row for row in found.rows if row.state == "done"), key=lambda row: row.offset)
    for number, row in enumerate(done):
        where = f"{path}, record {row.record}, video {row.video_id!r}"
        if row.record != number:
            yield f"{where}: it is record {number} by its place"
        if row.offset < hashing.place or row.length > found.tfrecord_bytes:
            yield f"{where}: its place (byte {row.offset}, {row.length} long) is wrong"
            continue
        if gap := hashing.skip_to(row.offset):
            yield f"{path}: {gap} bytes before byte {row.offset} are of no video"
        with report.about(found.shard):
            yield from _check_values(hashing.read(row.length), row, path, spec, report)
    if rest := hashing.skip_to(None):
        yield f"{path}: {rest} bytes at the end are of no video"
    report.size_bytes += hashing.place
    if hashing.place != found.tfrecord_bytes:
        yield f"{path}: it has {hashing.place} bytes, its sidecar says {found.tfrecord_bytes}"
    if hashing.sha256.hexdigest() != found.tfrecord_sha256:
        yield f"{path}: its SHA-256 is not the one in its sidecar"


def _check_values(
    data: bytes, row: sidecar.CatalogRow, path: str, spec: FeatureSpec, report: Report
) -> Iterator[str]:
    place = reading.Place(
        catalog_text(row.video_id), row.key, row.shard, row.record, row.offset,
        row.length, row.rows,
    )  # fmt: skip
    found = reading.check_record(place, data, path)
    report.records += 1
    report.frames += len(found.features)
    where = f"{path}, record {row.record}, video {row.video_id!r}"
    if found.dtype != spec.dtype:
        yield f"{where}: dtype {found.dtype}, the spec says {spec.dtype}"
    width = found.features.shape[1]
    report.feature_dim = report.feature_dim or width
    if width != report.feature_dim:
        yield f"{where}: {width} features wide, others are {report.feature_dim}"
    if not np.isfinite(found.features).all():
        yield f"{where}: features that are not finite"
    for name in ("pts_ms", "frame_index"):
        values = getattr(found, name)
        if values[0] < 0 or (np.diff(values) < 0).any():
            yield f"{where}: {name} does not ascend"
    if (found.span_ms is not None) != (spec.clip_length > 1):
        yield f"{where}: spans of rows are there or not, unlike the spec says"
    elif found.span_ms is not None and (found.span_ms[:, 0] > found.span_ms[:, 1]).any():
        yield f"{where}: span_ms ends before it begins"
    for name in ("partial", "decode_errors", "capped", "content_sha256"):
        if (got := getattr(found, name)) != (stated := getattr(row, name)):
            yield f"{where}: {name} is {got!r}, its sidecar says {stated!r}"


def _check_summaries(path: str, report: Report, *, emptied: bool) -> None:
    for file in storage.list_files(storage.join(path, "runs")):
        if not file.path.endswith(".json") or storage.is_leftover(file.path):
            continue
        try:
            summary = json_text.parse(storage.read_bytes(file.path))
        except ValueError as err:
            report.faults.append(f"{file.path} is no JSON: {err}")
            report.damaged_files.append(file.path)
            continue
        done = summary.get("done") if isinstance(summary, dict) else None
        if emptied and done:
            report.faults.append(f"{file.path} tells of {done} videos, and the cache has none")
