"""One vector for each clip, for clips to be compared by: what its frames are and how they change.

A vector is the mean over a clip's frames and the mean |difference| of neighbouring ones, 2d numbers
in 8 bits (infra/decisions/0021). All vectors of a cache are made once, from its records, and kept
in packs beside it: npz files, each with those of whole shards. A shard's name has the hash of its
bytes in it, so what a pack says of it never grows old; a cache that has grown gets another pack.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framebank.features.browsing.beside import Beside
from framebank.features.cache.reader import Cache
from framebank.features.cache.record import FeatureRecord
from framebank.features.errors import CacheError, FramebankError
from framebank.features.spec import PICTURE_DTYPES
from framebank.features.stores import json_text
from framebank.features.stores.temporary import LiveFolder, explained, live_folder

_RECIPE = "1"  # of a vector and of a pack
_MOST_WIDTH = 8192
_SIDE = 16  # pixels to which the pictures of a cache of pixels are shrunk
_IN_MEMORY_BYTES = 1 << 30  # of all vectors; beyond, they lie in a temporary file
_PACK_BYTES = 32 << 20
_PACK_S = 20.0  # what a stop may cost
_BLOCK_ROWS = 64  # converted to float32 at a time: what fits into a processor's cache


def clip_vector(features: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return float32[min(2d, 8192)] for features [n, d]: the mean, and the mean |difference| of
    neighbouring frames (0 of one frame); zeros where a feature is not finite."""
    rows = np.asarray(features, np.float32)
    steps = np.abs(np.diff(rows, axis=0)).mean(axis=0) if len(rows) > 1 else np.zeros_like(rows[0])
    vector = np.concatenate([rows.mean(axis=0), steps])
    if len(vector) > _MOST_WIDTH:
        vector = _folded(vector)
    return vector if np.isfinite(vector).all() else np.zeros_like(vector)


def _folded(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sums of features under signs drawn by a seed, which keep dot products in expectation
    (Charikar, Chen and Farach-Colton 2002, "Finding frequent items in data streams")."""
    signs = np.random.default_rng(0).integers(0, 2, len(vector), np.int8) * 2 - 1
    padded = np.zeros(-(-len(vector) // _MOST_WIDTH) * _MOST_WIDTH, np.float32)
    padded[: len(vector)] = vector * signs
    return np.asarray(padded.reshape(-1, _MOST_WIDTH).sum(axis=0), np.float32)


def record_vector(record: FeatureRecord) -> NDArray[np.int8]:
    """Return the vector of a record as it is compared: int8[w], the largest number 127."""
    if record.dtype in PICTURE_DTYPES:
        return _stored(clip_vector(_shrunk(record.pictures)))
    return _stored(clip_vector(record.features))


def _shrunk(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32[n, d] of uint8[n, h, w, 3]: the means of 16 x 16 squares."""
    side = min(_SIDE, pictures.shape[1])
    step = pictures.shape[1] // side
    cut = pictures[:, : side * step, : side * step].astype(np.float32)
    squares = cut.reshape(len(cut), side, step, side, step, 3).mean(axis=(2, 4))
    return np.asarray(squares.reshape(len(cut), -1), np.float32)


def _stored(vector: NDArray[np.float32]) -> NDArray[np.int8]:
    most = float(np.abs(vector).max())
    return np.rint(vector * (127 / most if most else 0)).astype(np.int8)


class Moments:
    """The vectors of all done videos of a cache, by their place in `cache.places`.

    `make` fills them, what is kept first; whoever asks meanwhile sees those that are there.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.has = np.zeros(len(cache), bool)
        self.norms = np.zeros(len(cache), np.float32)
        self.vectors: NDArray[np.int8] | None = None  # [videos, w], once w is known
        self.lost = 0  # videos whose records cannot be read
        self.loaded = threading.Event()  # what was kept is there
        self.complete = threading.Event()  # all are, or it failed with `error`
        self.error: FramebankError | None = None
        self._beside = Beside(cache.path, "moments")
        self._making = threading.Lock()
        self._stopped = threading.Event()
        self._folder: LiveFolder | None = None

    def __len__(self) -> int:
        return len(self.has)

    @property
    def is_closed(self) -> bool:
        return self._stopped.is_set()

    @property
    def count(self) -> int:
        """How many vectors are there."""
        return int(self.has.sum())

    def make(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Fill in all vectors, told of how many are done; raises FramebankError. A second call
        waits for the first."""
        with self._making:
            if self.complete.is_set():
                return
            try:
                left = self._load()
                self.loaded.set()
                self._make(left, progress)
            except FramebankError as error:
                self.error = error
                raise
            finally:
                self.loaded.set()
                self.complete.set()

    def close(self) -> None:
        """Stop what is being made, after what is done is kept, and remove what is temporary; who
        compares at this moment goes on with what is there."""
        self._stopped.set()
        with self._making:
            if self._folder is not None:
                self._folder.close()

    def vector(self, place: int) -> NDArray[np.float32]:
        """Return float32[w] of length 1 of one video, whose record is read where it has to be;
        raises CacheError."""
        if self.vectors is not None and self.has[place]:
            return unit(self.vectors[place])
        return unit(record_vector(next(self.cache.read_places(np.array([place])))))

    def cosines(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32[videos]: the cosine of each with a vector of length 1, -inf of those that
        are not there. Raises CacheError for a vector of another cache."""
        found = np.full(len(self), -np.inf, np.float32)
        if (vectors := self.vectors) is None:
            return found
        if vector.shape != vectors.shape[1:]:
            raise CacheError(
                "the clip's features are not those of the cache",
                got=f"{len(vector)} numbers",
                expected=f"{vectors.shape[1]}",
            )
        dots = np.empty(len(self), np.float32)
        for rows, block in blocks(vectors, _BLOCK_ROWS):
            np.dot(block, vector, out=dots[rows])
        there = self.has & (self.norms > 0)
        found[there] = np.clip(dots[there] / self.norms[there], -1, 1)
        return found

    def _load(self) -> list[tuple[str, int, int]]:
        """Take what is kept; return the shards of which something is not."""
        for name in self._beside.names():
            if not name.startswith(f"{_RECIPE}-") or self._stopped.is_set():
                continue
            data = self._beside.read(name)
            with contextlib.suppress(ValueError):
                if data is not None and not self._take(*_unpacked(data)):
                    self._beside.remove(name)  # of shards that were all made anew
        return [span for span in self.cache.spans if not self.has[span[1] : span[2]].all()]

    def _take(
        self, shards: list[str], counts: list[int], records: NDArray[np.int64],
        vectors: NDArray[np.int8],
    ) -> bool:  # fmt: skip
        """Take the vectors of a pack that are of this cache; return whether any are."""
        spans = {shard: (start, end) for shard, start, end in self.cache.spans}
        known = self.cache.places.column("record").to_numpy()
        first, used = 0, False
        for shard, count in zip(shards, counts, strict=True):
            rows, first = slice(first, first + count), first + count
            if shard not in spans:
                continue
            start, end = spans[shard]
            inside = np.searchsorted(known[start:end], records[rows])
            inside = np.minimum(inside, end - start - 1)
            same = known[start:end][inside] == records[rows]
            self._put(start + inside[same], vectors[rows][same])
            used = True
        return used

    def _put(self, places: NDArray[np.int64], vectors: NDArray[np.int8]) -> None:
        if self.vectors is None:
            self.vectors = self._room(vectors.shape[1])
        if vectors.shape[1] != self.vectors.shape[1]:
            raise ValueError("vectors of another width")
        self.vectors[places] = vectors
        for rows, block in blocks(vectors, 1024):
            self.norms[places[rows]] = np.linalg.norm(block, axis=1)
        self.has[places] = True

    def _room(self, width: int) -> NDArray[np.int8]:
        shape = (len(self), width)
        if len(self) * width <= _IN_MEMORY_BYTES:
            return np.zeros(shape, np.int8)
        self._folder = live_folder()
        with explained():
            path = Path(self._folder.path) / "vectors"
            return np.memmap(path, np.int8, "w+", shape=shape)

    def _make(self, left: list[tuple[str, int, int]], progress: Callable[[int], None]) -> None:
        """Make the vectors of these shards and keep them; a record that is damaged costs none but
        itself and those behind it in its shard."""
        pack = _Pack()
        for shard, start, end in left:
            if self._stopped.is_set():
                break
            vectors = []
            try:
                for record in self.cache.read_places(np.arange(start, end)):
                    vectors.append(record_vector(record))
                whole = True
            except CacheError:
                self.lost += end - start - len(vectors)
                whole = False
            if vectors:
                places = np.arange(start, start + len(vectors))
                self._put(places, np.stack(vectors))
            if whole and vectors:
                records = self.cache.places.column("record").slice(start, end - start).to_numpy()
                pack.add(shard, records, np.stack(vectors))
            if pack.is_due:
                self._keep(pack)
                pack = _Pack()
            progress(self.count)
        self._keep(pack)

    def _keep(self, pack: _Pack) -> None:
        if pack.shards:
            name = hashlib.sha256("\n".join(pack.shards).encode()).hexdigest()[:32]
            self._beside.write(f"{_RECIPE}-{name}.npz", pack.to_bytes())


def unit(vector: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return float32[w] of length 1, zeros of zeros."""
    found = vector.astype(np.float32)
    return found / max(float(np.linalg.norm(found)), 1e-12)


def blocks(vectors: NDArray[np.int8], rows: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield vectors as float32, some rows at a time, in one array that is used again."""
    room = np.empty((rows, vectors.shape[1]), np.float32)
    for start in range(0, len(vectors), rows):
        its = vectors[start : start + rows]
        block = room[: len(its)]
        block[:] = its
        yield slice(start, start + len(its)), block


class _Pack:
    """Vectors that wait to be kept together."""

    def __init__(self) -> None:
        self.shards: list[str] = []
        self._records: list[NDArray[np.int64]] = []
        self._vectors: list[NDArray[np.int8]] = []
        self._begun_s, self._bytes = time.monotonic(), 0

    def add(self, shard: str, records: NDArray[np.int64], vectors: NDArray[np.int8]) -> None:
        self.shards.append(shard)
        self._records.append(records)
        self._vectors.append(vectors)
        self._bytes += vectors.nbytes

    @property
    def is_due(self) -> bool:
        late = time.monotonic() - self._begun_s > _PACK_S
        return bool(self.shards) and (late or self._bytes >= _PACK_BYTES)

    def to_bytes(self) -> bytes:
        about = {"shards": self.shards, "counts": [len(one) for one in self._records]}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            records=np.concatenate(self._records),
            vectors=np.concatenate(self._vectors),
        )
        return buffer.getvalue()


def _unpacked(data: bytes) -> tuple[list[str], list[int], NDArray[np.int64], NDArray[np.int8]]:
    """Return what `to_bytes` packed; raises ValueError for anything else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as pack:
            about = json_text.parse_object(pack["about"].tobytes())
            records, vectors = pack["records"], pack["vectors"]
        shards, counts = list(map(str, about["shards"])), list(map(int, about["counts"]))
    except (KeyError, TypeError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as err:
        raise ValueError(f"no pack of vectors: {err}") from err
    fits = vectors.ndim == 2 and vectors.dtype == np.int8 and vectors.shape[1] <= _MOST_WIDTH
    fits = fits and records.dtype == np.int64 and records.shape == (len(vectors),)
    if not fits or len(shards) != len(counts) or min(counts, default=0) < 0:
        raise ValueError("no pack of vectors")
    if sum(counts) != len(vectors):
        raise ValueError("no pack of vectors")
    return shards, counts, records, vectors
