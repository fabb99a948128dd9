"""`framebank evaluate`: how good a model is, beside what it must beat, as one page.

    framebank evaluate --model DIR --cache CACHE --questions FILE... [--out DIR]

A thousand questions take some seconds; baselines that the model's folder has no figures of for this
data are trained under the model's own budget first. OUT gets report.html, one file that opens
without a network, and evaluation.json with every number. Judges open answers and yes/no; questions
of other kinds are refused by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from features import storage
from features.errors import UsageError
from features.questions_command import add_format_arguments

_SPLITS = ("train", "val", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help="the folder that `framebank train` wrote")
    add("--cache", required=True, help="the feature cache")
    add("--questions", required=True, nargs="+", action="extend", metavar="FILE",
        help="question files, the training questions among them for the baselines")  # fmt: skip
    add_format_arguments(parser)
    add("--split", choices=_SPLITS, help="(default test, where there is none val)")
    add("--out", metavar="DIR", help="(default: the model's folder with -evaluation at its end)")
    add("--examples", type=int, default=12, metavar="N",
        help="clips to show of the best and as many of the worst (12)")  # fmt: skip
    add("--max-unmatched-ratio", type=float, default=0.2, metavar="X",
        help="the share of questions that may lack a video in the cache (0.2)")  # fmt: skip
    add("--no-baselines", action="store_true", help="train nothing beside the model")
    add("--json", action="store_true", help="print evaluation.json")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Evaluate; return the exit status (130 after Ctrl-C). Raises FramebankError."""
    if beam_args:
        raise UsageError("unknown option", got=" ".join(beam_args))
    if args.examples < 0:
        raise UsageError("--examples is negative", got=args.examples)
    if not 0 <= args.max_unmatched_ratio <= 1:
        raise UsageError("--max-unmatched-ratio must be between 0 and 1")
    from features.cache import open_cache
    from features.quiet import import_tensorflow

    cache = open_cache(args.cache)
    out = Path(args.out or args.model.rstrip("/") + "-evaluation")
    import_tensorflow()
    from train.evaluating import EvaluateJob, evaluate
    from train.report_page import write_report
    from train.stopping import TrainingStopped, stop_on_signals

    job = EvaluateJob(
        model=args.model,
        questions=tuple(args.questions),
        out=out,
        split=args.split,
        set_name=args.format,
        mapping=args.mapping,
        with_baselines=not args.no_baselines,
        max_unmatched_ratio=args.max_unmatched_ratio,
    )
    with stop_on_signals() as stop:
        stop.listen()
        try:
            judged = evaluate(job, cache, stop=stop, say=_say)
        except TrainingStopped as stopped:
            _say(f"{stopped}; give the same command again to go on")
            return stopped.exit_status
    text = json.dumps(judged.figures, indent=2, ensure_ascii=False) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    data = text.encode("utf-8", "backslashreplace")
    storage.write_atomic(str(out / "evaluation.json"), data)
    page = write_report(out, judged, cache, model_dir=args.model, examples=args.examples)
    figures = judged.figures
    low, high = figures["interval"]
    print(
        text
        if args.json
        else f"accuracy {figures['accuracy']:.1%} ({low:.1%} to {high:.1%}) on "
        f"{figures['judged']} questions about {figures['videos']} videos of {figures['split']}"
    )
    _say(f"the report is {page}")
    return 0


def _say(text: str) -> None:
    print(f"evaluate: {text}", file=sys.stderr, flush=True)
