"""A cache that an extraction holds: what was found in it, and what it lacks."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from typing import Any

from framebank.features.extraction.precision import Settled
from framebank.features.network.int8 import publish_graph
from framebank.features.network.weights import Weights
from framebank.features.spec import FeatureSpec
from framebank.features.stores import temporary
from framebank.features.terminal import say
from framebank.pipelines.extract import cache_access
from framebank.pipelines.extract.cache_access import Recovery
from framebank.pipelines.extract.plan import Todo, drop_done, unaccepted_runs
from framebank.pipelines.extract.settling import Computing
from framebank.pipelines.extract.targets import Target
from framebank.pipelines.inputs.listing import InputListing


@dataclasses.dataclass(frozen=True)
class Work:
    """A cache that is held, what was found in it, and what it lacks."""

    target: Target
    cache: str
    spec: FeatureSpec
    weights: Weights
    settled: Settled | None
    before: Recovery
    todo: Todo


def open_work(
    args: argparse.Namespace,
    listing: InputListing,
    target: Target,
    computing: Computing,
    *,
    held: contextlib.ExitStack,
    dry_run: bool,
) -> Work:
    """Open a cache, which `held` closes, and take stock of it."""
    opening = cache_access.open_for_extraction(str(target.cache), computing.spec, dry_run=dry_run)
    cache = held.enter_context(opening)
    spec, weights, settled = computing
    if spec.quantised is not None and not dry_run:
        weights = publish_graph(weights, cache)
    before = cache_access.recover(cache, spec, dry_run=True) if dry_run else _tidy(cache, spec)
    todo = _find_todo(args, listing, before, cache, spec)
    return Work(target, cache, spec, weights, settled, before, todo)


def nothing_done(work: Work, listing: InputListing) -> dict[str, Any]:
    return {
        "done": 0,
        "quarantined": 0,
        "inputs": len(listing.refs),
        "already_done": work.todo.already_done,
        "already_quarantined": work.todo.already_quarantined,
    }


def _find_todo(
    args: argparse.Namespace, listing: InputListing, before: Recovery, cache: str, spec: FeatureSpec
) -> Todo:
    todo = drop_done(
        listing.refs,
        before.known,
        fingerprint=spec.fingerprint,
        retry_quarantined=args.retry_quarantined,
        lost=before.lost,
    )
    unaccepted, judged_runs = unaccepted_runs(
        cache,
        todo.quarantined_by_run,
        limit=args.max_bad_ratio,
        whole=before.known.quarantined_by_run(),
    )
    return dataclasses.replace(todo, unaccepted=unaccepted, judged_runs=tuple(judged_runs))


def _tidy(cache: str, spec: FeatureSpec) -> Recovery:
    """Clear up after an interrupted run, mend what can be; return what there is."""
    temporary.remove_dead()  # here too: a run with nothing to do makes no folder of its own
    found = cache_access.recover(cache, spec)
    for what in found.removed:
        say(f"removed {what}")
    if found.shards:
        say(f"kept {found.videos} videos in {found.shards} shards of an interrupted run")
    if leftovers := cache_access.remove_leftovers(cache):
        say(f"removed {leftovers} files that an interrupted run left unfinished")
    if found.lost:
        say(
            f"the features of {len(found.lost)} videos are missing or damaged; those of them that "
            "are in the input are extracted again (`framebank verify` names the shards)"
        )
    return found


def say_repaired(cache: str, before: Recovery) -> None:
    """Take damaged shards away whose videos were made anew, and say how far that went."""
    left = cache_access.remove_lost_shards(cache, before)
    if left:
        say(
            f"{len(left)} damaged shards stay, for some of their videos are not in this input: "
            f"{', '.join(left[:3])}"
        )
    elif before.lost:
        say(f"repaired: the {len(before.lost)} videos were extracted again")
