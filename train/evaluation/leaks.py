"""Videos that stand on both sides of a split: the same bytes, or features that are nearly equal.

Equal content hashes are found in the catalog alone. For the rest each video becomes a sketch, a
random projection of its mean feature; of the pairs whose sketches are near the nearest are compared
frame by frame, so that clips of the same pictures in another order are not named. A copy that was
coded anew, trimmed or mirrored (mean features, InceptionV3: 0.91 to 0.99, 0.86 to 0.98, 0.83 to
0.97) differs as much as two clips of one scene (0.94). No bound parts these, so the nearest of them
are told as "alike", for a person to look at; what was coded hard (0.4 to 0.8) is lost. 10^5 videos
take two minutes of reading, half a minute on two cores, and 300 MB; of more, that many are drawn.

Dimension letters: v videos, n frames, d feature width, s width of a sketch.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.cache.reader import check_finite
from framebank.features.video import catalog_text

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

MOST_VIDEOS = 100_000  # that are compared by features
_WIDTH = 256
_NEAR_MEAN = 0.98
_NEAR_FRAMES = 0.98
_ALIKE_MEAN = 0.9
_MOST_ALIKE = 20
_BLOCK = 2048
_MEANS_AT_ONCE = 256
_MOST_PAIRS = 1000  # that are compared frame by frame
_PAIRS_AT_ONCE = 64  # so much is held of their features
_SAY_EVERY_S = 10.0

Say = Callable[[str], None]
Pair = tuple[str, str]


def find_leaks(
    cache: Cache, sides: Mapping[str, Sequence[str]], *, seed: int = 0, say: Say = lambda text: None
) -> dict[str, Any]:
    """Return the pairs of videos of different `sides` (video_id → splits) that are the same.

    "videos" were compared by content hash, "compared" of them (drawn by `seed` where they are
    more than MOST_VIDEOS) by features. Each of "pairs" has "videos", "splits", "why" and, of
    features, the mean "cosine" of its frames; "capped" says that there may be more. "alike" are the
    nearest other pairs, with the "cosine" of their mean features. Raises CacheError.
    """
    columns = cache.done(["video_id", "content_sha256"], sides).to_pydict()
    digests = dict(zip(*columns.values(), strict=True))
    pairs = [
        {"videos": [name, name], "splits": [one, other], "why": "the same video"}
        for name in digests
        for one, other in itertools.combinations(sides[name], 2)
    ]
    side = {name: sides[name][0] for name in digests}
    same = _same_bytes(digests, side)
    pairs += [_named(pair, side, "the same file") for pair in same]
    drawn = list(digests)
    if len(drawn) > MOST_VIDEOS:
        places = np.random.default_rng(seed).permutation(len(drawn))[:MOST_VIDEOS]
        drawn = [drawn[place] for place in np.sort(places).tolist()]
    near: list[tuple[Pair, float]] = []
    candidates: list[tuple[Pair, float]] = []
    capped = False
    if len({side[name] for name in drawn}) > 1:
        ids, rows, mean = _sketch(cache, drawn, say)
        candidates, capped = _near(ids, rows, side, frozenset(same))
        nearest = [pair for pair, cosine in candidates if cosine >= _NEAR_MEAN]
        near = sorted(_confirm(cache, nearest, mean), key=lambda found: -found[1])
    pairs += [_named(pair, side, "nearly equal features", cosine) for pair, cosine in near]
    named = {pair for pair, _ in near}
    alike = [(pair, cosine) for pair, cosine in candidates if pair not in named][:_MOST_ALIKE]
    return {
        "videos": len(digests),
        "compared": len(drawn),
        "capped": capped,
        "pairs": pairs,
        "alike": [_named(pair, side, "alike", cosine) for pair, cosine in alike],
    }


def _named(
    pair: Pair, side: Mapping[str, str], why: str, cosine: float | None = None
) -> dict[str, Any]:
    found = {"videos": list(pair), "splits": [side[name] for name in pair], "why": why}
    return found if cosine is None else found | {"cosine": cosine}


def _same_bytes(digests: Mapping[str, str], side: Mapping[str, str]) -> list[Pair]:
    """Return pairs of equal content hash, of each hash one video per side."""
    first: dict[str, dict[str, str]] = {}
    for name, digest in digests.items():
        if digest:
            first.setdefault(digest, {}).setdefault(side[name], name)
    return [pair for its in first.values() for pair in itertools.combinations(its.values(), 2)]


def _sketch(
    cache: Cache, names: Sequence[str], say: Say
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float64]]:
    """Read the features of `names` once; return ids, their sketches float32[v, s] of unit length,
    and the mean float64[d] that all share. A video without frames has no sketch."""
    width = cache.feature_dim or 0
    projection = np.random.default_rng(0).standard_normal((width, _WIDTH), np.float32)
    ids: list[str] = []
    rows = np.zeros((len(names), _WIDTH), np.float32)
    total = np.zeros(width)
    said_s = time.monotonic()
    for some, means in _means(cache, names):
        rows[len(ids) : len(ids) + len(some)] = means @ projection
        total += means.sum(axis=0)
        ids += some
        if time.monotonic() - said_s >= _SAY_EVERY_S:
            say(f"{len(ids)} of {len(names)} videos read")
            said_s = time.monotonic()
    rows = rows[: len(ids)]
    if ids:
        rows -= rows.mean(axis=0)  # what all videos share would make them all alike
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return ids, rows, total / max(len(ids), 1)


def _means(cache: Cache, names: Sequence[str]) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yield ids of up to _MEANS_AT_ONCE videos with the means of their frames, float32[v, d]."""
    ids: list[str] = []
    means: list[NDArray[np.float32]] = []
    for record in cache.read(names):
        if len(record.features):
            # One would take all others with it, as their mean is taken off.
            check_finite(record.video_id, record.features)
            ids.append(catalog_text(record.video_id))
            means.append(record.features.mean(axis=0, dtype=np.float32))
        if len(ids) == _MEANS_AT_ONCE:
            yield ids, np.stack(means)
            ids, means = [], []
    if ids:
        yield ids, np.stack(means)


def _near(
    ids: list[str], rows: NDArray[np.float32], side: Mapping[str, str], known: frozenset[Pair]
) -> tuple[list[tuple[Pair, float]], bool]:
    """Return the nearest pairs of different sides with their cosines, the nearest first, and
    whether there were more near ones than are kept."""
    by_side: dict[str, list[int]] = {}
    for place, name in enumerate(ids):
        by_side.setdefault(side[name], []).append(place)
    most = _MOST_PAIRS + len(known) + 1  # one too many shows that there are more
    pairs = (
        (-cosine, (ids[left], ids[right]))
        for one, other in itertools.combinations(by_side.values(), 2)
        for left, right, cosine in _near_places(rows, one, other, most)
    )
    found = heapq.nsmallest(
        _MOST_PAIRS + 1, (f for f in pairs if f[1] not in known and f[1][::-1] not in known)
    )
    capped = len(found) > _MOST_PAIRS and -found[-1][0] >= _NEAR_MEAN
    return [(pair, -cosine) for cosine, pair in found[:_MOST_PAIRS]], capped


def _near_places(
    rows: NDArray[np.float32], one: Sequence[int], other: Sequence[int], most: int
) -> Iterator[tuple[int, int, float]]:
    """Yield (place in `rows`, place in `rows`, cosine) of the `most` nearest rows of each block."""
    for start in range(0, len(one), _BLOCK):
        left = np.array(one[start : start + _BLOCK])
        for begin in range(0, len(other), _BLOCK):
            right = np.array(other[begin : begin + _BLOCK])
            cosines = (rows[left] @ rows[right].T).ravel()
            near = np.flatnonzero(cosines >= _ALIKE_MEAN)
            if len(near) > most:
                near = near[np.argpartition(-cosines[near], most)[:most]]
            for place in near[np.argsort(-cosines[near], kind="stable")].tolist():
                row, column = divmod(place, len(right))
                yield int(left[row]), int(right[column]), float(cosines[place])


def _confirm(
    cache: Cache, pairs: Sequence[Pair], mean: NDArray[np.float64]
) -> Iterator[tuple[Pair, float]]:
    """Yield the pairs whose frames, side by side, are nearly equal, with their mean cosine."""
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        names = {name for pair in some for name in pair}
        read = {
            catalog_text(record.video_id): record.features.astype(np.float32) - mean
            for record in cache.read(names)
        }
        for one, other in some:
            cosine = _frame_cosine(read[one], read[other])
            if cosine >= _NEAR_FRAMES:
                yield (one, other), cosine


def _frame_cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the mean cosine of the frames of float[n, d]; 0 for clips of different length."""
    if one.shape != other.shape:
        return 0.0
    scale = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(scale, 1e-12)).mean())
