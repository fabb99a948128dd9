"""Reading a feature cache: `for record in open_cache(CACHE): record.features`.

What to read is in the catalog, never in a listing: of each video the newest row counts, and only if
it is done. Every record is checked on the way (checksum, key, shape), and a damaged one is an error
that names shard, record and video.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from framebank.features.cache import catalog, layout, record, sidecar, tfrecord
from framebank.features.errors import CacheError, UsageError, needing
from framebank.features.pages.page import facts_table
from framebank.features.spec import PICTURE_DTYPES, FeatureSpec
from framebank.features.stores import storage
from framebank.features.video import catalog_text

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

_MOST_NAMES = 100_000  # among which near ones are looked for
_PARALLEL_SHARDS = 4  # how many shards a shuffled dataset mixes


class Place(NamedTuple):
    """Where the record of a done video lies."""

    video_id: str
    key: str
    shard: str
    record: int
    offset: int
    length: int
    rows: int


def check_record(place: Place, data: bytes, path: str) -> record.FeatureRecord:
    """Return the record in the frame `data`; raises CacheError naming shard, record and video."""
    where = f"record {place.record} of {path}, video {place.video_id!r},"
    payload = tfrecord.unframe_record(
        data, f"{path}, video {place.video_id!r}", number=place.record, offset=place.offset
    )
    found = record.decode_record(payload, where=where)
    for name, got, expected in (
        ("video_id", catalog_text(found.video_id), place.video_id),
        ("key", found.key, place.key),
        ("rows", len(found.features), place.rows),
    ):
        if got != expected:
            raise CacheError(
                f"{where} is not the one that the catalog names",
                got=f"{name} {got!r}",
                expected=f"{name} {expected!r}",
                todo="run `framebank verify` on the cache to see all that is damaged",
            )
    return found


def check_finite(video_id: str, features: NDArray[Any]) -> None:
    """Raise CacheError where features float[n, d] hold NaN or infinity, as no writer of ours lets
    them: a network may make answers of them all the same."""
    if not np.isfinite(features).all():
        raise CacheError(
            f"the features of {video_id!r} are not finite",
            got=f"{int((~np.isfinite(features)).any(axis=1).sum())} of {len(features)} rows",
            todo="`framebank verify` names all such videos; extract them again",
        )


class NoSuchVideoError(UsageError, KeyError):
    """A video that a cache does not have, or not done."""

    __str__ = Exception.__str__  # a KeyError's own hides where lines end


class Cache:
    """An open cache, as it was when it was opened: its catalog is read once, and held.

    Iterating gives one FeatureRecord per done video, shard by shard. `len(cache)` is the number of
    done videos, `cache[video_id]` reads one, `in` asks for one. The same videos as other libraries
    take them: `table()` (Arrow), `to_pandas()`, `dataset()` (tf.data), `torch()`.
    """

    def __init__(self, path: str, spec: FeatureSpec, rows: pa.Table) -> None:
        """Made by `open_cache`; `rows` are those of all catalogs, superseded ones too."""
        self.path = path
        self.spec = spec
        self.catalogued_files: frozenset[str] = frozenset(rows.column("shard").unique().to_pylist())
        self._table = catalog.newest_rows(rows)
        _check_fingerprints(path, spec, self._table)
        # Where the record of each done video lies (a row's fields are those of Place).
        done = catalog.where(_readable(path, self._table), "state", "done")
        self.places = done.select(list(Place._fields)).sort_by(
            [("shard", "ascending"), ("offset", "ascending")]
        )

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint

    def __fspath__(self) -> str:
        return self.path

    def __len__(self) -> int:
        return len(self.places)

    def _facts(self) -> dict[str, str]:
        spec, others = self.spec, len(self._table) - len(self)
        frames = sum(self.places.column("rows").to_pylist())
        made = f"{spec.backbone} {spec.layer}, {spec.sample}, {spec.dtype}"
        return {
            "videos": f"{len(self):,} done" + (f", {others:,} quarantined" if others else ""),
            "frames": f"{frames:,}",
            "made with": made + (f", RANDOM weights ({spec.weights})" * spec.random_weights),
            "fingerprint": self.fingerprint,
        }

    def __repr__(self) -> str:
        facts = self._facts()
        said = f"videos {facts['videos']}; frames {facts['frames']}; made with {facts['made with']}"
        return f"<Cache {self.path!r}: {said}>"

    def _repr_html_(self) -> str:
        return facts_table({"cache": self.path, **self._facts()})

    @property
    def video_ids(self) -> list[str]:
        """Return the ids of all done videos, in the order of iteration."""
        return self.places.column("video_id").to_pylist()

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {video_id: row for row, video_id in enumerate(self.video_ids)}

    def __contains__(self, video_id: object) -> bool:
        return catalog_text(str(video_id)) in self._index

    def __getitem__(self, video_id: str) -> record.FeatureRecord:
        """Read one video; raises NoSuchVideoError, which is a KeyError too, and CacheError."""
        place = Place(*(column[self.place_of(video_id)].as_py() for column in self.places.columns))
        path = layout.tfrecord_path(self.path, place.shard)
        return check_record(place, storage.read_range(path, place.offset, place.length), path)

    def place_of(self, video_id: str) -> int:
        """Return the row of `places` of a done video; raises NoSuchVideoError."""
        name = catalog_text(str(video_id))
        if name in self._index:
            return self._index[name]
        what = f"{video_id!r} is no done video of {self.path}"
        known = catalog.where(self._table, "video_id", name)
        for row in catalog.catalog_rows(known):
            raise NoSuchVideoError(what, got=f"{row.state} as {row.error_class}: {row.message}")
        names = itertools.islice(self._index, _MOST_NAMES)
        near = difflib.get_close_matches(name, names, n=3)
        todo = f"did you mean {', '.join(map(repr, near))}?" if near else "see `cache.video_ids`"
        raise NoSuchVideoError(what, todo=todo)

    @functools.cached_property
    def spans(self) -> list[tuple[str, int, int]]:
        """The shards with done videos and their rows [start, end) of `places`."""
        shards = self.places.column("shard").combine_chunks().dictionary_encode()
        codes = shards.indices.to_numpy(zero_copy_only=False)
        names = shards.dictionary.to_pylist()
        if not len(codes):
            return []
        edges = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1], [True]))).tolist()
        return [(names[codes[start]], start, end) for start, end in itertools.pairwise(edges)]

    def __iter__(self) -> Iterator[record.FeatureRecord]:
        return self.read_places(np.arange(len(self)))

    def read(self, video_ids: Iterable[str]) -> Iterator[record.FeatureRecord]:
        """Yield these videos in the order of iteration; each shard is opened once, read forward.

        Raises NoSuchVideoError when one is not done in this cache, CacheError.
        """
        return self.read_places(
            np.array([self.place_of(video_id) for video_id in video_ids], np.int64)
        )

    def read_places(self, rows: NDArray[np.int64]) -> Iterator[record.FeatureRecord]:
        """Yield the videos of these rows of `places`, each once, in the order of iteration."""
        wanted = np.unique(rows)
        ends = [end for _, _, end in self.spans]
        for number, rows in enumerate(np.split(wanted, np.searchsorted(wanted, ends))[:-1]):
            if len(rows):
                yield from self._read_rows(number, rows)

    def _read_rows(self, number: int, rows: NDArray[np.int64]) -> Iterator[record.FeatureRecord]:
        shard, start, end = self.spans[number]
        path = layout.tfrecord_path(self.path, shard)
        try:
            with storage.open_read(path) as stream:
                for row in self.places.take(rows).to_pylist():
                    place = Place(**row)
                    if stream.tell() != place.offset:
                        stream.seek(place.offset)
                    yield check_record(place, stream.read(place.length), path)
        except storage.FileMissingError as err:
            raise CacheError(
                f"the shard {path} is missing",
                got=f"{end - start} videos of the catalog lie in it",
                todo="restore it; `framebank verify` names all that is missing",
            ) from err

    def rows(self) -> Iterator[sidecar.CatalogRow]:
        """Yield the newest row of every video, done or quarantined, with all its columns."""
        return catalog.catalog_rows(self.table())

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the newest row of every video as an Arrow table, of all columns by default.

        Columns that the cache does not have are left out.
        """
        if columns is None:
            return self._table
        columns = [columns] if isinstance(columns, str) else columns
        return self._table.select([name for name in columns if name in self._table.column_names])

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return `table` as a pandas DataFrame; raises UsageError where pandas is missing."""
        try:
            return self.table(columns).to_pandas()
        except ModuleNotFoundError as err:
            todo = "pip install pandas, or use `table()`, which is Arrow's"
            raise UsageError("to_pandas needs pandas, which is not installed", todo=todo) from err

    def done(self, columns: Sequence[str], video_ids: Iterable[str] | None = None) -> pa.Table:
        """Return these columns of the done videos, of `video_ids` alone where they are given."""
        table = catalog.where(self._table, "state", "done")
        if video_ids is not None:
            wanted = pa.array(list(video_ids), pa.string())
            table = table.filter(pc.is_in(table.column("video_id"), value_set=wanted))
        return table.select(list(columns))

    @functools.cached_property
    def feature_dim(self) -> int | None:
        """The feature width d, read from the first record; None where no video is done."""
        first = next(iter(self), None)
        return None if first is None else first.features.shape[1]

    def dataset(self, *, shuffle_seed: int | None = None) -> tf.data.Dataset:
        """Return the done videos as a tf.data.Dataset of dicts.

        Elements: video_id string[], features float16[n, d] or float32[n, d] (of pixels
        uint8[n, h, w, 3]), pts_ms int64[n], frame_index int64[n]. The order is that of iteration;
        with `shuffle_seed` shards come in another order each epoch, four mixed at a time (shuffle
        further for more). A damaged record ends the iteration with an error that names shard,
        record and video.
        """
        with needing("dataset", extra="train"):
            import tensorflow as tf

        side = self.spec.input_size
        row = [side, side, 3] if self.spec.holds_pictures else [self.feature_dim]
        signature = {
            "video_id": tf.TensorSpec([], tf.string),
            "features": tf.TensorSpec([None, *row], self.spec.read_dtype),
            "pts_ms": tf.TensorSpec([None], tf.int64),
            "frame_index": tf.TensorSpec([None], tf.int64),
        }

        def read(number: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.from_generator(
                self._elements, args=(number,), output_signature=signature
            )

        shards = tf.data.Dataset.range(len(self.spans))
        if shuffle_seed is None:
            return shards.flat_map(read)
        shards = shards.shuffle(max(len(self.spans), 1), seed=shuffle_seed)
        return shards.interleave(read, cycle_length=_PARALLEL_SHARDS)

    def _elements(self, number: Any) -> Iterator[dict[str, Any]]:
        # TensorFlow's own TFRecordDataset cannot say which file is damaged, so this reader is used.
        _, start, end = self.spans[int(number)]
        for found in self.read_places(np.arange(start, end)):
            yield _element(found) | {"video_id": found.video_id.encode("utf-8", "surrogateescape")}

    def torch(self) -> TorchVideos:
        """Return the done videos as PyTorch's DataLoader takes them.

        Elements: dicts of video_id, features float16[n, d] or float32[n, d] (of pixels
        uint8[n, h, w, 3]), pts_ms int64[n] and frame_index int64[n]. Videos differ in n: give
        DataLoader batch_size=None or a collate_fn that pads. It shuffles with shuffle=True and
        deals videos to its workers.
        """
        return TorchVideos(self)


class TorchVideos:
    """A dataset of PyTorch's (map-style, and an iterable) that does not need it to be there."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not -len(self) <= number < len(self):
            raise IndexError(number)  # which also ends a loop
        return self.__getitems__([number % len(self)])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Read several at once, as DataLoader asks for a batch: a shard is opened once for them."""
        rows = np.array(numbers, np.int64)
        found = dict(zip(np.unique(rows).tolist(), self.cache.read_places(rows), strict=True))
        return [_element(found[number]) for number in rows.tolist()]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield all; in a worker of a DataLoader its share."""
        data = sys.modules.get("torch.utils.data")
        worker = data.get_worker_info() if data else None
        share = np.arange(len(self))
        if worker is not None:
            share = np.array_split(share, worker.num_workers)[worker.id]
        return map(_element, self.cache.read_places(share))


def _element(found: record.FeatureRecord) -> dict[str, Any]:
    element = {
        name: getattr(found, name) for name in ("video_id", "features", "pts_ms", "frame_index")
    }
    return element | {"features": found.pictures} if found.dtype in PICTURE_DTYPES else element


def _check_fingerprints(path: str, spec: FeatureSpec, table: pa.Table) -> None:
    made = table.column("fingerprint")
    known = pa.array(["", spec.fingerprint])  # "": a row of a version that did not keep it
    strange = table.filter(pc.invert(pc.is_in(made, value_set=known)))
    if len(strange):
        shards = strange.column("shard").unique().to_pylist()
        raise CacheError(
            f"{len(strange)} videos of {path} were made with another spec than its own",
            got=f"fingerprint {strange.column('fingerprint')[0]} in {', '.join(shards[:3])}",
            expected=f"fingerprint {spec.fingerprint}",
            todo="run the same `framebank extract` command again: it makes their features anew",
        )


def _readable(path: str, table: pa.Table) -> pa.Table:
    """Return `table` without the records that no reader can read, and warn of them: earlier
    versions wrote them as done, and one of them must not cost the others."""
    fits = pc.less_equal(table.column("length"), tfrecord.MOST_FRAME_BYTES)
    fits = pc.fill_null(fits, True)  # a quarantined video has no record
    if not pc.all(fits, min_count=0).as_py():  # of no rows it is true too
        lost = table.filter(pc.invert(fits)).column("video_id").to_pylist()
        warnings.warn(
            f"{len(lost)} videos of {path} are left out, as nothing can read records of 2 GiB: "
            f"{', '.join(map(repr, lost[:3]))}; extract them with fewer frames",
            stacklevel=2,
        )
    return table.filter(fits)


def open_cache(path: str | os.PathLike[str]) -> Cache:
    """Open a cache for reading.

    Raises UsageError when there is no cache at `path`, CacheError when it is damaged or has no
    catalog yet.
    """
    path = os.path.expanduser(os.fspath(path))
    spec = open_spec(path)
    rows = catalog.read_all_rows(path)
    if not len(rows) and not catalog.catalog_files(path):
        shards = len(layout.committed_shards(path))
        raise CacheError(
            f"the cache {path} has no catalog yet",
            got=f"an extraction that was interrupted after {shards} shards"
            if shards
            else "an extraction that was interrupted before its first shard",
            todo="run the same `framebank extract` command again; what is committed is kept",
        )
    return Cache(path, spec, rows)


def open_spec(path: str) -> FeatureSpec:
    """Return the spec of the cache at `path`; raises UsageError when there is none."""
    todo = "give the folder that `framebank extract --cache` wrote"
    if storage.is_local(path) and storage.exists(path):
        raise UsageError(f"{path} is no cache", got="a file", expected="a folder", todo=todo)
    spec = layout.read_spec(path)
    if spec is not None:
        return spec
    if not storage.folder_exists(path):
        raise UsageError(f"there is no cache at {path}", got="no such folder", todo=todo)
    if shards := len(layout.committed_shards(path)):
        raise CacheError(
            f"{layout.spec_path(path)} is missing",
            got=f"{shards} shards that nobody can say how they were made",
            todo="restore it",
        )
    raise UsageError(f"{path} is no cache", got="a folder without spec.json", todo=todo)
