"""Manifests: tables that name videos, as .csv, .jsonl or .parquet.

A manifest has a column `uri` (a path, relative to the manifest's folder or absolute, or gs://),
optionally `video_id`, and any further columns, which travel into the catalog. A fault is named by
its line, before any work.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from framebank.features.cache.sidecar import COLUMN_NAMES
from framebank.features.errors import UsageError
from framebank.features.stores import json_text, storage, tables
from framebank.features.stores.objects import first_line
from framebank.features.video import catalog_text

SUFFIXES = (".csv", ".jsonl", ".parquet")
_OWN = ("uri", "video_id")


@dataclasses.dataclass(frozen=True, slots=True)
class ManifestRow:
    """One row: `place` names it in messages; `video_id` is None where the manifest gives none."""

    place: str
    uri: str
    video_id: str | None
    columns: Mapping[str, Any]


def is_manifest(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def read_manifest(path: str) -> Iterator[ManifestRow]:
    """Yield the rows of a manifest; raises UsageError that names the file and the line."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = next(read for suffix, read in readers.items() if path.lower().endswith(suffix))
    for place, fields in reader(path, storage.read_bytes(path)):
        yield _row(path, place, fields)


def _fault(path: str, place: str, got: object, expected: object = None) -> UsageError:
    at = f", {place}" if place else ""
    return UsageError(
        f"manifest {path}{at}: cannot be used",
        got=got,
        expected=expected,
        todo="correct the manifest, then run again",
    )


def _check_header(path: str, names: list[str]) -> None:
    """Raise UsageError for a header without uri, with a name twice, or with one of ours."""
    if "uri" not in names:
        raise _fault(path, "", f"columns {', '.join(map(repr, names))}", "a column 'uri'")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _fault(path, "", f"column {twice[0]!r} twice", "each name once")
    taken = [name for name in names if name in COLUMN_NAMES and name not in _OWN]
    if taken:
        raise _fault(
            path, "", f"column {', '.join(map(repr, taken))}, which the catalog has already",
            f"other names, for instance 'my_{taken[0]}'",
        )  # fmt: skip


def _row(path: str, place: str, fields: Mapping[str, Any]) -> ManifestRow:
    uri = fields.get("uri")
    if not isinstance(uri, str) or not uri or "\0" in uri:
        raise _fault(path, place, f"uri {uri!r}", "a path or gs://BUCKET/NAME")
    video_id = fields.get("video_id")
    if isinstance(video_id, bool) or not isinstance(video_id, str | int | None):
        raise _fault(path, place, f"video_id {video_id!r}", "a text")
    for text in (uri, str(video_id)):
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as err:
            raise _fault(path, place, f"{text!r}, which is no Unicode text") from err
    columns = {name: _plain(value) for name, value in fields.items() if name not in _OWN}
    return ManifestRow(place, uri, None if video_id in (None, "") else str(video_id), columns)


def _plain(value: Any) -> str | int | float | bool | None:
    """Return a value that a sidecar and the catalog can hold."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return catalog_text(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _decode(path: str, data: bytes) -> str:
    try:
        return tables.decode_text(data)
    except tables.NotUtf8Error as err:
        raise _fault(path, f"line {err.line}", "bytes that are no UTF-8", "UTF-8") from err


def _read_csv(path: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    text = _decode(path, data)
    rows = tables.read_csv(text, tables.header_delimiter(text, ",\t;"))
    try:
        # A column without a name is what pandas writes its index as.
        _, header = next(rows, (0, []))
        names = [name.strip() or f"column_{at}" for at, name in enumerate(header)]
        _check_header(path, names)
        for number, values in rows:
            if not values:
                continue
            place = f"line {number}"
            if len(values) != len(names):
                raise _fault(path, place, f"{len(values)} values", f"{len(names)}, as the header")
            yield place, dict(zip(names, values, strict=True))
    except tables.NotCsvError as err:
        raise _fault(path, f"line {err.line}", err) from err


def _read_jsonl(path: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    checked: set[str] = set()
    for number, line in tables.numbered_lines(_decode(path, data)):
        line, place = line.removesuffix("\n"), f"line {number}"
        try:
            fields = json_text.parse(line, object_pairs_hook=_with_names_once)
        except ValueError as err:
            raise _fault(path, place, err, "one JSON object per line") from err
        if not isinstance(fields, dict):
            raise _fault(path, place, line[:60], "one JSON object per line")
        if not checked.issuperset(fields):
            _check_header(path, [*fields])
            checked.update(fields)
        yield place, fields


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"column {twice!r} twice")
    return fields


def _read_parquet(path: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa

    from framebank.features.stores.parquet import open_parquet

    try:
        file = open_parquet(data)
        _check_header(path, file.schema_arrow.names)
        rows = (fields for batch in file.iter_batches() for fields in batch.to_pylist())
        for number, fields in enumerate(rows, start=1):
            yield f"row {number}", fields
    except (pa.ArrowException, OSError, ValueError, MemoryError) as err:
        raise _fault(path, "", first_line(err), "a Parquet file") from err
