"""Parquet that was read as bytes, in memory that Arrow's threads may let go of at any time."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def open_parquet(data: bytes, **how: Any) -> pq.ParquetFile:
    """Return the file whose bytes are `data`, opened as `pq.ParquetFile` with what else is said of
    it. Raises pyarrow.ArrowException for what is none.

    The bytes are copied: a thread of Arrow's may still hold them once what it read has been
    returned. Bytes of Python's it would have to ask Python for its lock to let go of, and where
    that has begun to end, the process is aborted.
    """
    own = pa.allocate_buffer(len(data))
    memoryview(own).cast("B")[:] = data
    return pq.ParquetFile(pa.BufferReader(own), **how)
