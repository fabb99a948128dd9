"""Answer a whole file of questions from cached features, and say how many answers are right.

    framebank score --model model --cache cache --questions questions.jsonl --out answers

Writes OUT/answers-NNNNN-of-NNNNN.jsonl, one row for each question: its likeliest answers with
their probabilities, and whether the first is right where the true answer is known. A question about
a video that is quarantined or not in the cache gets a row that says so. OUT/summary.json has the
counts and the accuracy in all, by type, and by split where the file has them. Options of Apache
Beam are passed on.
Exit status: 0 when every question has its row and no record was damaged, 1 otherwise, 2 for a
mistake in the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from features import storage
from features.cache import Cache, open_cache
from features.errors import FramebankError, JobError, UsageError
from features.questions import read_questions
from features.spec import check_same_spec
from features.trained_model import Lineage, read_lineage

if TYPE_CHECKING:
    from pipelines.score import ScoreConfig
    from pipelines.score_plan import ScorePlan

_OURS = re.compile(r"(answers-\d+-of-\d+\.jsonl|plan-\d+\.json|summary\.json|run\.json)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `framebank score` takes."""
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="what `framebank train` wrote")
    add("--cache", required=True, help="features made in the way that the model was trained on")
    add("--questions", required=True, metavar="FILE", help=".csv, .jsonl or .json")
    add("--out", required=True, metavar="DIR", help="folder or gs:// prefix for the answers")
    add("--top", type=int, default=5, metavar="K", help="answers kept for each question (5)")
    add("--questions-per-file", type=int, default=10_000, metavar="N", help="about (10000)")
    add("--overwrite", action="store_true", help="replace other answers that are in --out")
    add("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Score, and return the exit status."""
    for name in ("top", "questions_per_file"):
        if getattr(args, name) < 1:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} must be above 0", got=getattr(args, name))
    from pipelines.score_plan import plan_scoring

    lineage = read_lineage(args.model)
    questions = read_questions(args.questions)
    cache = open_cache(args.cache)
    check_model_fits(lineage, cache, model_dir=args.model)
    if lineage.random_weights:
        _say("the model was trained on features of RANDOM network weights")
    plan = plan_scoring(questions, cache, per_file=args.questions_per_file)
    about = _describe_run(args, lineage, plan)
    if not _prepare_out(args.out, about, overwrite=args.overwrite):
        _say(f"these questions are answered already; nothing was done in {args.out}")
        return _report(args, _read_summary(args.out))
    _say(f"answering {plan.answerable} of {len(questions)} questions from {len(cache)} videos")
    _run_job(args, beam_args, plan, about)
    summary = _read_summary(args.out)
    if summary["questions"] != len(questions):
        raise JobError(
            "not every question got its row",
            got=f"{summary['questions']} rows",
            expected=f"{len(questions)} questions",
            todo="run it again with --overwrite, and report this",
        )
    return _report(args, summary)


def check_model_fits(lineage: Lineage, cache: Cache, *, model_dir: str) -> None:
    """Raise SpecMismatchError where the model learnt from features of another kind."""
    where = f"for the model {model_dir} the cache {cache.path}"
    check_same_spec(cache.spec, lineage.spec, where=where)


def _describe_run(args: argparse.Namespace, lineage: Lineage, plan: ScorePlan) -> dict[str, Any]:
    """Return what is scored with what; `key` changes when an answer could."""
    hashes = [
        hashlib.sha256(storage.read_bytes(storage.join(args.model, name))).hexdigest()
        for name in ("model.keras", "vocabulary.json")
    ]
    parts = [*hashes, plan.digest(), str(plan.outputs), str(args.top)]
    return {
        "model": args.model,
        "cache": args.cache,
        "question_file": args.questions,
        "fingerprint": lineage.spec.fingerprint,
        "random_weights": lineage.random_weights,
        "key": hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32],
    }


def _prepare_out(out: str, about: dict[str, Any], *, overwrite: bool) -> bool:
    """Clear OUT of an earlier run of this command; returns False when all is done already.

    Raises UsageError where OUT holds answers to something else. Other files are left alone.
    """
    names = [file.path.rsplit("/", 1)[-1] for file in storage.list_files(out)]
    ours = [name for name in names if _OURS.fullmatch(name)]
    if ours:
        before = _read_run_key(out)
        if before == about["key"] and "summary.json" in ours and not overwrite:
            return False
        if before != about["key"] and not overwrite:
            raise UsageError(
                f"{out} already holds answers of another run",
                got="another model, cache, question file or --top" if before else "no run.json",
                todo="give another --out, or --overwrite to replace them",
            )
        # The summary first: without it the folder is no finished run.
        for name in sorted(ours, key=lambda name: (name != "summary.json", name)):
            storage.delete(storage.join(out, name))
        _say(f"replacing the answers in {out}")
    storage.write_atomic(storage.join(out, "run.json"), json.dumps(about, indent=2).encode())
    return True


def _read_run_key(out: str) -> str | None:
    try:
        return str(json.loads(storage.read_bytes(storage.join(out, "run.json")))["key"])
    except (storage.FileMissingError, ValueError, KeyError, TypeError):
        return None


def _run_job(
    args: argparse.Namespace, beam_args: list[str], plan: ScorePlan, about: dict[str, Any]
) -> None:
    from pipelines import score

    config = score.ScoreConfig(
        cache=args.cache,
        model_dir=args.model,
        out=args.out,
        outputs=plan.outputs,
        top=args.top,
        about=about,
    )
    paths = [score.plan_path(args.out, output) for output in range(plan.outputs)]
    for path, records, settled in zip(paths, plan.records, plan.settled, strict=True):
        score.write_plan(path, records, settled)
    run_scoring(config, beam_args)
    for path in paths:
        storage.delete(path)


def run_scoring(config: ScoreConfig, beam_args: list[str]) -> None:
    """Run the Beam job to its end; raises JobError with what a worker said."""
    from pipelines import beam_options, score

    options = beam_options.build_options(beam_args)
    with _stopping_well():
        beam_options.run_pipeline(lambda pipeline: score.build_score(pipeline, config), options)


class ScoringStoppedError(FramebankError):
    """The user asked to stop; `exit_status` is 128 + the signal."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        super().__init__(
            f"stopped by {signal.Signals(number).name}",
            todo="run the same command again: it begins afresh, nothing is half written",
        )


@contextlib.contextmanager
def _stopping_well() -> Iterator[None]:
    """Raise ScoringStoppedError on Ctrl-C or SIGTERM, whatever Beam makes of them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except (FramebankError, KeyboardInterrupt) as err:
        if stopped:
            raise ScoringStoppedError(stopped[0]) from err
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read_summary(out: str) -> dict[str, Any]:
    try:
        return dict(json.loads(storage.read_bytes(storage.join(out, "summary.json"))))
    except storage.FileMissingError as err:
        raise JobError(
            "the job ended without a summary", got=f"no summary.json in {out}", todo="run it again"
        ) from err


def _report(args: argparse.Namespace, summary: dict[str, Any]) -> int:
    if args.json:
        print(json.dumps(summary))
    else:
        for line in summary_lines(summary, out=args.out):
            print(line)
    if summary["failed"]:
        raise JobError(
            f"{summary['failed']} questions have no answer: their record or the model failed",
            got=f'rows with "status": "failed" in {args.out}, each with its reason',
            todo=f"run `framebank verify {args.cache}`; the other answers are good",
        )
    return 0


def summary_lines(summary: dict[str, Any], *, out: str) -> Iterator[str]:
    """Yield the summary as lines for a person."""
    yield f"{summary['questions']} questions: {summary['answered']} answered, " + ", ".join(
        f"{summary[name]} {text}"
        for name, text in (
            ("not_in_cache", "about videos not in the cache"),
            ("quarantined", "about quarantined videos"),
            ("failed", "failed"),
        )
    )
    if summary["accuracy"] is None:
        yield "no true answers are known, so nothing was judged"
    else:
        yield f"right: {summary['correct']} of {summary['judged']} ({summary['accuracy']:.1%})"
        # Splits too: a file that holds what the model learnt from flatters it.
        splits = {f"split {name}": part for name, part in summary.get("by_split", {}).items()}
        for name, part in (summary["by_type"] | splits).items():
            yield f"  {name}: {part['correct']} of {part['judged']} ({part['accuracy']:.1%})"
    if summary["without_truth"]:
        yield f"{summary['without_truth']} questions have no true answer to compare with"
    yield f"answers are in {out}"


def _say(text: str) -> None:
    print(f"framebank: {text}", file=sys.stderr, flush=True)
