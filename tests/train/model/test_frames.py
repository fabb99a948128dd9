"""train.model.frames: parts merge to the whole, constant columns stay small."""

from __future__ import annotations

import numpy as np

from framebank.train.model.frames import frame_statistics


def test_parts_merge_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(5, 1e-3, (n, 4)).astype(np.float32) for n in (1, 7, 3, 0, 12)]
    whole = np.concatenate(clips).astype(np.float64)
    found = frame_statistics(clips, 4)
    merged = frame_statistics(clips[:2], 4).merge(frame_statistics(clips[2:], 4))
    for statistics in (found, merged):
        assert statistics.count == 23
        np.testing.assert_allclose(statistics.mean, whole.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(statistics.variance, whole.var(axis=0), rtol=1e-6)
    assert frame_statistics([], 4).merge(frame_statistics([], 4)).count == 0


def test_constant_columns_have_variance_one() -> None:
    clip = np.tile(np.array([0.0, 1000.0, 0.3], np.float32), (5, 1))
    clip[:, 2] += np.arange(5) * 1e-3
    variance = frame_statistics([clip, clip], 3).variance
    assert list(variance[:2]) == [1, 1] and 0 < variance[2] < 1e-5
