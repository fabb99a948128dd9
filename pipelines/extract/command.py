"""Decode videos, run a frozen network over the frames that a rule picks, keep the features.

    framebank extract clips/ --cache cache --sample fps=2 --weights imagenet

INPUT is any mix of files, folders (walked), globs, gs://bucket/prefixes and manifests (.csv,
.jsonl, .parquet with a column `uri`). Run the same command again to go on after a crash, to add
new videos or to redo changed ones: what is done is never decoded again. Options of Apache Beam are
passed on (--runner PrismRunner, FlinkRunner, DataflowRunner...). Exit status: 0 when every video
is done or quarantined, 1 when the job failed, 2 for a mistake in the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

from framebank.features.cache.sidecar import utc_now
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoders.sandbox import confinement_here
from framebank.features.decoding.container import DecodeLimits
from framebank.features.decoding.request import CHECKS
from framebank.features.decoding.sampling import parse_rule
from framebank.features.errors import UsageError
from framebank.features.extraction.balance import Balance
from framebank.features.extraction.one_clip import feature_width, make_spec
from framebank.features.extraction.precision import Settled, settle
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
from framebank.features.stores import temporary
from framebank.features.terminal import say
from framebank.pipelines.extract import cache_access
from framebank.pipelines.extract.cache_access import Recovery
from framebank.pipelines.extract.job import Extraction
from framebank.pipelines.extract.plan import (
    ExtractConfig,
    RunFacts,
    Todo,
    check_bad_ratio,
    drop_done,
    plan_shards,
    unaccepted_runs,
)
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
    add("--backbone", default=choice.backbone, metavar="NAME|PATH",
        help="see README.md for the table; or a .keras file, an .onnx file, the folder of a"
             " KerasHub preset; pixels[:SIZE] keeps the frames")  # fmt: skip
    add("--layer", help="any named layer (default: the backbone's own)")
    add("--weights", default=choice.weights, help="imagenet | PATH | random:SEED")
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
        help="N, whatever they take (default: up to 64, about half a minute of work)")  # fmt: skip
    add("--allow-partial", action="store_true", help="keep what a damaged clip still gives, marked")
    add("--check", default=defaults.check, choices=CHECKS,
        help="decode, and so check, each clip wholly, or (sampled) only what the sampled frames"
             " need: the same rows, sooner; damage elsewhere is not seen")  # fmt: skip
    add("--strict", action="store_true", help="refuse a whole clip that ends before its stated end")
    add("--retry-quarantined", action="store_true", help="try quarantined videos again")
    add("--max-bad-ratio", type=float, default=0.2, help="fail when more than this is quarantined")
    add("--batch-size", type=int, default=32, help="frames a batch")
    add("--decoders", type=int, metavar="N",
        help="decoder processes of a worker (default: as cores and memory allow)")  # fmt: skip
    add("--decode-timeout", type=float, default=defaults.timeout_s, metavar="SECONDS",
        help="a decoder silent for that long hangs; the whole clip may take that, and as much"
             " again for each 10 MiB")  # fmt: skip
    add("--max-pixels", type=int, default=defaults.limits.max_pixels, help="of one frame")
    add("--json", action="store_true", help="print the run's summary as JSON")
    gate.add_engine_arguments(parser)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Extract, print the summary and return the exit status."""

    def show(summary: dict[str, Any]) -> None:
        print(json.dumps(summary) if args.json else "\n".join(_summary_lines(args, summary)))

    execute(args, beam_args, show=show)
    return 0


def execute(
    args: argparse.Namespace,
    beam_args: list[str],
    *,
    show: Callable[[dict[str, Any]], None] = lambda summary: None,
) -> dict[str, Any] | None:
    """Extract; return the run's summary, None for a job that was submitted and nobody waits for.

    `show` gets the summary before it is judged. Raises UsageError, JobError.
    """
    check_numbers(args)
    parse_rule(
        args.sample or "all"
    )  # a slip of the pen is told before anything is listed or fetched
    submission = gate.prepare(
        args,
        beam_args,
        places={"INPUT": args.inputs, "--cache": [args.cache]},
        cache=args.cache,
    )
    listing = expand_inputs(args.inputs, images=args.images, cache=args.cache)
    say_listing(listing)
    if submission.workers_elsewhere and not args.shared_disk:
        gate.check_remote("a video of a manifest", (ref.uri for ref in listing.refs))
    spec, weights = make_spec(SpecChoice.of(args))
    unsure = args.layer is not None or is_own(spec.backbone)
    if unsure and not cache_access.was_made_by(args.cache, spec):
        feature_width(spec, weights)
        unsure = False
    if spec.random_weights:
        say(f"the network has RANDOM weights ({spec.weights}): good for trying things out only")
    dry_run = submission.dry_run
    spec, settled = settle_precision(
        args,
        spec,
        weights,
        listing,
        measures=not dry_run,
        elsewhere=submission.workers_elsewhere,
        keep=submission.in_process,
    )
    with cache_access.open_for_extraction(args.cache, spec, dry_run=dry_run) as cache:
        before = cache_access.recover(cache, spec, dry_run=True) if dry_run else _tidy(cache, spec)
        todo = _find_todo(args, listing, before, cache, spec)
        run_id = cache_access.new_run_id(before.known.latest_run())
        config = ExtractConfig(cache, run_id, spec, weights, decoder_policy(args), args.batch_size)
        summary: dict[str, Any] | None = {
            "done": 0,
            "quarantined": 0,
            "inputs": len(listing.refs),
            "already_done": todo.already_done,
            "already_quarantined": todo.already_quarantined,
        }
        if todo.refs:
            if unsure:  # late, for it takes seconds that a run with nothing to do need not wait
                feature_width(spec, weights)
            job = _extraction(args, submission, listing, before, todo, config, settled)
            summary = job.run()
        if summary is None:  # submitted, and nobody waits
            return None
        if not dry_run:
            _say_repaired(cache, before)
        show(summary)
        bad = summary["quarantined"] + todo.unaccepted
        check_bad_ratio(bad, summary["inputs"], limit=args.max_bad_ratio, cache=args.cache)
        return summary


def settle_precision(
    args: argparse.Namespace,
    spec: FeatureSpec,
    weights: Weights,
    listing: InputListing,
    *,
    measures: bool,
    elsewhere: bool,
    keep: bool = False,
) -> tuple[FeatureSpec, Settled | None]:
    """Return the spec with the precision that an "auto" comes to, and how; None of any other.

    A cache has its own. Of a new one it is measured here, unless nothing `measures`; workers
    `elsewhere` have processors that nobody here knows.
    """
    if args.precision != AUTO or spec.holds_pictures:
        return spec, None
    cached = args.cache and cache_access.made_in(args.cache, spec)
    if cached:
        settled = Settled(cached, f"{cached}, as the cache has it")
    elif elsewhere:
        why = (
            "the workers' processors are not this one's; name another if all of them compute in it"
        )
        settled = Settled("float32", why)
    elif not measures:
        settled = Settled("float32", "nothing was measured")
    else:
        settled = settle(
            spec, weights, listing.refs, decoder_policy(args), batch_size=args.batch_size, keep=keep
        )
        say(f"--precision auto is {settled.precision} ({settled.why})")
    return dataclasses.replace(spec, precision=settled.precision), settled


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


def _extraction(
    args: argparse.Namespace,
    submission: Submission,
    listing: InputListing,
    before: Recovery,
    todo: Todo,
    config: ExtractConfig,
    settled: Settled | None,
) -> Extraction:
    shards = plan_shards(
        todo.refs, fingerprint=config.spec.fingerprint, videos_per_shard=args.videos_per_shard
    )
    decoders = "what decoders are shut in by stands in the workers' logs"
    facts = RunFacts(
        inputs=len(listing.refs),
        already_done=todo.already_done,
        already_quarantined=todo.already_quarantined,
        to_extract=len(todo.refs),
        shards_planned=len(shards),
        recovered=before.videos,
        skipped_by_suffix=dict(listing.skipped_by_suffix),
        started=utc_now(),
        weights_path=config.weights.kept_at,
        command=shlex.join(getattr(args, "typed", sys.argv)),
        runner=submission.runner,
        # Where somebody waits, `execute` judges it, with the runs before.
        max_bad_ratio=None if submission.waits else args.max_bad_ratio,
        allowed_bad_ratio=args.max_bad_ratio,
        unaccepted=todo.unaccepted,
        judged_runs=todo.judged_runs,
        decoders=decoders if submission.workers_elsewhere else confinement_here().line(),
        precision={} if settled is None else dataclasses.asdict(settled),
    )
    return Extraction(submission, config, facts, shards)


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


def _say_repaired(cache: str, before: Recovery) -> None:
    """Take damaged shards away whose videos were made anew, and say how far that went."""
    left = cache_access.remove_lost_shards(cache, before)
    if left:
        say(
            f"{len(left)} damaged shards stay, for some of their videos are not in this input: "
            f"{', '.join(left[:3])}"
        )
    elif before.lost:
        say(f"repaired: the {len(before.lost)} videos were extracted again")


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
        say(f"left alone in folders, by suffix: {by_suffix(skipped)}")


def _summary_lines(args: argparse.Namespace, summary: dict[str, Any]) -> Iterator[str]:
    done, quarantined = summary["already_done"], summary["already_quarantined"]
    if "frames" not in summary:
        yield (
            f"nothing to do: of {summary['inputs']} videos {done} are done and {quarantined} "
            "quarantined; nothing was decoded or written"
        )
        return
    yield (
        f"{summary['inputs']} videos: {summary['done']} done, {summary['quarantined']} quarantined,"
        f" {done + quarantined} from earlier runs"
    )
    yield (
        f"{summary['frames']} frames, {summary['bytes'] / 2**20:.1f} MiB in {summary['shards']} "
        f"shards of {args.cache}"
    )
    if summary["random_weights"]:
        yield f"  made with RANDOM weights ({summary['spec']['weights']})"
    if settled := summary["precision"]:
        yield f"  computed in {settled['precision']} (--precision auto: {settled['why']})"
    for name, count in summary["quarantined_by_class"].items():
        yield f"  quarantined as {name}: {count}"
    if summary["partial"]:
        yield f"  {summary['partial']} stored in part (--allow-partial)"
    if summary["capped"]:
        yield f"  {summary['capped']} cut off by --max-frames"
    if args.check == "sampled":
        yield (
            f"  {summary['sampled']} decoded, and so checked, only where rows needed it; the others"
            " wholly (--check sampled)"
        )
    yield from _balance_lines(args, summary)


def _balance_lines(args: argparse.Namespace, summary: dict[str, Any]) -> Iterator[str]:
    balance = Balance.from_json(summary["balance"])
    if balance.seen:
        yield f"  {balance.seen} of {balance.pictures} pictures seen before, not computed again"
    if balance.bound():
        tried = {f"--check {args.check}"}
        if summary["precision"] or summary["spec"]["precision"] != "float32":  # measured, or chosen
            tried.add("--precision bfloat16")
        yield f"  {balance.line()}; what would help: {balance.advice(tried=tried)}"
