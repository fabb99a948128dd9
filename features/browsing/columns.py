"""The catalog as a table of columns for people: named shortly, filtered, sorted, paged.

A hundred thousand rows stay Arrow's columns from the file to the page; only the rows that are shown
become Python's objects.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from framebank.features.cache.sidecar import COLUMN_NAMES
from framebank.features.errors import UsageError
from framebank.features.terminal import printable

# What people call a column of the catalog; the catalog's own name is understood too.
SHORT = {"state": "status", "source_duration_s": "duration_s", "rows": "frames"}
_FIRST = ("video_id", "status", "duration_s", "frames", "folder")
_MOST_VALUES = 50  # of a column that are offered to choose from
_MOST_NEAR = 3
_NOT_COLOURS = frozenset(("video_id", "status", "fingerprint"))
KINDS = ("text", "number", "bool")


class VideoTable:
    """The newest row of each video; rows go by their number, 0 to `len` - 1."""

    def __init__(self, table: pa.Table, *, more: Mapping[str, pa.Array] | None = None) -> None:
        """Take the catalog's table; `more` are further columns of its rows. A column of a manifest
        whose name is taken is called manifest.NAME."""
        columns: dict[str, pa.Array] = {}
        for name in table.column_names:
            if name in COLUMN_NAMES:
                columns[SHORT.get(name, name)] = _plain(table.column(name))
        columns["folder"] = pc.replace_substring_regex(columns["video_id"], r"/?[^/]*\z", "")
        for name in table.column_names:
            if name not in COLUMN_NAMES:
                free = name not in columns
                columns[name if free else f"manifest.{name}"] = _plain(table.column(name))
        for name, column in (more or {}).items():
            columns.setdefault(name, column)
        rest = [name for name in columns if name not in _FIRST]
        own = {SHORT.get(name, name) for name in COLUMN_NAMES}
        brought = [name for name in rest if name not in own]
        order = [*_FIRST, *brought, *(name for name in rest if name in own)]
        self.columns = {name: columns[name] for name in order}
        self._few: dict[str, list[Any] | None] = {}
        self._aliases = SHORT | {
            name.removeprefix("source_"): name
            for name in columns
            if name.startswith("source_") and name.removeprefix("source_") not in columns
        }

    def __len__(self) -> int:
        return len(self.columns["video_id"])

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def name_of(self, word: str) -> str | None:
        """Return the column that `word` names, None where it is none."""
        return word if word in self.columns else self._aliases.get(word)

    def known(self, word: str) -> str:
        """Return the column that `word` names; raises UsageError with near misses."""
        if (name := self.name_of(word)) is not None:
            return name
        words = [*self.columns, *self._aliases]
        near = difflib.get_close_matches(word.casefold(), words, n=_MOST_NEAR, cutoff=0.5)
        raise UsageError(
            f"no column {printable(word)!r}",
            expected="one of " + ", ".join(map(printable, self.columns)),
            todo=f"did you mean {' or '.join(map(printable, near))}?" if near else None,
        )

    def kind(self, name: str) -> str:
        """Return which of KINDS a column holds."""
        kind = self.columns[name].type
        if pa.types.is_boolean(kind):
            return "bool"
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        return "number" if is_number else "text"

    def find(self, video_id: str) -> int | None:
        """Return the row of the video of exactly this id, None where there is none."""
        place = pc.index(self.columns["video_id"], pa.scalar(video_id, pa.string())).as_py()
        return None if place < 0 else int(place)

    def places_of(self, video_ids: pa.Array) -> NDArray[np.int64]:
        """Return int64[ids]: the row of each video, -1 of one that is not known."""
        if not len(self):
            return np.full(len(video_ids), -1, np.int64)
        places = pc.index_in(video_ids, value_set=self.columns["video_id"])
        return pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def ordered(
        self, places: NDArray[np.int64], sort: str | None, *, descending: bool
    ) -> NDArray[np.int64]:
        """Return int64 rows by the values of a column, those without one last, else as they are;
        equal ones keep their order. Raises UsageError for a column that is none."""
        if sort is None:
            return places[::-1] if descending else places
        column = self.columns[self.known(sort)].take(pa.array(places))
        order = pc.sort_indices(
            pa.table({"value": column, "place": np.arange(len(places))}),
            sort_keys=[
                ("value", "descending" if descending else "ascending"),
                ("place", "ascending"),
            ],
        )
        return places[order.to_numpy()]

    def rows(self, places: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return rows with all columns, as JSON has them: what is no number is None."""
        taken = {
            name: _told(column.take(pa.array(places))) for name, column in self.columns.items()
        }
        return [
            dict(zip(taken, values, strict=True)) for values in zip(*taken.values(), strict=True)
        ]

    def described(self) -> list[dict[str, Any]]:
        """Return name and type of each column, and its values where they are few."""
        return [
            {"name": name, "type": self.kind(name), "values": self._values(name)}
            for name in self.columns
        ]

    def _values(self, name: str) -> list[Any] | None:
        if self.kind(name) == "number":
            return None
        if name not in self._few:
            self._few[name] = self._few_values(name)
        return self._few[name]

    def _few_values(self, name: str) -> list[Any] | None:
        found = pc.unique(self.columns[name])
        if len(found) > _MOST_VALUES:
            return None
        return sorted((value for value in found.to_pylist() if value is not None), key=str)

    def colours(self) -> list[str]:
        """Return the columns whose values are few and several, brought ones first."""
        fit = []
        for name in self.columns:
            values = None if name in _NOT_COLOURS else self._values(name)
            if values is not None and len(values) > 1:
                fit.append(name)
        own = {SHORT.get(name, name) for name in COLUMN_NAMES}
        return sorted(fit, key=lambda name: name in own)

    def grouped(
        self, name: str, places: NDArray[np.int64], *, most: int
    ) -> tuple[list[str], list[int]]:
        """Return names of groups, and which each of `places` is in: by the values of a column, of
        which the `most` frequent have a group each and others are "other"."""
        column = self.columns[name].take(pa.array(places)).cast(pa.string()).fill_null("")
        encoded = column.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        counts = np.bincount(codes, minlength=len(encoded.dictionary))
        kept = np.argsort(-counts, kind="stable")[:most]
        number = np.full(len(counts), len(kept), np.int64)
        number[kept] = np.arange(len(kept))
        names = [encoded.dictionary[int(code)].as_py() or "(none)" for code in kept]
        if len(counts) > len(kept):
            names.append("other")
        return names, number[codes].tolist()


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Return one array; a column of nothing becomes one of texts."""
    found = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # of no chunks, or of more than fit into one
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], column.type)
    return found.cast(pa.string()) if pa.types.is_null(found.type) else found


def _told(column: pa.Array) -> Sequence[Any]:
    values: Iterable[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):  # JSON knows neither NaN nor infinity
        return [v if v is not None and math.isfinite(v) else None for v in values]
    return list(values)
