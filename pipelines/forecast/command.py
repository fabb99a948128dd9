"""Say what an extraction will take before it is paid for: frames, bytes, hours and time.

    framebank plan clips/ --cache cache --sample fps=2 --runner DataflowRunner --max_num_workers 20

Takes the options of `framebank extract` and writes nothing. It lists the input, leaves out what the
cache holds already, looks into a sample of the clips (all of them up to --probes), measures this
machine for some seconds, and prints the numbers with their uncertainty and the command that does
it. With --prices FILE, which says what a worker on Dataflow costs, also time and price there. Takes
up to a minute, also for 100,000 clips. Exit status: 0, or 2 for a mistake in the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Sequence

from framebank.features.cache import layout
from framebank.features.decoding.sampling import parse_rule
from framebank.features.errors import UsageError
from framebank.features.extraction.one_clip import feature_width, make_spec
from framebank.features.machine import usable_cores
from framebank.features.network.own_files import is_own_path
from framebank.features.network.weights import Weights
from framebank.features.spec import INT8, FeatureSpec
from framebank.features.stores import storage
from framebank.features.terminal import say
from framebank.features.video import VideoRef
from framebank.pipelines.extract import cache_access, command
from framebank.pipelines.extract.groups import plan_groups
from framebank.pipelines.extract.plan import Todo, drop_done
from framebank.pipelines.extract.settling import settle_precision
from framebank.pipelines.extract.targets import Target, check_same_frames, find_targets
from framebank.pipelines.forecast import estimate, measuring, prices, report, survey
from framebank.pipelines.inputs.listing import expand_inputs
from framebank.pipelines.jobs import beam_options
from framebank.pipelines.runners.dataflow.machines import parse_accelerator

_OWN_OPTIONS = ("probes", "prices", "no_measure", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `framebank plan` takes: the options of extract, and a few of its own."""
    command.add_arguments(parser)
    for action in parser._actions:
        if action.dest == "cache":
            action.required = False
            action.help = "where the features will be, or are already in part"
        elif action.dest == "json":
            action.help = "print the plan as one JSON document"
    add = parser.add_argument
    add("--probes", type=int, default=estimate.MOST_PROBES, metavar="N",
        help="clips to look into, of more a sample")  # fmt: skip
    add("--no-measure", action="store_true", help="do not measure this machine: no time, no price")
    add("--prices", metavar="FILE",
        help="what a worker on Dataflow is, for time and price there: JSON with currency, "
        "worker_hour, vcpus, and with --accelerator frames_per_s")  # fmt: skip


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Plan, print the plan and return the exit status."""
    plan = execute(args, beam_args, spent_s=measuring.process_age_s())
    report.print_plan(plan, as_json=args.json)
    return 0


def execute(args: argparse.Namespace, beam_args: list[str], *, spent_s: float = 0.0) -> report.Plan:
    """Return the plan; `spent_s` is how long this process took to come here. Raises UsageError."""
    spent_s -= time.monotonic()
    command.check_numbers(args)
    if not 1 <= args.probes <= 100_000:
        raise UsageError("--probes is out of range", got=args.probes, expected="1 to 100000")
    parse_rule(
        args.sample or "all"
    )  # a slip of the pen is told before anything is listed or fetched
    if args.accelerator:
        parse_accelerator(args.accelerator)
    accelerated = args.accelerator is not None
    priced = prices.read_prices(args.prices, accelerated=accelerated) if args.prices else None
    workers = _workers(beam_args)
    listing = expand_inputs(args.inputs, images=args.images, cache=args.cache)
    command.say_listing(listing)
    targets = find_targets(args)
    specs: list[FeatureSpec] = []
    found: list[Weights] = []
    notes: list[str] = []
    for target in targets:
        spec, weights, told = _make_spec(target)
        spec, weights, settled = settle_precision(
            args,
            target,
            spec,
            weights,
            listing.refs,
            command.decoder_policy(args),
            measures=not args.no_measure and args.precision != INT8,
            elsewhere=_is_remote(beam_args),
        )
        notes += told
        of = f" of {target.name}" if target.name else ""
        if settled is not None:
            notes.append(f"--precision {args.precision}{of} is {settled.precision} ({settled.why})")
        elif spec.precision == INT8 and not (
            target.cache and cache_access.computed_in(target.cache, spec)  # which refuses it
        ):
            spec = dataclasses.replace(spec, precision="float32")
            notes.append(f"int8{of} is calibrated when it is extracted: times are those of float32")
        specs.append(spec)
        found.append(weights)
    check_same_frames(specs)
    if len(targets) > 1:
        notes.append(
            "each clip is decoded once for all networks; a cache each: "
            + ", ".join(target.cache or target.name for target in targets)
        )
    widths = [feature_width(spec, weights) for spec, weights in zip(specs, found, strict=True)]
    todos = [
        _left_to_do(args, listing.refs, target.cache, spec)
        for target, spec in zip(targets, specs, strict=True)
    ]
    todo = _of_any(todos, inputs=len(listing.refs))
    spent_s += time.monotonic()
    shards = plan_groups(
        [one.refs for one in todos],
        fingerprints=[spec.fingerprint for spec in specs],
        videos_per_shard=args.videos_per_shard,
    )
    policy = command.decoder_policy(args)
    outlook = survey.look(
        todo.refs, specs[0], policy, probes=args.probes, timed=not args.no_measure
    )
    load = measuring.load_of(
        outlook.forecast, shards=sum(map(len, shards)), batch_size=args.batch_size
    )
    measured = here_s = quote = None
    if not args.no_measure and outlook.forecast.total("pictures").value:
        say("measuring this machine, for some 20 s")
        measured = measuring.measure(
            specs[0],
            found[0],
            policy,
            batch_size=args.batch_size,
            clips=outlook.decodable,
            spent_s=spent_s,
            also=list(zip(specs, found, strict=True))[1:],
        )
        here_s = measuring.wall_s(measured, load, decoders=args.decoders or usable_cores())
        if priced is not None:
            quote = prices.quote(
                priced,
                load,
                frame_s=measured.frame_s,
                accelerated=accelerated,
                workers=workers or prices.WORKERS,
            )
    return report.Plan(
        inputs=len(listing.refs),
        todo=todo,
        outlook=outlook,
        specs=specs,
        widths=widths,
        load=load,
        measured=measured,
        here_s=here_s,
        quote=quote,
        priced=priced is not None,
        workers=workers,
        command=submission(args, beam_args),
        notes=(*notes, *_remarks(args, beam_args)),
    )


def submission(args: argparse.Namespace, beam_args: Sequence[str]) -> list[str]:
    """Return the words of the extract command that this plan is of."""
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    words = ["framebank", "extract", *args.inputs]
    for action in parser._actions:
        value = getattr(args, action.dest)
        if action.dest in ("inputs", *_OWN_OPTIONS) or value == action.default:
            continue
        option = action.option_strings[0]
        for one in value if isinstance(value, list) else [value]:
            words += [option] if action.nargs == 0 else [option, str(one)]
    if args.cache is None:
        words += ["--cache", "CACHE"]
    return [*words, *beam_args]


def _remarks(args: argparse.Namespace, beam_args: Sequence[str]) -> Iterator[str]:
    """Yield what stands in the way of the command as it is."""
    if args.cache is None:
        yield "no --cache: what may be done already was not looked for"
    if _is_remote(beam_args) and any(
        map(storage.is_local, filter(None, [*args.inputs, args.cache]))
    ):
        yield "Dataflow's workers do not see paths of this machine: clips and cache go to a bucket"


def _is_remote(beam_args: Sequence[str]) -> bool:
    return "dataflow" in (beam_options.runner_word(beam_args) or "").lower()


def _workers(beam_args: Sequence[str]) -> int | None:
    """Return how many workers Beam's options start at most, None where they do not say."""
    if not beam_args:  # Beam need not be imported
        return None
    from apache_beam.options.pipeline_options import WorkerOptions

    options = beam_options.build_options(beam_args, runner=beam_options.LOCAL_RUNNER)
    chosen = options.view_as(WorkerOptions)
    started = max(prices.WORKERS, chosen.num_workers) if chosen.num_workers else None
    return chosen.max_num_workers or started


def _of_any(todos: Sequence[Todo], *, inputs: int) -> Todo:
    """Return what any of the caches lacks; what none lacks is done in all, or in quarantine."""
    if len(todos) == 1:
        return todos[0]
    refs = {ref.video_id: ref for todo in todos for ref in todo.refs}
    done = min(min(todo.already_done for todo in todos), inputs - len(refs))
    return Todo(tuple(refs.values()), done, inputs - len(refs) - done)


def _make_spec(target: Target) -> tuple[FeatureSpec, Weights, list[str]]:
    """Return the spec and weights; where the weights cannot be had, random ones cost the same."""
    choice = target.choice
    try:
        return *make_spec(choice), []
    except UsageError as error:
        if choice.weights != "imagenet" or is_own_path(choice.backbone):
            raise
        # Any other mistake is one for these too.
        spec, weights = make_spec(dataclasses.replace(choice, weights="random:0"))
        note = f"{error.what} ({error.got}): measured with random ones, which cost the same"
    cached = layout.read_spec(storage.absolute(target.cache)) if target.cache else None
    known = cached.weights_sha256 if cached and cached.weights == "imagenet" else "unknown"
    return dataclasses.replace(spec, weights="imagenet", weights_sha256=known), weights, [note]


def _left_to_do(
    args: argparse.Namespace, refs: Sequence[VideoRef], cache: str | None, spec: FeatureSpec
) -> Todo:
    """Return what a run would extract now; nothing is written, made or locked.

    Raises UsageError and SpecMismatchError for a cache that extraction would refuse too.
    """
    if cache is None:
        return Todo(tuple(refs), 0, 0)
    with cache_access.open_for_extraction(cache, spec, dry_run=True) as place:
        stock = cache_access.recover(place, spec, dry_run=True)
    return drop_done(
        refs,
        stock.known,
        fingerprint=spec.fingerprint,
        retry_quarantined=args.retry_quarantined,
        lost=stock.lost,
    )
