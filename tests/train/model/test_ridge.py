"""framebank.train.model.ridge: folds that cut no group, and what held-out rows choose."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from framebank.train.model.ridge import deal_folds, fit_ridge


def made(rows: int = 90, *, seed: int = 0):  # type: ignore[no-untyped-def]
    """Return blocks of which one tells the class, the classes as targets, and groups of three."""
    dice = np.random.default_rng(seed)
    classes = dice.integers(3, size=rows)
    targets = np.eye(3)[classes]
    blocks = {
        "signal": np.float32(targets @ dice.normal(size=(3, 20)) + dice.normal(size=(rows, 20))),
        "noise": np.float32(dice.normal(size=(rows, 400))),
    }
    return blocks, targets, [f"source{row // 3}" for row in range(rows)]


def test_folds_cut_no_group_and_are_about_as_large() -> None:
    groups = [f"g{number % 17}" for number in range(100)]
    fold = deal_folds(groups, 5, seed=1)
    sides = collections.defaultdict(set)
    for group, its in zip(groups, fold.tolist(), strict=True):
        sides[group].add(its)
    assert all(len(its) == 1 for its in sides.values())
    counts = np.bincount(fold)
    assert len(counts) == 5 and counts.max() - counts.min() <= 6
    assert (deal_folds(groups, 5, seed=1) == fold).all()
    assert (deal_folds(groups, 5, seed=2) != fold).any()
    assert set(deal_folds(["a", "a", "b"], 5, seed=0).tolist()) == {0, 1}


def test_held_out_rows_choose_what_tells_the_class() -> None:
    blocks, targets, groups = made()
    ridge = fit_ridge(blocks, targets, groups, [("noise",), ("signal",)], seed=0)
    assert list(ridge.shares) == [("signal",)]
    others, truth, _ = made(seed=0)
    said = sum(others[name] @ ridge.kernels[name] for name in ridge.blocks) + ridge.bias
    assert (said.argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.9
    assert (ridge.held_out.argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.8


def test_candidates_that_are_as_good_are_averaged() -> None:
    blocks, targets, groups = made()
    blocks["twin"] = blocks["signal"].copy()
    ridge = fit_ridge(blocks, targets, groups, [("signal",), ("twin",), ("noise",)], seed=0)
    assert {its: round(share, 6) for its, (share, _) in ridge.shares.items()} == {
        ("signal",): 0.5,
        ("twin",): 0.5,
    }
    alone = fit_ridge(blocks, targets, groups, [("signal",)], seed=0)
    both = ridge.kernels["signal"] + ridge.kernels["twin"]
    np.testing.assert_allclose(both, alone.kernels["signal"], atol=1e-12)
    np.testing.assert_allclose(ridge.held_out, alone.held_out, atol=1e-12)


def test_the_dual_form_is_ridge_regression() -> None:
    blocks, targets, groups = made()
    ridge = fit_ridge({"signal": blocks["signal"]}, targets, groups, [("signal",)], seed=0)
    columns = blocks["signal"].astype(np.float64)
    scale = np.trace(columns @ columns.T) / len(columns)
    centred = columns - columns.mean(axis=0)
    (_, strength) = ridge.shares[("signal",)]
    kernel = np.linalg.solve(
        centred.T @ centred + strength * scale * np.eye(columns.shape[1]),
        centred.T @ (targets - targets.mean(axis=0)),
    )
    np.testing.assert_allclose(ridge.kernels["signal"], kernel, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(
        ridge.bias, targets.mean(axis=0) - columns.mean(axis=0) @ kernel, rtol=1e-4
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_of_one_source_are_fitted_all_the_same(rows: int) -> None:
    blocks, targets, _ = made(rows)
    ridge = fit_ridge(blocks, targets, ["one"] * rows, [("signal",), ("noise",)], seed=0)
    assert np.isnan(ridge.held_out).all()
    assert np.isfinite(ridge.kernels["signal"]).all() and np.isfinite(ridge.bias).all()
