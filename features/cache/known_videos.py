"""What the catalog knows of each video, for whoever asks which of many are done.

In columns, as they lie in the catalog: of a million videos there are no million objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from framebank.features.cache.catalog import (
    fixed_schema,
    newest_rows,
    read_all_rows,
    table_of,
)
from framebank.features.cache.sidecar import CatalogRow

_COLUMNS = (
    *("video_id", "uri", "key", "state", "attempt", "run_id", "time"),
    *("shard", "offset", "length", "fingerprint"),
)
_REPEATED = ("state", "run_id", "time", "shard", "fingerprint")  # kept once, and a number a row


class KnownVideos:
    """The newest row of each video of a catalog, by place: 0 to `len` - 1."""

    def __init__(self, table: pa.Table) -> None:
        """Take a table that has at least the columns of rows that are asked for here."""
        table = newest_rows(table.select(list(_COLUMNS))).combine_chunks()
        for name in _REPEATED:
            column = table.column(name).combine_chunks().dictionary_encode()
            table = table.set_column(table.column_names.index(name), name, column)
        self._table = table
        self._numbers: dict[str, NDArray[np.int64]] = {}

    @classmethod
    def read(cls, cache: str) -> KnownVideos:
        """Return what all catalogs of a cache hold, after a look at every value of them; raises
        CacheError."""
        return cls(read_all_rows(cache, columns=_COLUMNS, check_all=True))

    @classmethod
    def of(cls, rows: Iterable[CatalogRow]) -> KnownVideos:
        return cls(table_of(rows))

    def with_rows(self, rows: Iterable[CatalogRow]) -> KnownVideos:
        """Return what is known with these rows too, of which the newest of a video hold."""
        before = self._table.cast(pa.schema([fixed_schema().field(name) for name in _COLUMNS]))
        return KnownVideos(pa.concat_tables([before, table_of(rows).select(list(_COLUMNS))]))

    def __len__(self) -> int:
        return len(self._table)

    def values(self, name: str, places: NDArray[np.int64] | None = None) -> list[Any]:
        """Return a column, or what it has at `places`."""
        column = self._table.column(name)
        found: list[Any] = (column if places is None else column.take(pa.array(places))).to_pylist()
        return found

    def numbers(self, name: str) -> NDArray[np.int64]:
        """Return int64[videos]: a column of numbers, of texts which of `texts` each one is."""
        if name not in self._numbers:
            column = self._table.column(name).combine_chunks()
            column = column.indices if name in _REPEATED else column
            self._numbers[name] = column.to_numpy(zero_copy_only=False).astype(np.int64)
        return self._numbers[name]

    def texts(self, name: str) -> list[str]:
        """Return what stands in a column of `_REPEATED`, each once."""
        found: list[str] = self._table.column(name).combine_chunks().dictionary.to_pylist()
        return found

    def is_text(self, name: str, text: str) -> NDArray[np.bool_]:
        """Return bool[videos]: whether such a column holds `text`."""
        return np.array([one == text for one in self.texts(name)], bool)[self.numbers(name)]

    def find(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return int64[ids]: the place of each video, -1 of one that is not known."""
        if not len(self):
            return np.full(len(video_ids), -1, np.int64)
        known = self._table.column("video_id").combine_chunks()
        places = pc.index_in(pa.array(video_ids, pa.string()), value_set=known)
        return pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def has_keys(self, places: NDArray[np.int64], keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return bool[places]: whether the video at each of `places` has this key."""
        held = self._table.column("key").take(pa.array(places))
        return pc.equal(held, pa.array(keys, pa.string())).to_numpy()

    def latest_run(self) -> str:
        """Return the last of all run ids that hold, "" where there are none."""
        return max(self.texts("run_id"), default="")

    def quarantined_by_run(self, places: NDArray[np.int64] | None = None) -> Mapping[str, int]:
        """Return how many videos (of those at `places`) each run quarantined."""
        if places is None:
            places = np.flatnonzero(self.is_text("state", "quarantined"))
        runs = self.texts("run_id")
        return Counter(runs[number] for number in self.numbers("run_id")[places].tolist())
