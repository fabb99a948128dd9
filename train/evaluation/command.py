"""`framebank evaluate`: how good a model is, beside what it must beat, as one page.

    framebank evaluate --model DIR --cache CACHE --questions FILE... [--out DIR]

Ten thousand questions take some seconds; trained baselines whose answers to these questions are not
in the model's folder (judged.jsonl) are trained under the model's own budget first. OUT gets
report.html, one file that opens without a network, and evaluation.json with every number. A model
that answers or chooses is judged by its accuracy, one that counts by its mean square error, one
that finds segments as ActivityNet's evaluation does.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framebank.features import terminal
from framebank.features.bounds import MOST_INT, check_number
from framebank.features.errors import JobError, UsageError
from framebank.features.questions.command import add_format_arguments
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.splits import SPLITS
from framebank.features.stop_signals import TrainingStopped, stop_on_signals
from framebank.features.stores import storage
from framebank.train.tracking.trackers import add_track_argument, tracked

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache
    from framebank.train.evaluation.evaluating import Detected, Judged

_FACTS = ("model", "split", "measure", "questions_sha256", "weights")  # that trackers are told
_say = functools.partial(terminal.say, who="evaluate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help="the folder that `framebank train` wrote")
    add("--cache", required=True, help="the feature cache")
    add("--labels", "--questions", required=True, nargs="+", action="extend", metavar="FILE",
        dest="questions",
        help="question files, the training questions among them for the baselines")  # fmt: skip
    add_format_arguments(parser)
    add("--split", choices=SPLITS,
        help="(default test, where there is none val; for a model of a registry all questions "
        "about videos that it has not seen)")  # fmt: skip
    add("--out", metavar="DIR", help="(default: the model's folder with -evaluation at its end)")
    add("--examples", type=int, default=12, metavar="N",
        help="clips to show of the best and as many of the worst (12)")  # fmt: skip
    add("--max-unmatched-ratio", type=float, default=0.2, metavar="X",
        help="the share of questions that may lack a video in the cache (0.2)")  # fmt: skip
    add_track_argument(parser)
    add("--no-baselines", action="store_true", help="train nothing beside the model")
    add("--json", action="store_true", help="print evaluation.json")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Evaluate; return the exit status. Raises FramebankError, TrainingStopped."""
    figures = execute(args, beam_args)
    from framebank.train.evaluation.report import summary
    from framebank.train.evaluation.segment_page import segment_summary

    told = segment_summary if "average_map" in figures else summary
    print(_text(figures) if args.json else "\n".join(told(figures)))
    return 0


def next_command(args: argparse.Namespace) -> str:
    words = ["framebank", "score", "--model", args.model, "--cache", args.cache]
    return shlex.join([*words, "--questions", "FILE", "--out", "answers"])


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Evaluate; return what evaluation.json has. Raises FramebankError, TrainingStopped."""
    check_number("--examples", args.examples, 0, MOST_INT)
    check_number("--max-unmatched-ratio", args.max_unmatched_ratio, 0, 1)
    from framebank.features.asking.trained_model import read_lineage
    from framebank.features.cache.reader import open_cache
    from framebank.features.tensorflow_import import import_tensorflow

    track = tracked(args, kind="evaluate", say=_say)
    out = _out_folder(args.out or args.model.rstrip("/") + "-evaluation")
    cache = open_cache(args.cache)
    read_lineage(args.model)
    import_tensorflow()
    from framebank.train.evaluation.evaluating import EvaluateJob, evaluate
    from framebank.train.workers.run import Run

    job = EvaluateJob(
        model=args.model,
        questions=QuestionFiles(args.questions, args.format, args.mapping),
        out=out,
        split=args.split,
        with_baselines=not args.no_baselines,
        max_unmatched_ratio=args.max_unmatched_ratio,
    )
    with stop_on_signals() as stop, track:
        track.begin(out.name, {})
        try:
            judged = evaluate(job, cache, Run(stop, _say))
        except TrainingStopped as stopped:
            _say(f"{stopped}; give the same command again to go on")
            raise
        page = _write(out, judged, cache, args)
        track.tell(judged.figures, {name: judged.figures[name] for name in _FACTS})
        track.files([out / "evaluation.json", page], folder="evaluation")
    _say(f"the report is {page}")
    return judged.figures


def _write(out: Path, judged: Judged | Detected, cache: Cache, args: argparse.Namespace) -> Path:
    """Write evaluation.json and the page; return the page."""
    from framebank.train.evaluation.evaluating import Detected
    from framebank.train.evaluation.report import write_report
    from framebank.train.evaluation.segment_page import write_segment_page

    data = _text(judged.figures).encode("utf-8", "backslashreplace")
    storage.write_atomic(str(out / "evaluation.json"), data)
    shown = {"model_dir": args.model, "examples": args.examples, "say": _say}
    if isinstance(judged, Detected):
        return write_segment_page(out, judged, cache, **shown)
    return write_report(out, judged, cache, **shown)


def _text(figures: Mapping[str, Any]) -> str:
    return json.dumps(figures, indent=2, ensure_ascii=False) + "\n"


def _out_folder(path: str) -> Path:
    """Return the folder that is there now; raises UsageError, JobError."""
    todo = "give another --out"
    out = storage.on_this_machine(path, "a report is written to a local folder", todo=todo)
    if out.exists() and not out.is_dir():
        raise UsageError("--out is a file", got=path, expected="a folder", todo=todo)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as err:
        raise JobError(f"cannot write to {out}", got=err.strerror or err, todo=todo) from err
