"""framebank.train.model.moments: worked by hand, whatever the padding."""

from __future__ import annotations

import numpy as np

from framebank.train.model.moments import MOMENTS, ORDER_BLIND, temporal_moments


def moments(clip, *, padding: int = 0):  # type: ignore[no-untyped-def]
    features = np.zeros((1, len(clip) + padding, len(clip[0])), np.float32)
    features[0, : len(clip)] = clip
    mask = np.arange(features.shape[1])[None] < len(clip)
    return {name: np.asarray(made)[0] for name, made in temporal_moments(features, mask).items()}


def test_moments_are_of_signed_roots() -> None:
    made = moments([[1, -4], [9, -16]])
    assert list(made) == list(MOMENTS)
    np.testing.assert_allclose(made["mean"], [2, -3])
    np.testing.assert_allclose(made["maximum"], [3, -2])
    np.testing.assert_allclose(made["deviation"], [1, 1])
    np.testing.assert_allclose(made["difference"], [2, 2])
    # Frames in the middle of their half: cos π/4 and cos 3π/4; cos π/2 is 0 in both.
    np.testing.assert_allclose(made["cosine_1"], np.array([1 - 3, -2 + 4]) * 0.5**0.5, rtol=1e-5)
    np.testing.assert_allclose(made["cosine_2"], [0, 0], atol=1e-6)


def test_padding_changes_nothing() -> None:
    clip = np.random.default_rng(0).normal(size=(5, 3))
    for name, made in moments(clip).items():
        np.testing.assert_allclose(moments(clip, padding=4)[name], made, rtol=1e-5, atol=1e-6)


def test_order_shows_in_the_moments_that_are_for_it() -> None:
    clip = np.random.default_rng(1).normal(size=(6, 3))
    shuffled = clip[[3, 0, 5, 1, 4, 2]]
    first, second = moments(clip), moments(shuffled)
    for name in MOMENTS:
        same = np.allclose(first[name], second[name], atol=1e-5)
        assert same is (name in ORDER_BLIND), name
    backwards = moments(clip[::-1])
    np.testing.assert_allclose(backwards["cosine_1"], -first["cosine_1"], atol=1e-5)


def test_one_frame_has_no_difference() -> None:
    made = moments([[4, 1]])
    assert made["difference"].tolist() == [0, 0] and made["deviation"].tolist() == [0, 0]
    np.testing.assert_allclose(made["cosine_1"], [0, 0], atol=1e-6)
