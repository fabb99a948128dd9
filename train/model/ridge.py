"""Ridge regression in closed form, its strength and its inputs chosen by grouped cross-validation.

Inputs are blocks of columns (the moments of a clip, the words of a question). A candidate is a set
of blocks; each block counts as much as another, however wide. Everything is solved in the space of
the rows (n × n), so width costs next to nothing and a few thousand rows are the most.

Dimension letters: n rows, d columns of a block, a targets, s strengths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STRENGTHS = 10.0 ** np.arange(-4, 2.01, 0.5)
FOLDS = 5
_REPEATED_BELOW, _REPEATS = 500, 3  # of few rows the deal decides too much: some are averaged
_CLOSE = 0.004  # of the least error: candidates that differ by that are about as good
_TINY = 1e-30
_LEAST_SHARE = 0.02  # of the best candidate's, below which another counts for nothing
_ONE_FOLD_ABOVE = 1000  # rows: a fifth of more says enough by itself


@dataclasses.dataclass(frozen=True)
class Ridge:
    """`kernels` float64[d, a] by block and `bias` float64[a]; targets are Σ block @ kernel + bias.

    `held_out` float64[n, a] is what each row was given by fits that had not seen its group; NaN in
    rows that no fold held out. `shares` says how much of it each candidate is, at which strength.
    """

    kernels: dict[str, Floats]
    bias: Floats
    held_out: Floats
    shares: dict[tuple[str, ...], tuple[float, float]]

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(self.kernels)


def deal_folds(groups: Sequence[str], folds: int, *, seed: int) -> NDArray[np.int64]:
    """Return the fold int64[n] of each row: a group is in one fold, and folds are about as large.

    There are fewer folds than asked for where there are fewer groups; with one group all are 0.
    """
    names, number, sizes = np.unique(
        np.asarray(groups, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]  # the largest first
    filled = np.zeros(min(folds, len(names)), np.int64)
    fold = np.zeros(len(names), np.int64)
    for group in order:
        fold[group] = filled.argmin()
        filled[fold[group]] += sizes[group]
    return fold[number]


def fit_ridge(
    blocks: Mapping[str, NDArray[np.float32]],
    targets: Floats,
    groups: Sequence[str],
    candidates: Sequence[tuple[str, ...]],
    *,
    seed: int,
) -> Ridge:
    """Return the regression on the candidate, and at the strength, of the least held-out error;
    candidates that err hardly more are averaged in, since chance decides between them.

    `blocks` are float32[n, d], standardised, `targets` float64[n, a], `groups` names what must not
    be on both sides of a fold. With one group nothing can be held out: then it is the first
    candidate at strength 1.
    """
    grams, weights = {}, {}
    for name in {name for candidate in candidates for name in candidate}:
        gram = (blocks[name] @ blocks[name].T).astype(np.float64)
        weights[name] = 1 / max(float(np.trace(gram)) / len(gram), _TINY)
        grams[name] = gram * weights[name]
    joined = {its: np.mean([grams[name] for name in its], axis=0) for its in candidates}
    repeats = _REPEATS if len(targets) < _REPEATED_BELOW else 1
    deals = [deal_folds(groups, FOLDS, seed=seed + repeat) for repeat in range(repeats)]
    tried: dict[tuple[str, ...], tuple[float, float, Floats]] = {}
    for its in candidates:
        held = _held_out(joined[its], targets, deals)
        errors = [float(np.nanmean((one - targets) ** 2)) for one in held]
        if errors:
            place = int(np.argmin(errors))
            tried[its] = errors[place], float(STRENGTHS[place]), held[place]
    if not tried:
        tried = {candidates[0]: (1.0, 1.0, np.full_like(targets, np.nan))}
    least = max(min(error for error, *_ in tried.values()), _TINY)
    share = {its: np.exp((1 - error / least) / _CLOSE) for its, (error, *_) in tried.items()}
    share = {its: one for its, one in share.items() if one >= _LEAST_SHARE}
    total = sum(share.values())
    kernels: dict[str, Floats] = {}
    held_out: Floats = np.zeros_like(targets)
    every = np.arange(len(targets))
    for its, one in share.items():
        _, strength, its_held = tried[its]
        dual = _Solved(joined[its], targets, every).dual(strength) * (one / total / len(its))
        held_out += its_held * (one / total)
        for name in its:
            part = weights[name] * (blocks[name].T.astype(np.float64) @ dual)
            kernels[name] = kernels[name] + part if name in kernels else part
    offset = sum(blocks[name].mean(axis=0).astype(np.float64) @ kernels[name] for name in kernels)
    shares = {its: (float(one / total), tried[its][1]) for its, one in share.items()}
    return Ridge(kernels, targets.mean(axis=0) - offset, held_out, shares)


def _held_out(
    gram: Floats, targets: Floats, deals: Sequence[NDArray[np.int64]]
) -> Sequence[Floats]:
    """Return by strength what each row gets from the others' fits, the mean over `deals`."""
    if deals[0].max(initial=0) == 0:
        return []
    held = np.full((len(deals), len(STRENGTHS), *targets.shape), np.nan)
    for sums, fold in zip(held, deals, strict=True):
        for number in range(1 if len(targets) > _ONE_FOLD_ABOVE else int(fold.max()) + 1):
            rest, out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            solved = _Solved(gram, targets, rest)
            sums[:, out] = solved.predict(gram, out)
    return list(held.mean(axis=0))


class _Solved:
    """The regression of `rows` for every strength, by one decomposition of their Gram matrix."""

    def __init__(self, gram: Floats, targets: Floats, rows: NDArray[np.int64]) -> None:
        inner = gram[np.ix_(rows, rows)]
        self.rows, self.columns, self.mean = rows, inner.mean(axis=0), inner.mean()
        self.offset = targets[rows].mean(axis=0)
        centred = inner - self.columns[None] - self.columns[:, None] + self.mean
        self.values, self.vectors = np.linalg.eigh(centred)
        self.turned = self.vectors.T @ (targets[rows] - self.offset)

    def dual(self, strength: float) -> Floats:
        """Return float64[n, a]: the share of each row in the kernel; it sums to 0 over the rows."""
        return self.vectors @ (self.turned / (np.maximum(self.values, 0) + strength)[:, None])

    def predict(self, gram: Floats, others: NDArray[np.int64]) -> Floats:
        """Return float64[s, m, a] for `others` int64[m]."""
        cross = gram[np.ix_(others, self.rows)]
        cross = cross - cross.mean(axis=1, keepdims=True) - self.columns[None] + self.mean
        turned = cross @ self.vectors
        shares = self.turned / (np.maximum(self.values, 0) + STRENGTHS[:, None])[..., None]
        return turned @ shares + self.offset
