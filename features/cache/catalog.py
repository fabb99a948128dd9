"""The catalog: a Parquet table per run with one row per video, the table that readers open.

The catalog of a cache is all of `catalog/*.parquet`; where several runs have a row of one video,
the newest holds. Columns are those of CatalogRow in its order, then the manifest's further columns,
each of the type its values have (text where they have several).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from framebank.features.cache import layout
from framebank.features.cache.sidecar import COLUMN_NAMES, CatalogRow
from framebank.features.errors import CacheError
from framebank.features.stores import storage
from framebank.features.stores.parquet import open_parquet
from framebank.features.stores.temporary import Spool
from framebank.features.tensorflow_import import absent, is_own_process
from framebank.features.video import catalog_text

_BATCH_ROWS = 10_000
_SPOOL_BYTES = 32 << 20
# Columns that catalogs of earlier versions lack: read as "".
_LATER = frozenset(("fingerprint", "checked"))
_PLACES = frozenset(("offset", "length", "rows"))
_ORDER = ("video_id", "run_id", "time")  # what decides which row of a video is the newest


class DamagedCatalogError(CacheError):
    """A catalog that is no catalog any more; what it held lies in the sidecars of its shards."""


@functools.cache
def fixed_schema() -> pa.Schema:
    """Return the Arrow schema of the catalog's own columns."""
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
    types = {field.name: str(field.type) for field in dataclasses.fields(CatalogRow)}
    return pa.schema([pa.field(name, kinds[types[name]]) for name in COLUMN_NAMES])


def write_catalog(cache: str, run_id: str, rows: Iterable[CatalogRow]) -> int:
    """Write the rows of a run to catalog/<run_id>.parquet, whole or not at all; returns how many.

    Memory does not grow with the number of rows.
    """
    with Spool(max_size=_SPOOL_BYTES) as spool:
        # The type of a manifest's column is known only after the last row, so two passes.
        kinds: dict[str, pa.DataType] = {}
        starts = []
        for table in _tables(rows):
            for field in list(table.schema)[len(COLUMN_NAMES) :]:
                kinds[field.name] = _wider(kinds.get(field.name, pa.null()), field.type)
            starts.append(spool.tell())
            with pa.ipc.new_stream(spool, table.schema) as stream:
                stream.write_table(table)
        schema = pa.schema([*fixed_schema(), *(pa.field(n, t) for n, t in kinds.items())])
        count = 0
        path = layout.catalog_path(cache, run_id)
        with (
            storage.open_atomic(path) as file,
            pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            for start in starts:
                spool.seek(start)
                with pa.ipc.open_stream(spool) as stream:
                    table = _conform(stream.read_all(), schema)
                writer.write_table(table)
                count += len(table)
    return count


def table_of(rows: Iterable[CatalogRow]) -> pa.Table:
    """Return the catalog's own columns of `rows`."""
    columns = list(COLUMN_NAMES)
    return pa.concat_tables(
        [fixed_schema().empty_table(), *(table.select(columns) for table in _tables(rows))]
    )


def _tables(rows: Iterable[CatalogRow]) -> Iterator[pa.Table]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, _BATCH_ROWS)):
        schema = fixed_schema()
        arrays = []
        for field in schema:
            values = [getattr(row, field.name) for row in batch]
            try:
                arrays.append(pa.array(values, field.type))
            except UnicodeEncodeError:
                arrays.append(pa.array([catalog_text(value) for value in values], field.type))
        fields = list(schema)
        for name in dict.fromkeys(name for row in batch for name in row.columns):
            array = _column([row.columns.get(name) for row in batch])
            arrays.append(array)
            fields.append(pa.field(catalog_text(name), array.type))
        yield pa.table(arrays, schema=pa.schema(fields))


def _column(values: Sequence[Any]) -> pa.Array:
    """Return a manifest's column by the type of its values, as text where they have several."""
    values = [catalog_text(value) if isinstance(value, str) else value for value in values]
    try:
        array = pa.array(values)
        if array.type in (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string()):
            return array
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `table` with the columns and types of `schema`; absent columns become null."""
    present = set(table.column_names)
    columns = [
        table.column(name).cast(kind, safe=False) if name in present else pa.nulls(len(table), kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.table(columns, schema=schema)


def catalog_files(cache: str) -> list[str]:
    """Return the paths of the catalog's files, oldest run first."""
    paths = (file.path for file in storage.list_files(layout.catalog_folder(cache)))
    return [path for path in paths if re.search(r"/[^./][^/]*\.parquet\Z", path)]


def read_file(path: str, columns: Sequence[str] | None, *, check_all: bool = False) -> pa.Table:
    """Return one catalog file (only `columns` of it); raises CacheError when it is damaged.

    `check_all`: also where one of the other columns is, which are read and let go again.
    """
    try:
        file = open_parquet(storage.read_bytes(path), page_checksum_verification=True)
        names = set(file.schema_arrow.names)
        absent = [name for name in COLUMN_NAMES if name not in names and name not in _LATER]
        if absent:
            raise CacheError(
                f"the catalog {path} was written by another version of Framebank",
                got=f"no column {', '.join(absent)}",
                todo="use the version that made it",
            )
        wanted = None if columns is None else [name for name in columns if name in names]
        if check_all:
            table = _read_checked(path, file, wanted)
        else:
            table = file.read(columns=wanted)
            _check_values(path, table)
        for name in _LATER - names:
            table = table.append_column(name, pa.array([""] * len(table), pa.string()))
        if columns is None:
            return table
        return table.select([name for name in columns if name in table.column_names])
    except MemoryError as err:  # of Arrow too: it may be the machine's fault, not the file's
        raise CacheError(
            f"the catalog {path} cannot be read",
            got="more than fits into this machine's memory",
            todo="see that it is the file that extract wrote; else give more memory",
        ) from err
    except (pa.ArrowException, OSError, ValueError, OverflowError) as err:
        raise _damaged(path, (str(err).splitlines() or [type(err).__name__])[0][:300]) from err


def _read_checked(path: str, file: pq.ParquetFile, wanted: Sequence[str] | None) -> pa.Table:
    """Return the `wanted` columns of a file whose every value was looked at, some rows at a time:
    all columns of a million rows are a GiB."""
    names = file.schema_arrow.names if wanted is None else list(wanted)
    tables = [file.schema_arrow.empty_table().select(names)]
    for number in range(file.num_row_groups):
        table = file.read_row_group(number)
        _check_values(path, table)
        tables.append(table.select(names))
    return pa.concat_tables(tables)


def _damaged(path: str, got: str) -> DamagedCatalogError:
    return DamagedCatalogError(
        f"the catalog {path} cannot be read",
        got=got,
        todo="run extract again: it makes the catalog anew from the shards",
    )


def _check_values(path: str, table: pa.Table) -> None:
    """Raise DamagedCatalogError, ArrowInvalid for values that no run of ours has written."""
    further = (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())  # as `_column` gives
    for field in table.schema:
        own = field.name in COLUMN_NAMES
        kinds = (fixed_schema().field(field.name).type,) if own else further
        if field.type not in kinds:
            raise _damaged(path, f"values of type {field.type} in the column {field.name}")
        if own and table.column(field.name).null_count:
            raise _damaged(path, f"no value in a row of the column {field.name}")
    table.validate(full=True)  # of text: that it is UTF-8
    for name in _PLACES.intersection(table.column_names):
        if len(table) and pc.min(table.column(name)).as_py() < 0:
            raise _damaged(path, f"a number below 0 in the column {name}")


def spare_pandas() -> None:
    """In a process that is a command's, have pyarrow do without pandas, which it imports where that
    is installed for the first array that it makes: a fifth of a second."""
    if is_own_process():
        with absent("pandas"):
            pa.array([])


def read_all_rows(
    cache: str, *, columns: Sequence[str] | None = None, check_all: bool = False
) -> pa.Table:
    """Return every row of every catalog, superseded ones too, oldest run first; each column is of
    the type that holds the values of all. `check_all` is for `read_file`."""
    tables = [read_file(path, columns, check_all=check_all) for path in catalog_files(cache)]
    if not tables:
        empty = fixed_schema().empty_table()
        return empty if columns is None else empty.select(list(columns))
    kinds: dict[str, pa.DataType] = {}
    for table in tables:
        for field in table.schema:
            kinds[field.name] = _wider(kinds.get(field.name, pa.null()), field.type)
    schema = pa.schema([pa.field(name, kind) for name, kind in kinds.items()])
    return pa.concat_tables([_conform(table, schema) for table in tables])


def read_catalog(cache: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the newest row of each video, in order of run and place in the catalog.

    `columns` names the columns to read (all by default; video_id, run_id and time always come
    too). Raises CacheError for a damaged file.
    """
    wanted = None if columns is None else list(dict.fromkeys([*_ORDER, *columns]))
    return newest_rows(read_all_rows(cache, columns=wanted))


def newest_rows(table: pa.Table) -> pa.Table:
    """Return the newest row of each video, in the order of `table`."""
    if not len(table):
        return table
    encoded = table.column("video_id").combine_chunks().dictionary_encode()
    if len(encoded.dictionary) == len(table):  # one row of each
        return table
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    # lexsort: the last key counts most; a stable sort, so of equals the last one written holds.
    order = np.lexsort((_ranks(table, "time"), _ranks(table, "run_id"), codes))
    last = np.append(codes[order][1:] != codes[order][:-1], True)
    return table if last.all() else table.take(np.sort(order[last]))


def where(table: pa.Table, name: str, value: str) -> pa.Table:
    """Return the rows whose column `name` is `value`."""
    return table.filter(pc.equal(table.column(name), value))


def _ranks(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Return int64[rows] that order as the texts of a column do."""
    column = table.column(name).combine_chunks().dictionary_encode()
    rank: NDArray[np.int64] = pc.rank(column.dictionary).to_numpy().astype(np.int64)
    return rank[column.indices.to_numpy(zero_copy_only=False)]


def catalog_rows(table: pa.Table) -> Iterator[CatalogRow]:
    """Yield the rows of a table that has all columns."""
    further = [name for name in table.column_names if name not in COLUMN_NAMES]
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for fields in batch.to_pylist():
            columns = {name: fields.pop(name) for name in further}
            yield CatalogRow(**fields, columns={k: v for k, v in columns.items() if v is not None})


def catalogued_shards(cache: str) -> set[str]:
    """Return what rows of some catalog call their shard (`layout.shard_of` has its own name)."""
    if not catalog_files(cache):  # Arrow would take a GiB of addresses, and TensorFlow lack them
        return set()
    return set(read_all_rows(cache, columns=["shard"]).column("shard").unique().to_pylist())


def orphan_shards(cache: str, *, catalogued: Iterable[str] | None = None) -> list[str]:
    """Return the committed shards that are in no catalog, for their run died before it.

    `catalogued` is what `catalogued_shards` gives, where that is known.
    """
    names = catalogued_shards(cache) if catalogued is None else catalogued
    known = {layout.shard_of(name) for name in names}
    return [shard for shard in layout.committed_shards(cache) if shard not in known]
