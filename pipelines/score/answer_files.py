"""Files of answer rows, as JSON lines or Parquet: written whole or not at all, and read back.

A Parquet file has the same fields. All texts are Unicode: for half a surrogate pair, which a
question file may hold, stands the text of its JSON escape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from framebank.features.stores import json_text, storage

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1000  # that are parsed at a time


def answers_path(out: str, output: int, outputs: int, *, kind: str) -> str:
    """Return the path of one file; its ending is the `kind`."""
    return storage.join(out, f"answers-{output:05d}-of-{outputs:05d}.{kind}")


def write_answers(path: str, lines: Sequence[bytes], *, kind: str) -> None:
    """Write rows, each a line of JSON; raises JobError, UsageError."""
    _WRITERS[kind](path, lines)


def read_answers(path: str, *, kind: str) -> list[dict[str, Any]] | None:
    """Return the rows of a file, None where it is damaged or not there."""
    try:
        return list(_READERS[kind](path))
    except (storage.FileMissingError, ValueError, OSError):  # of Arrow and of JSON too
        return None


def _write_jsonl(path: str, lines: Sequence[bytes]) -> None:
    storage.write_atomic(path, lines)


def _read_jsonl(path: str) -> Iterator[dict[str, Any]]:
    with storage.open_read(path) as file:
        for line in file:
            yield dict(json_text.parse(line))


@functools.cache
def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = ("video_id", "question_id", "question", "type", "split", "status", "reason")
    answer = pa.struct(
        [("answer", pa.string()), ("probability", pa.float64()), ("number", pa.float64())]
    )
    more = [("answers", pa.list_(answer)), ("truth", pa.string()), ("correct", pa.bool_())]
    return pa.schema([*((name, pa.string()) for name in texts), *more])


def _write_parquet(path: str, lines: Sequence[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (
        storage.open_atomic(path) as file,
        pq.ParquetWriter(file, _schema(), compression="zstd", write_page_checksum=True) as writer,
    ):
        for start in range(0, len(lines), _ROWS):
            rows = [json_text.parse(line) for line in lines[start : start + _ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))


def _read_parquet(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = pa.BufferReader(storage.read_bytes(path))
    for batch in pq.ParquetFile(data, page_checksum_verification=True).iter_batches(_ROWS):
        yield from batch.to_pylist()


_WRITERS: dict[str, Callable[[str, Sequence[bytes]], None]] = {
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
_READERS: dict[str, Callable[[str], Iterator[dict[str, Any]]]] = {
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
KINDS = tuple(_WRITERS)
