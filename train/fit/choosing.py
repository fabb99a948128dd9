"""`--model-kind auto`: the kind that answers held-out training clips best.

The probe and the kinds that are trained answer the same folds of the training split, dealt by
source; after the first fold the two best trained kinds go on, those that are surely behind the
probe there do not. The best of the trained kinds is taken where it is ahead of the probe by more
than chance is wide: a standard error (Breiman et al. 1984, "Classification and regression trees",
section 3.4.3), since the best of many looks better than it is. The validation split chooses epochs
as ever and judges nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.train.data.batches import QuestionTable
from framebank.train.judging.bootstrap import interval, paired_bootstrap
from framebank.train.model.config import PROBE, TRAINED_KINDS
from framebank.train.model.ridge import deal_folds

AUTO_CLIPS = 2000  # in training, beyond which there is enough for the default trained kind
FOLDS = 3
_FINALISTS = 2  # of the trained kinds, that take all folds
_SURE = 0.84  # share of draws: a standard error
KINDS = (PROBE, *TRAINED_KINDS)


@dataclasses.dataclass(frozen=True)
class Tried:
    """How a kind did: the right answers bool[q] of the folds that it took, NaN in others."""

    kind: str
    gains: NDArray[np.float64]

    def figures(self, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        """Return accuracy (of counts minus the mean square error) with its interval."""
        its = np.flatnonzero(np.isfinite(self.gains))
        low, high = interval(self.gains[its], [groups[place] for place in its.tolist()], seed=seed)
        return {
            "kind": self.kind,
            "folds": "all" if len(its) == len(self.gains) else "the first",
            "judged": len(its),
            "score": float(self.gains[its].mean()),
            "interval": [low, high],
        }


def choose_kind(
    table: QuestionTable,
    gains: Callable[[str, int, QuestionTable, QuestionTable], NDArray[np.float64]],
    *,
    seed: int,
    say: Callable[[str], None],
    kinds: Sequence[str] = KINDS,
) -> tuple[str, list[dict[str, Any]]]:
    """Return the best of `kinds` and what was tried.

    `gains(kind, fold, learn, judge)` returns float64[j], the higher the better, of `kind` fitted to
    `learn` and asked `judge`.
    """
    groups = [question.source for question in table.questions]
    fold = deal_folds(groups, FOLDS, seed=seed)
    count = int(fold.max()) + 1
    if count < 2:
        say(f"auto: all training clips are of one source, so none can be held out: {kinds[0]}")
        return kinds[0], []
    found = {kind: np.full(len(table), np.nan) for kind in kinds}
    running = list(kinds)
    for number in range(count):
        learn, judge = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        for kind in running:
            found[kind][judge] = gains(kind, number, table.take(learn), table.take(judge))
        if number == 0:
            first = {kind: float(np.nanmean(found[kind])) for kind in kinds}
            best_first = sorted((kind for kind in kinds if kind != PROBE), key=lambda k: -first[k])
            asked = [groups[place] for place in judge.tolist()]
            running = [kind for kind in kinds if kind == PROBE]
            for kind in best_first[:_FINALISTS]:
                floor = found.get(PROBE, found[kind])  # pictures have no probe
                ahead = paired_bootstrap(floor[judge], found[kind][judge], asked, seed=seed)
                running += [kind] if ahead.low <= 0 else []
    tried = [Tried(kind, found[kind]).figures(groups, seed=seed) for kind in kinds]
    best = max(running, key=lambda kind: float(np.mean(found[kind])))
    if best != PROBE and PROBE in found:
        lead = paired_bootstrap(found[best], found[PROBE], groups, seed=seed)
        best = best if lead.probability_better >= _SURE else PROBE
    for its in tried:
        low, high = its["interval"]
        say(
            f"auto: {its['kind']} {its['score']:.3f} ({low:.3f} to {high:.3f}) on "
            f"{its['judged']} questions held out, {its['folds']} of {count} folds"
        )
    say(f"auto: {best} is fitted to all of the training split")
    return best, tried
