"""What a job computes in, settled before its cache is opened: as asked, as cached, or measured."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.extraction import calibration, network_process
from framebank.features.extraction.precision import Settled, measured, settle
from framebank.features.network import int8
from framebank.features.network.weights import Weights
from framebank.features.spec import AUTO, INT8, FeatureSpec
from framebank.features.stores import storage
from framebank.features.terminal import say
from framebank.features.video import VideoRef
from framebank.pipelines.extract import cache_access
from framebank.pipelines.extract.targets import Target


class Computing(NamedTuple):
    """The spec as it came to be, what its network is made of (of int8 its quantised graph), and how
    that was settled; None where it was simply asked for."""

    spec: FeatureSpec
    weights: Weights
    settled: Settled | None


def settle_precision(
    args: argparse.Namespace,
    target: Target,
    spec: FeatureSpec,
    weights: Weights,
    refs: Sequence[VideoRef],
    policy: DecoderPolicy,
    *,
    measures: bool,
    elsewhere: bool,
    keep: bool = False,
) -> Computing:
    """Return what a job computes in for a cache, whose input is `refs`.

    A cache has its own. Of a new one auto is measured here, and int8 calibrated, unless nothing
    `measures` (an int8 then has no graph yet); workers `elsewhere` have processors that nobody here
    knows. With `keep` what was measured is kept for the network of this process.
    """
    asked = target.choice.precision
    if asked not in (AUTO, INT8) or spec.holds_pictures:
        return Computing(spec, weights, None)
    cached = cache_access.computed_in(target.cache, spec) if target.cache else None
    if cached is not None and cached.quantised is not None:
        graph = int8.find_graph(storage.absolute(str(target.cache)), cached)
        return Computing(cached, graph, calibration.settled(graph))
    of = f" of {target.name}" if target.name else ""
    if asked == INT8:
        # In a cache of another precision it is refused, which need not wait for a calibration.
        if cached is not None or not measures:
            return Computing(spec, weights, None)
        told = f"calibrating int8{of} with frames of the input, once for a cache: some 10 s"
        spec, graph = calibration.calibrate(
            spec,
            weights,
            refs,
            policy,
            process=network_process.to_quantise,
            batch_size=args.batch_size,
            on_work=lambda: say(told),
        )
        settled = calibration.settled(graph)
        say(f"--precision{of} {settled.why}")
        return Computing(spec, graph, settled)
    if cached is not None:
        settled = Settled(cached.precision, f"{cached.precision}, as the cache has it")
    elif elsewhere:
        why = "the workers' processors are not this one's; name what all of them compute in"
        settled = Settled("float32", why)
    elif not measures:
        settled = Settled("float32", "nothing was measured")
    else:
        process = network_process.serving()
        measure = functools.partial(measured, keep=keep) if process is None else process.settle
        measure = functools.partial(measure, batch_size=args.batch_size)
        settled = settle(spec, weights, refs, policy, measure=measure)
        say(f"--precision auto{of} is {settled.precision} ({settled.why})")
    return Computing(dataclasses.replace(spec, precision=settled.precision), weights, settled)
