"""Which quarantined videos count against --max-bad-ratio, and which were accepted before.

A run that ends within its ratio accepts what it quarantined: a later one over a part of the same
input has nothing new to complain of. A run that did not, or that never came to its end, accepts
nothing, so the same command again fails again. What it left counts until a run whose input holds
all of it ends within its ratio.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from framebank.features.cache.sidecar import CatalogRow
from framebank.features.errors import FramebankError, JobError
from framebank.features.stores import json_text, storage


def unaccepted_runs(
    cache: str, runs: Mapping[str, int], *, limit: float, rows: Iterable[CatalogRow]
) -> tuple[int, list[str]]:
    """Return how many of the quarantined videos no run has accepted, and the runs to judge anew.

    `runs` are the videos of this input by the run that quarantined them, `rows` those of the whole
    catalog. To judge anew are runs of which this input has all that they left in quarantine.
    """
    if not runs:
        return 0, []
    accepted: set[str] = set()
    for summary in _summaries(cache):
        if _is_accepted(summary, limit):
            accepted.update((str(summary["run_id"]), *map(str, summary.get("judged_runs") or ())))
    left = {run: count for run, count in runs.items() if run not in accepted}
    whole = Counter(row.run_id for row in rows if row.state == "quarantined" and row.run_id in left)
    return sum(left.values()), sorted(run for run in left if left[run] == whole[run])


def check(bad: int, inputs: int, *, limit: float, cache: str) -> None:
    """Raise JobError where more than `limit` of the inputs are `bad`."""
    if bad > limit * inputs:
        raise JobError(
            "too many videos are quarantined; the features of the others are kept",
            got=f"{bad} of {inputs} ({bad / inputs:.0%})",
            expected=f"at most {limit:.0%} (--max-bad-ratio)",
            todo=f"see `framebank inspect {cache} --quarantined`",
        )


def _summaries(cache: str) -> Iterator[dict[str, Any]]:
    for file in storage.iter_files(storage.join(cache, "runs")):
        if file.path.endswith(".json") and not storage.is_leftover(file.path):
            try:
                yield json_text.read_object(file.path)
            except FramebankError:
                continue  # a run that nobody can read has accepted nothing


def _is_accepted(summary: Mapping[str, Any], limit: float) -> bool:
    """Return whether a run ended within its ratio, or would have ended within this `limit`."""
    try:
        bad = summary["quarantined"] + summary.get("unaccepted", summary["already_quarantined"])
        most = max(limit, summary.get("allowed_bad_ratio") or 0.0)
        return bool(summary["run_id"] and bad <= most * summary["inputs"])
    except (KeyError, TypeError):
        return False
