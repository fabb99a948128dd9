"""Decode videos, run a frozen network over the frames that a rule picks, keep the features.

    framebank extract clips/ --cache cache --sample fps=2 --weights imagenet

INPUT is any mix of files, folders (walked), globs, gs://bucket/prefixes and manifests (.csv,
.jsonl, .parquet with a column `uri`). Run the same command again to go on after a crash, to add
new videos or to redo changed ones: what is done is never decoded again. With several --backbone
each gets a cache of its own, CACHE/NAME, and each video is decoded once for all. Options of Apache
Beam are passed on (--runner PrismRunner, FlinkRunner, DataflowRunner...). Exit status: 0 when every
video is done or quarantined, 1 when the job failed, 2 for a mistake in the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from framebank.features import threads
from framebank.features.cache.catalog import spare_pandas
from framebank.features.cache.sidecar import utc_now
from framebank.features.commands.command_line import Collect
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoders.sandbox import confinement_here
from framebank.features.decoding.container import DecodeLimits
from framebank.features.decoding.request import CHECKS
from framebank.features.decoding.sampling import parse_rule
from framebank.features.errors import UsageError
from framebank.features.extraction import network_process
from framebank.features.extraction.one_clip import feature_width, make_spec
from framebank.features.network.own_files import is_own
from framebank.features.network.preprocessing import NAMES
from framebank.features.network.weights import Weights
from framebank.features.spec import (
    AUTO,
    DTYPES,
    PICTURE_DTYPES,
    PRECISIONS,
    RESIZES,
    FeatureSpec,
    SpecChoice,
)
from framebank.features.terminal import say
from framebank.pipelines.extract import cache_access
from framebank.pipelines.extract.groups import plan_groups
from framebank.pipelines.extract.job import Extraction
from framebank.pipelines.extract.plan import (
    ExtractConfig,
    RunFacts,
    check_bad_ratio,
)
from framebank.pipelines.extract.settling import settle_precision
from framebank.pipelines.extract.summary import Ended, result_of, summary_lines
from framebank.pipelines.extract.targets import Target, check_same_frames, find_targets
from framebank.pipelines.extract.works import Work, nothing_done, open_work, say_repaired
from framebank.pipelines.inputs.listing import InputListing, by_suffix, expand_inputs
from framebank.pipelines.runners import gate
from framebank.pipelines.runners.gate import Submission


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `framebank extract` takes."""
    defaults, choice = DecoderPolicy(), SpecChoice()
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="file, folder, glob, gs:// prefix or manifest")
    add("--cache", required=True, help="folder or gs:// prefix that holds the features")
    add("--sample", default=choice.sample, metavar="RULE",
        help="fps=R | uniform=N | every=K | all | keyframes (default fps=1; c3d: all)")  # fmt: skip
    add("--max-frames", type=int, metavar="M", help="at most M rows a video (default: all)")
    add("--backbone", default=choice.backbone, action=Collect, metavar="NAME|PATH",
        help="inception_v3, resnet50, vgg16, vgg19, xception, mobilenet_v2, resnet50_v2 or c3d; or"
             " a .keras file, an .onnx file, the folder of a KerasHub preset; pixels[:SIZE] keeps"
             " the frames; given several times, each gets its cache CACHE/NAME")  # fmt: skip
    add("--layer", action=Collect,
        help="any named layer (default: the backbone's own); of one of several networks:"
             " NAME=LAYER")  # fmt: skip
    add("--weights", default=choice.weights, action=Collect,
        help="imagenet | PATH | random:SEED; of one of several networks: NAME=PATH")  # fmt: skip
    add("--preprocess", choices=NAMES,
        help="what a network from a file wants done to pixels, if it does not say")  # fmt: skip
    add("--input-size", type=int, metavar="N",
        help="the side of its pictures, where the file takes any")  # fmt: skip
    add("--dtype", default=choice.dtype, choices=(*DTYPES, *PICTURE_DTYPES),
        help="how features are stored (default: float16, of pixels jpeg)")  # fmt: skip
    add("--resize", default=choice.resize, choices=RESIZES,
        help="how frames get the network's size (default: stretch, of c3d 128x171)")  # fmt: skip
    add("--precision", default=choice.precision, choices=(*PRECISIONS, AUTO),
        help="what the network computes in; auto is what the cache has, and in a new one bfloat16"
             " where that is faster here and all but the same")  # fmt: skip
    add("--images", action="store_true", help="take still pictures from folders too")
    add("--videos-per-shard", type=int, metavar="N",
        help="this many each (default: up to 64, about half a minute of work)")  # fmt: skip
    add("--allow-partial", action="store_true", help="keep what a damaged clip still gives, marked")
    add("--check", default=defaults.check, choices=CHECKS,
        help="decode, and so check, each clip wholly, or (sampled) only what the sampled frames"
             " need: the same rows, sooner; damage elsewhere is not seen")  # fmt: skip
    add("--strict", action="store_true", help="refuse a whole clip that ends before its stated end")
    add("--retry-quarantined", action="store_true", help="try quarantined videos again")
    add("--max-bad-ratio", type=float, default=0.2, help="fail when more than this is quarantined")
    add("--batch-size", type=int, default=32, help="frames in a batch of the network")
    add("--decoders", type=int, metavar="N",
        help="decoder processes of a worker (default: as cores and memory allow)")  # fmt: skip
    add("--decode-timeout", type=float, default=defaults.timeout_s, metavar="SECONDS",
        help="stop a decoder that says nothing for so long; a whole clip may take that long, and"
             " as much again for each 10 MiB")  # fmt: skip
    add("--max-pixels", type=int, default=defaults.limits.max_pixels,
        help="the most pixels of one frame")  # fmt: skip
    add("--json", action="store_true", help="print the run's summary as JSON")
    gate.add_engine_arguments(parser)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Extract, print the summary and return the exit status."""

    def show(ended: Sequence[Ended]) -> None:
        if args.json:
            print(json.dumps(result_of(ended)))
        else:
            print(
                "\n".join(line for one in ended for line in summary_lines(*one, check=args.check))
            )

    args.is_over = execute(args, beam_args, show=show) is not None
    return 0


def next_command(args: argparse.Namespace) -> str | None:
    if not args.is_over:  # submitted, and nobody waits
        return None
    first = find_targets(args)[0]
    words = ["framebank", "train", "--cache", first.cache or args.cache, "--questions", "FILE"]
    return shlex.join([*words, "--model", "model"])


def execute(
    args: argparse.Namespace,
    beam_args: list[str],
    *,
    show: Callable[[Sequence[Ended]], None] = lambda ended: None,
) -> dict[str, Any] | None:
    """Extract; return the run's summary, with several backbones that of each by its name; None for
    a job that was submitted and nobody waits for.

    `show` gets the summaries before they are judged. Raises UsageError, JobError.
    """
    spare_pandas()
    check_numbers(args)
    # A slip of the pen is told before anything is listed or fetched.
    parse_rule(args.sample or "all")
    targets = find_targets(args)
    submission = gate.prepare(
        args,
        beam_args,
        places={"INPUT": args.inputs, "--cache": [args.cache]},
        cache=args.cache,
    )
    dry_run = submission.dry_run
    computes_here = submission.in_process and not dry_run
    with contextlib.ExitStack() as held:
        soon = computes_here and any(cache_access.is_new(str(one.cache)) for one in targets)
        if soon:  # what takes longest begins first, and waits for none of the rest
            network_process.begin(held, [target.choice for target in targets])
        listing = expand_inputs(args.inputs, images=args.images, cache=args.cache)
        say_listing(listing)
        if submission.workers_elsewhere and not args.shared_disk:
            gate.check_remote("a video of a manifest", (ref.uri for ref in listing.refs))
        if soon:
            threads.begin(submission.import_beam)  # whoever needs Beam waits for that import
        made = [make_spec(target.choice) for target in targets]
        check_same_frames([spec for spec, _ in made])
        unsure = [_is_unsure(target, *how) for target, how in zip(targets, made, strict=True)]
        for target, (spec, _) in zip(targets, made, strict=True):
            if spec.random_weights:
                whose = f"the network {target.name}".strip()
                say(f"{whose} has RANDOM weights ({spec.weights}): good for trying things out only")
        computing = [
            settle_precision(
                args,
                target,
                spec,
                weights,
                listing.refs,
                decoder_policy(args),
                measures=not dry_run,
                elsewhere=submission.workers_elsewhere,
                keep=submission.in_process,
            )
            for target, (spec, weights) in zip(targets, made, strict=True)
        ]
        works = [
            open_work(args, listing, target, chosen, held=held, dry_run=dry_run)
            for target, chosen in zip(targets, computing, strict=True)
        ]
        summaries = {work.cache: nothing_done(work, listing) for work in works}
        if lacking := [work for work in works if work.todo.refs]:
            if computes_here:
                network_process.begin(held, [work.spec for work in lacking])
                _prepare(lacking, args.batch_size)
            for work, late in zip(works, unsure, strict=True):
                if late and work.todo.refs:  # seconds that a run with nothing to do need not wait
                    feature_width(work.spec, work.weights)
            ended = _extraction(args, submission, listing, lacking).run()
            if ended is None:  # submitted, and nobody waits
                return None
            summaries |= {work.cache: summary for work, summary in zip(lacking, ended, strict=True)}
        if not dry_run:
            for work in works:
                say_repaired(work.cache, work.before)
        found = [(work.target, summaries[work.cache]) for work in works]
        show(found)
        for work in works:
            summary = summaries[work.cache]
            bad = summary["quarantined"] + work.todo.unaccepted
            check_bad_ratio(bad, summary["inputs"], limit=args.max_bad_ratio, cache=work.cache)
        return result_of(found)


def _prepare(works: Sequence[Work], batch_size: int) -> None:
    if (process := network_process.serving()) is not None:
        for work in works:
            process.prepare(work.spec, work.weights, batch_size=batch_size)


def _is_unsure(target: Target, spec: FeatureSpec, weights: Weights) -> bool:
    """Tell whether the network is still to be looked at; of a new cache that is done at once."""
    if target.choice.layer is None and not is_own(spec.backbone):
        return False
    if cache_access.was_made_by(str(target.cache), spec):
        return True
    feature_width(spec, weights)
    return False


def _extraction(
    args: argparse.Namespace, submission: Submission, listing: InputListing, works: Sequence[Work]
) -> Extraction:
    shards = plan_groups(
        [work.todo.refs for work in works],
        fingerprints=[work.spec.fingerprint for work in works],
        videos_per_shard=args.videos_per_shard,
    )
    run_id = max(cache_access.new_run_id(work.before.known.latest_run()) for work in works)
    policy = decoder_policy(args)
    configs = [
        ExtractConfig(work.cache, run_id, work.spec, work.weights, policy, args.batch_size)
        for work in works
    ]
    facts = [
        _facts(args, submission, listing, work, shards_planned=len(planned))
        for work, planned in zip(works, shards, strict=True)
    ]
    return Extraction(submission, configs, facts, shards)


def _facts(
    args: argparse.Namespace,
    submission: Submission,
    listing: InputListing,
    work: Work,
    *,
    shards_planned: int,
) -> RunFacts:
    decoders = "how decoders are confined is said in the workers' logs"
    return RunFacts(
        inputs=len(listing.refs),
        already_done=work.todo.already_done,
        already_quarantined=work.todo.already_quarantined,
        to_extract=len(work.todo.refs),
        shards_planned=shards_planned,
        recovered=work.before.videos,
        skipped_by_suffix=dict(listing.skipped_by_suffix),
        started=utc_now(),
        weights_path=work.weights.kept_at,
        command=shlex.join(getattr(args, "typed", sys.argv)),
        runner=submission.runner,
        # Where somebody waits, `execute` judges it, with the runs before.
        max_bad_ratio=None if submission.waits else args.max_bad_ratio,
        allowed_bad_ratio=args.max_bad_ratio,
        unaccepted=work.todo.unaccepted,
        judged_runs=work.todo.judged_runs,
        decoders=decoders if submission.workers_elsewhere else confinement_here().line(),
        precision={} if work.settled is None else dataclasses.asdict(work.settled),
    )


def decoder_policy(args: argparse.Namespace) -> DecoderPolicy:
    return DecoderPolicy(
        decoders=args.decoders,
        timeout_s=args.decode_timeout,
        allow_partial=args.allow_partial,
        strict=args.strict,
        check=args.check,
        limits=dataclasses.replace(DecodeLimits(), max_pixels=args.max_pixels),
    )


def check_numbers(args: argparse.Namespace) -> None:
    limits = {
        "max_frames": (1, 10**9),
        "videos_per_shard": (1, 100_000),
        "batch_size": (1, 4096),
        "decoders": (1, 256),
        "decode_timeout": (0.1, 1e6),
        "max_pixels": (1, 2**31),
        "max_bad_ratio": (0.0, 1.0),
    }
    for name, (low, high) in limits.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} is out of range", got=value, expected=f"{low} to {high}")


def say_listing(listing: InputListing) -> None:
    for note in listing.notes:
        say(note)
    if skipped := listing.skipped_by_suffix:
        say(f"skipped in folders, by suffix: {by_suffix(skipped)}")
