"""Which clips are like one, which are nearly the same, and all of them on a plane.

Cosines are of the clips' vectors (`moments`). Up to 100,000 clips each one is compared; of more an
index (faiss) proposes some, which are compared, where it is installed. For near-duplicates and the
plane all vectors are projected on their principal components: two vectors of length 1 are at least
as far from each other as their projections are, so pairs that lie further apart than the cosine
allows need no comparing.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.browsing.moments import Moments

MOST_EXACT = 100_000  # clips that are compared one by one
MOST_POINTS = 20_000  # of the plane
MOST_PAIRS = 10_000  # nearly the same, that are found
_COMPONENTS = 256
_FEW = 32  # of them, which rule out most pairs
_SKETCH_NUMBERS = 50_000_000  # that all projections may take
_SAMPLE = 4096  # vectors that the components are found from
_BLOCK_ROWS = 1024
_PAIRS_AT_ONCE = 512
_SLACK = 1e-5  # of squared distances, for what float32 rounds
_TRAINED_ON = 20_000  # vectors that an index learns from
_PROPOSED = 200  # clips at least that an index proposes


@dataclasses.dataclass(frozen=True)
class Found:
    """Places of the nearest clips, the nearest first, with their cosines; `method` is "exact" or
    "index", `of` is how many clips there are to compare with."""

    method: str
    places: list[int]
    cosines: list[float]
    of: int


@dataclasses.dataclass
class Pairs:
    """Pairs of places that are nearly the same, and whether all of them were looked for."""

    least: float
    found: list[tuple[int, int, float]] = dataclasses.field(default_factory=list)
    complete: bool = False
    searched: threading.Event = dataclasses.field(default_factory=threading.Event)


class Neighbours:
    """Compares the clips of a cache."""

    def __init__(self, moments: Moments, *, most_exact: int = MOST_EXACT) -> None:
        self.moments = moments
        self._most_exact = most_exact
        self._lock = threading.Lock()
        self._bases: dict[int, tuple[int, NDArray[np.float32], NDArray[np.float32]]] = {}
        self._pairs: dict[float, Pairs] = {}
        self._index: Any = None
        self._stopped = threading.Event()

    def close(self) -> None:
        self._stopped.set()

    def nearest(self, vector: NDArray[np.float32], count: int, *, but: int | None = None) -> Found:
        """Return the `count` clips nearest to a vector of length 1, without the one at `but`;
        raises CacheError."""
        its = self.moments
        if its.vectors is not None and self._index is not None:
            proposed = self._propose(vector, count)
            scores = its.vectors[proposed].astype(np.float32) @ vector
            scores = np.clip(scores / np.maximum(its.norms[proposed], 1e-12), -1, 1)
            method = "index"
        else:
            cosines = its.cosines(vector)
            proposed = np.arange(len(cosines))
            scores, method = cosines, "exact"
        keep = np.isfinite(scores) & (proposed != (-1 if but is None else but))
        proposed, scores = proposed[keep], scores[keep]
        nearest = (
            np.argpartition(-scores, min(count, len(scores)) - 1)[:count] if len(scores) else ()
        )
        best = sorted(map(int, nearest), key=lambda place: (-scores[place], proposed[place]))
        places = [int(proposed[place]) for place in best]
        return Found(method, places, [float(scores[place]) for place in best], its.count)

    def make_index(self) -> bool:
        """Make the index where there are so many clips that one pays and a library for it; return
        whether there is one."""
        vectors = self.moments.vectors
        if vectors is None or len(vectors) <= self._most_exact:
            return False
        if importlib.util.find_spec("faiss") is None:
            return False
        with self._lock:
            if self._index is None:
                self._index = self._indexed(vectors)
        return True

    def _indexed(self, vectors: NDArray[np.int8]) -> Any:
        """Return 64 principal components in 8 bits each, in some hundreds of cells (faiss)."""
        import faiss

        dice = np.random.default_rng(0)
        drawn = dice.choice(len(vectors), min(_TRAINED_ON, len(vectors)), replace=False)
        drawn.sort()
        sample = self._units(drawn)
        cells = max(1, min(512, len(drawn) // 40))
        width = min(64, sample.shape[1], len(drawn))
        index = faiss.index_factory(
            sample.shape[1], f"PCA{width},IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT
        )
        index.train(sample)
        faiss.extract_index_ivf(index).nprobe = min(cells, max(8, cells // 8))
        for start in range(0, len(vectors), _BLOCK_ROWS):
            index.add(self._units(np.arange(start, min(start + _BLOCK_ROWS, len(vectors)))))
            if self._stopped.is_set():
                break
        return index

    def _propose(self, vector: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        wanted = max(_PROPOSED, 10 * (count + 1))
        _, found = self._index.search(vector[None], wanted)
        places = found[0][found[0] >= 0]
        return np.asarray(places[self.moments.has[places]], np.int64)

    def _units(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        assert self.moments.vectors is not None
        found = self.moments.vectors[places].astype(np.float32)
        found /= np.maximum(self.moments.norms[places], 1e-12)[:, None]
        return found

    def projected(self, places: NDArray[np.int64], most: int) -> NDArray[np.float32]:
        """Return float32[places, k]: the vectors of length 1 of videos whose vectors are there on
        up to `most` principal components of all."""
        its = self.moments
        if its.vectors is None or not len(places):
            return np.zeros((len(places), 1), np.float32)
        middle, basis = self._basis(most)
        found = np.empty((len(places), basis.shape[1]), np.float32)
        for start in range(0, len(places), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            found[rows] = self._units(places[rows]) @ basis
        found -= middle @ basis
        return found

    def _basis(self, most: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the middle of some vectors, and their principal components float32[w, k]."""
        with self._lock:
            count = self.moments.count
            if self._bases.get(most, (0,))[0] != count:
                there = np.flatnonzero(self.moments.has)
                dice = np.random.default_rng(0)
                drawn = dice.choice(there, min(_SAMPLE, len(there)), replace=False)
                sample = self._units(np.sort(drawn))
                middle = sample.mean(axis=0)
                self._bases[most] = (count, middle, principal_components(sample - middle, most))
            _, *found = self._bases[most]
            return found[0], found[1]

    def duplicates(self, least: float, *, wait_s: float | None = None) -> Pairs:
        """Return the pairs with a cosine of at least `least`, the nearest first; those found so far
        after `wait_s`."""
        with self._lock:
            pairs = self._pairs.get(least)
            if pairs is None:
                pairs = self._pairs[least] = Pairs(least)
                work = threading.Thread(
                    target=self._search, args=(pairs,), name="duplicates", daemon=True
                )
                work.start()
        pairs.searched.wait(wait_s)
        return pairs

    def _search(self, pairs: Pairs) -> None:
        try:
            self.moments.complete.wait()
            pairs.complete = self._find_pairs(pairs)
        finally:
            pairs.searched.set()

    def _find_pairs(self, pairs: Pairs) -> bool:
        """Fill `pairs`; return whether all are found.

        Clips are sorted along the first component, so that a block needs to be held against those
        that follow within the distance alone; the other components leave few to compare.
        """
        most = 2 - 2 * pairs.least + _SLACK  # of the squared distance
        there = np.flatnonzero(self.moments.has & (self.moments.norms > 0))
        if not len(there):
            return not self.moments.lost
        components = max(_FEW, min(_COMPONENTS, _SKETCH_NUMBERS // len(there)))
        sketch = self.projected(there, components)
        sorted_ = np.argsort(sketch[:, 0], kind="stable")
        order, along = there[sorted_], _Sorted(sketch[sorted_], most)
        for start in range(0, len(order), _BLOCK_ROWS):
            end = min(start + _BLOCK_ROWS, len(order))
            for ones, others in along.near(start, end):
                self._compare(pairs, order[ones], order[others])
                if self._stopped.is_set() or len(pairs.found) >= MOST_PAIRS:
                    return False
        return not self.moments.lost

    def _compare(self, pairs: Pairs, ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        for start in range(0, len(ones), _PAIRS_AT_ONCE):
            one, other = (its[start : start + _PAIRS_AT_ONCE] for its in (ones, others))
            cosines = np.clip((self._units(one) * self._units(other)).sum(axis=1), -1, 1)
            near = np.flatnonzero(cosines >= pairs.least - 1e-6)
            found = zip(one[near], other[near], cosines[near], strict=True)
            pairs.found += [(int(a), int(b), float(cosine)) for a, b, cosine in found]
            if self._stopped.is_set() or len(pairs.found) >= MOST_PAIRS:
                break
        pairs.found.sort(key=lambda pair: -pair[2])


class _Sorted:
    """Projections in the order of their first component, and which lie near to each other: the
    squared distance at most `most`."""

    def __init__(self, sketch: NDArray[np.float32], most: float) -> None:
        self._all, self._few = sketch, np.ascontiguousarray(sketch[:, :_FEW])
        self._most = most

    def near(self, start: int, end: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield pairs of rows, of [start, end) and of those that follow, each pair once."""
        along = self._all[:, 0]
        last = int(np.searchsorted(along, along[end - 1] + math.sqrt(self._most), side="right"))
        for first in range(start, last, 8 * _BLOCK_ROWS):
            until = min(first + 8 * _BLOCK_ROWS, last)
            far = _squared(self._few[start:end], self._few[first:until])
            columns = np.flatnonzero((far <= self._most).any(axis=0))
            if not len(columns):
                continue
            far = _squared(self._all[start:end], self._all[first + columns])
            ones, others = np.nonzero(far <= self._most)
            ones, others = ones + start, first + columns[others]
            yield ones[others > ones], others[others > ones]


def _squared(ones: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32[a, b]: the squared distances of rows [a, k] from rows [b, k]."""
    found = ones @ (-2 * others.T)
    found += (ones**2).sum(axis=1)[:, None]
    found += (others**2).sum(axis=1)
    return found


def principal_components(centred: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Return float32[w, k]: up to `most` orthonormal directions in which rows [n, w] around 0
    differ most, by subspace iteration from a seed (Halko, Martinsson and Tropp 2011, 4.4)."""
    width = min(most, *centred.shape)
    dice = np.random.default_rng(0)
    basis = dice.standard_normal((centred.shape[1], width)).astype(np.float32)
    for _ in range(3):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    # Within the subspace the directions themselves, the widest first.
    _, _, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    found = basis @ turned.T
    # A direction's sign is nobody's choice: the largest part of it is positive.
    signs = np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    return np.asarray(found * np.where(signs == 0, 1, signs), np.float32)
