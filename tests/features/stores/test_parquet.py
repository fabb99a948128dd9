from __future__ import annotations

import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framebank.features.stores.parquet import open_parquet


def test_nothing_of_it_holds_memory_of_pythons() -> None:
    """One of Arrow's threads that lets go of such memory late aborts a process that ends."""
    stream = io.BytesIO()
    pq.write_table(pa.table({"n": [1, 2, 3]}), stream)
    data = stream.getvalue()
    before = sys.getrefcount(data)
    file = open_parquet(data, page_checksum_verification=True)
    assert sys.getrefcount(data) == before
    assert file.read().to_pydict() == {"n": [1, 2, 3]}


@pytest.mark.parametrize("data", [b"", b"no parquet file at all"])
def test_other_bytes_are_arrows_error(data: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        open_parquet(data)
