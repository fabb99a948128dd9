"""Videos that stand on both sides of a split: the same bytes, or features that are nearly equal.

Equal content hashes are found in the catalog alone. For the rest each video becomes the random
projection of its mean feature; pairs that are near there are compared frame by frame, so that clips
of the same pictures in another order are not named. 10^5 videos take one reading of the cache and
100 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from features.cache import Cache

_WIDTH = 256
_NEAR_MEAN = 0.995
_NEAR_FRAMES = 0.9995
_BLOCK = 2048
_MOST = 1000  # pairs that are named


def find_leaks(cache: Cache, sides: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return pairs of videos of different `sides` (video_id → split) that are (nearly) the same.

    Each has "videos", "splits", "why" and, of features, "cosine". Raises CacheError.
    """
    columns = cache.table(columns=["video_id", "state", "content_sha256"]).to_pydict()
    rows = zip(columns["video_id"], columns["state"], columns["content_sha256"], strict=True)
    first: dict[tuple[str, str], str] = {}
    for video_id, state, digest in rows:
        if state == "done" and digest and video_id in sides:
            first.setdefault((digest, sides[video_id]), video_id)
    by_digest: dict[str, list[str]] = {}
    for (digest, _), video_id in first.items():
        by_digest.setdefault(digest, []).append(video_id)
    leaks = [
        _leak(one, other, sides, "the same file")
        for its in by_digest.values()
        for place, one in enumerate(its)
        for other in its[place + 1 :]
    ]
    named = {tuple(leak["videos"]) for leak in leaks}
    for one, other, cosine in _near(cache, sides):
        if len(leaks) >= _MOST:
            break
        if (one, other) not in named and (other, one) not in named:
            found = _leak(one, other, sides, "nearly equal features") | {"cosine": cosine}
            leaks.append(found)
    return leaks[:_MOST]


def _leak(one: str, other: str, sides: Mapping[str, str], why: str) -> dict[str, Any]:
    return {"videos": [one, other], "splits": [sides[one], sides[other]], "why": why}


def _near(cache: Cache, sides: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """Yield (video, video of another side, cosine over their frames)."""
    ids, means = [], []
    projection: NDArray[np.float32] | None = None
    for record in cache:
        if record.video_id not in sides or not len(record.features):
            continue
        mean = record.features.astype(np.float32).mean(axis=0)
        if projection is None:
            dice = np.random.default_rng(0)
            projection = dice.standard_normal((len(mean), _WIDTH)).astype(np.float32)
        ids.append(record.video_id)
        means.append(mean @ projection)
    if not ids:
        return
    table = np.stack(means)
    table -= table.mean(axis=0)  # what all videos share would make them all alike
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    side = np.array([sides[video_id] for video_id in ids])
    for start in range(0, len(ids), _BLOCK):
        for other in range(start, len(ids), _BLOCK):
            near = table[start : start + _BLOCK] @ table[other : other + _BLOCK].T >= _NEAR_MEAN
            near &= side[start : start + _BLOCK, None] != side[None, other : other + _BLOCK]
            for row, column in np.argwhere(near).tolist():
                if start + row < other + column:
                    one, two = ids[start + row], ids[other + column]
                    cosine = _frame_cosine(cache, one, two)
                    if cosine >= _NEAR_FRAMES:
                        yield one, two, cosine


def _frame_cosine(cache: Cache, one: str, other: str) -> float:
    """Return the mean cosine of frames side by side; 0 for clips of different length."""
    a, b = (cache[video_id].features.astype(np.float64) for video_id in (one, other))
    if a.shape != b.shape:
        return 0.0
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(scale, 1e-12)).mean())
