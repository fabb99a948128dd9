"""Answer a whole file of questions from cached features, and say how many answers are right.

    framebank score --model model --cache cache --questions questions.jsonl --out answers

Writes OUT/answers-NNNNN-of-NNNNN.jsonl (or .parquet), one row for each question: its likeliest
answers with their probabilities, and whether the first is right where the true answer is known. A
question about a video that is quarantined or not in the cache gets a row that says so, and so does
a row of the file that is no question. A model of segments writes those of each video, and
OUT/_submission.json, which ActivityNet's evaluation takes.
OUT/_summary.json has the counts, and the accuracy by split and by type. The headline is about the
test split, --split names another: splits are those of the files, else those that the model's
training made of them; what it has not seen is test. The same command after a run that was killed,
or had questions that failed, keeps the files of answers that are whole and makes the others.
Options of Apache Beam are passed on.
Exit status: 0 when every question has its row and no record was damaged, 1 otherwise, 2 for a
mistake in the command line.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from framebank.features.asking.trained_model import Lineage, check_weights, read_head, read_lineage
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.errors import JobError, UsageError
from framebank.features.progress import Source
from framebank.features.questions.command import add_format_arguments
from framebank.features.questions.files import QuestionFiles, file_hashes
from framebank.features.questions.question import SEGMENTS
from framebank.features.questions.reading import read_questions
from framebank.features.questions.seen_videos import find_seen
from framebank.features.spec import check_same_spec
from framebank.features.stores import locks, storage
from framebank.features.stores.disk import bytes_sha256
from framebank.features.terminal import few, say
from framebank.pipelines.jobs.progress import AnsweredCounts, AnswerFiles
from framebank.pipelines.runners import gate
from framebank.pipelines.runners.gate import Submission
from framebank.pipelines.score.folder import (
    KINDS,
    answers_path,
    find_kept,
    prepare_out,
    read_summary,
)
from framebank.pipelines.score.submission import write_submission
from framebank.pipelines.score.tally import ALL, SPLITS, Tally, with_headline

if TYPE_CHECKING:
    from framebank.pipelines.score.pipeline import ScoreConfig
    from framebank.pipelines.score.plan import ScorePlan


_NAMED = 5  # videos, in a message
_KEPT = ". Run the same command again: it goes on with the files that are not there."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `framebank score` takes."""
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="what `framebank train` wrote")
    add("--cache", required=True, help="features made in the way that the model was trained on")
    add("--labels", "--questions", required=True, nargs="+", action="extend", metavar="FILE",
        dest="questions",
        help="files of one set together")  # fmt: skip
    add_format_arguments(parser)
    add("--out", required=True, metavar="DIR", help="folder or gs:// prefix for the answers")
    add("--top", type=int, default=5, metavar="K", help="answers kept for each question")
    add("--questions-per-file", type=int, default=10_000, metavar="N",
        help="about how many questions a file of answers holds")  # fmt: skip
    add("--output-format", choices=KINDS, default="jsonl", help="format of the files of answers")
    add("--split", choices=(*reversed(SPLITS), ALL),
        help="what the figures are about (default: test, where there is none val); all questions "
        "get their answers")  # fmt: skip
    add("--overwrite", action="store_true", help="replace other answers that are in --out")
    add("--json", action="store_true", help="print the summary as JSON")
    gate.add_engine_arguments(parser)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Score, print the summary and return the exit status."""

    def show(summary: dict[str, Any]) -> None:
        text = json.dumps(summary) if args.json else "\n".join(summary_lines(summary, out=args.out))
        print(text)

    args.is_over = execute(args, beam_args, show=show) is not None
    return 0


def next_command(args: argparse.Namespace) -> str | None:
    if not args.is_over:  # submitted, and nobody waits
        return None
    words = ["framebank", "browse", args.cache, "--questions", *args.questions]
    return shlex.join([*words, "--answers", args.out])


def execute(
    args: argparse.Namespace,
    beam_args: list[str],
    *,
    show: Callable[[dict[str, Any]], None] = lambda summary: None,
) -> dict[str, Any] | None:
    """Score; return the summary, None for a job that is only shown or that nobody waits for.

    `show` gets the summary before it is judged. Raises UsageError, JobError.
    """
    for name in ("top", "questions_per_file"):
        if getattr(args, name) < 1:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} must be above 0", got=getattr(args, name))
    submission = gate.prepare(
        args,
        beam_args,
        places={"--model": [args.model], "--cache": [args.cache], "--out": [args.out]},
        cache=args.out,
    )
    from framebank.pipelines.score.plan import plan_scoring

    lineage = read_lineage(args.model)
    given = QuestionFiles(args.questions, args.format, args.mapping)
    learnt = list(lineage.questions) == file_hashes(given)
    questions = read_questions(given, to_train=learnt, keep_faulty=True)
    cache = open_cache(args.cache)
    where = f"for the model {args.model} the cache {cache.path}"
    check_same_spec(cache.spec, lineage.spec, where=where)
    if lineage.random_weights:
        say("the model was trained on features of RANDOM network weights")
    head = read_head(args.model)
    check_weights(args.model)
    plan = plan_scoring(
        questions,
        cache,
        per_file=args.questions_per_file,
        head=head,
        rule=lineage.rule,
        seen=find_seen(args.model),
        as_trained=learnt,
    )
    count = len(questions)
    faults = [question.fault for question in questions if question.fault is not None]
    if count and plan.other_kinds == count - len(faults):
        heads = sorted({question.head for question in questions if question.fault is None})
        raise UsageError(
            f"not one question is of the kind that the model {args.model} answers ({head.kind})",
            got=f"{', '.join(heads)} questions",
            todo="give the question files that the model is for, or a model that is for these",
        )
    del questions  # the plan has them
    if faults:
        say(f"{len(faults)} of {count} rows are no questions; the first: {faults[0]}")
    if plan.missing:
        say(_missing_text(plan, cache))
    about = _describe_run(args, lineage, plan)
    to_answer = f"answering {plan.answerable} of {count} questions from {len(cache)} videos"
    if submission.dry_run:  # writes nothing
        say(to_answer)
        _run_job(args, submission, plan, about, {})
        return None
    storage.make_folder(args.out)
    # Another `score` would put its files between this one's.
    with locks.held(args.out, what=f"writing answers to {args.out}"):
        there = prepare_out(args.out, about, overwrite=args.overwrite)
        if there is not None:
            say(f"these questions are answered already; nothing was done in {args.out}")
            there = with_headline(there, args.split)
            if "detection" in there:  # which is about one split
                there |= write_submission(
                    args.out, there, kind=args.output_format, split=args.split, top=args.top
                )
            return _judged(args, there, show)
        say(to_answer)
        kept, failed = find_kept(args.out, plan, kind=args.output_format)
        files = f"{len(plan.files)} files"
        if failed:
            say(f"{failed} of {files} of answers hold rows that failed: they are made again")
        if kept:
            say(f"{len(kept)} of {files} of answers are there already")
        _run_job(args, submission, plan, about, kept)
    if not submission.waits:
        return None
    summary = read_summary(args.out)
    if summary["questions"] != count:
        raise JobError(
            "not every question got its row",
            got=f"{summary['questions']} rows",
            expected=f"{count} questions",
            todo="run it again with --overwrite, and report this",
        )
    return _judged(args, summary, show)


def _missing_text(plan: ScorePlan, cache: Cache) -> str:
    """Return which videos the questions name that the cache does not have; where it has none of
    them, its own names too."""
    missing = [name + (f" ({hint})" if hint else "") for name, hint in plan.missing.items()]
    text = f"{len(missing)} videos are not in the cache: {few(missing, _NAMED)}"
    if plan.answerable:
        return text
    has = ", ".join(cache.video_ids[:_NAMED]) or "no video at all"
    return (
        f"not one question is about a video of the cache. {text}; the cache has for example {has}"
    )


def _describe_run(args: argparse.Namespace, lineage: Lineage, plan: ScorePlan) -> dict[str, Any]:
    """Return what is scored with what; `key` changes when an answer could."""
    hashes = [
        bytes_sha256(storage.read_bytes(storage.join(args.model, name)))
        for name in ("model.keras", "vocabulary.json")
    ]
    parts = [*hashes, plan.digest(), str(len(plan.files)), str(args.top), args.output_format]
    return {
        "model": args.model,
        "cache": args.cache,
        "question_file": " ".join(args.questions),
        "fingerprint": lineage.spec.fingerprint,
        "random_weights": lineage.random_weights,
        "note": plan.note,
        "key": bytes_sha256("\n".join(parts).encode())[:32],
    }


def _run_job(
    args: argparse.Namespace,
    submission: Submission,
    plan: ScorePlan,
    about: dict[str, Any],
    kept: dict[int, Tally],
) -> None:
    """Run the Beam job, to its end where the submission waits; raises JobError, UsageError."""
    submission.import_beam()
    from framebank.features.stop_signals import end_on_signals
    from framebank.pipelines.runners.running import Job
    from framebank.pipelines.score.pipeline import ScoreConfig, build_score, finished, plan_path

    for note in submission.notes:
        say(note)
    with Job(submission, name="framebank-score") as job:
        config = ScoreConfig(
            cache=args.cache,
            model_dir=args.model,
            out=args.out,
            outputs=len(plan.files),
            top=args.top,
            about=about,
            kind=args.output_format,
            kept=frozenset(kept),
            kept_tally=sum(kept.values(), Tally()),
            split=args.split,
            segments=read_head(args.model).kind == SEGMENTS,
            progress_folder=job.progress_folder,
        )
        plans = {} if submission.dry_run else {n: plan_path(args.out, n) for n in config.todo}
        source = _progress(config, submission, plan)  # before the plan is taken
        with end_on_signals(
            lambda: job.end(remove_plan=lambda: _remove(plans), kept=lambda: _KEPT)
        ):
            try:
                for output, path in plans.items():
                    storage.write_atomic(path, plan.take(output))
                job.run(
                    lambda pipeline: build_score(pipeline, config, hints=submission.hints),
                    finished=lambda: finished(config),
                    source=source,
                )
            finally:
                if not job.goes_on:  # otherwise the job has yet to read it
                    _remove(plans)


def _remove(plans: Mapping[int, str]) -> None:
    for path in plans.values():
        storage.delete(path)


def _progress(config: ScoreConfig, submission: Submission, plan: ScorePlan) -> Source:
    """Return what tells how far the job is: workers of this process, or the files there are."""
    counts = {output: plan.files[output].answerable for output in config.todo}
    if config.progress_folder is not None:
        return AnsweredCounts(config.progress_folder, total=sum(counts.values()))
    names = {
        answers_path("", output, len(plan.files), kind=config.kind): count
        for output, count in counts.items()
    }
    return AnswerFiles(config.out, names, hint=submission.hint)


def _judged(
    args: argparse.Namespace, summary: dict[str, Any], show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Return the summary once it is shown; raises JobError where questions failed."""
    show(summary)
    if summary["failed"]:
        raise JobError(
            f"{summary['failed']} questions have no answer",
            got=f'rows with "status": "failed" in {args.out}, each with its reason',
            todo=f"fix what they name (`framebank verify {args.cache}` helps), then run the same "
            "command again: it makes the files with such rows again and keeps the others",
        )
    return summary


def summary_lines(summary: dict[str, Any], *, out: str) -> Iterator[str]:
    """Yield the summary as lines for a person."""
    yield f"{summary['questions']} questions: {summary['answered']} answered, " + ", ".join(
        f"{summary.get(name, 0)} {text}"  # an older summary has fewer
        for name, text in (
            ("not_in_cache", "about videos not in the cache"),
            ("quarantined", "about quarantined videos"),
            ("other_kind", "of another kind than the model answers"),
            ("not_a_question", "in rows that are no questions"),
            ("failed", "failed"),
        )
    )
    if summary["accuracy"] is None:
        of_split = "" if summary["split"] == ALL else f" of the split {summary['split']}"
        yield f"no true answers{of_split} are known, so nothing was judged"
    yield from _figure_lines(summary)
    if detection := summary.get("detection"):
        yield from _detection_lines(detection)
    if summary["without_truth"]:
        yield f"{summary['without_truth']} questions have no true answer to compare with"
    if unknown := summary.get("without_known_words"):
        yield f"{unknown} questions have no word that the model knows (see reason in their rows)"
    yield f"answers are in {out}"


def _detection_lines(detection: Mapping[str, Any]) -> Iterator[str]:
    if "average_map" in detection:
        at = detection["map"]
        hits = [
            f"hit@{k} {detection[f'hit_at_{k}']:.3f}" for k in (1, 3) if f"hit_at_{k}" in detection
        ]
        yield (
            f"average mAP in the split {detection['split']}: {detection['average_map']:.3f} "
            f"({at['0.50']:.3f} at 0.5, {at['0.75']:.3f} at 0.75, {at['0.95']:.3f} at 0.95); "
            + ", ".join(hits)
        )
    if without := detection.get("videos_without_answer"):
        yield (
            f"{without} videos of that split have segments and no answer: they count in no figure "
            "here, and as missed for ActivityNet"
        )
    yield f"the segments as ActivityNet takes them: {detection['submission']}"
    if labels := detection.get("labels_left_out"):
        yield (
            f"{len(labels)} labels that no video of that split has are left out of it, as "
            f"ActivityNet reads no others: {few(labels)}"
        )


def _figure_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the headline with its types, then the other splits: what a model has learnt from
    flatters it, so they are no part of it."""
    split = summary["split"]
    if summary["accuracy"] is not None:
        name = "all rows" if split == ALL else f"the split {split}"
        if "mean_square_error" in summary:
            yield f"mean square error of the counts of {name}: {summary['mean_square_error']:.3f}"
        if "vqa_accuracy" in summary:
            yield f"VQA accuracy of {name}: {summary['vqa_accuracy']:.1%}"
        yield f"right in {name}: {_share(summary)}"
        for kind, part in summary["by_type"].items():
            yield f"  {kind}: {_share(part)}"
        if summary.get("note"):
            yield f"NOTE: {summary['note']}"
        if split in ("train", "val"):
            knew = "learnt from" if split == "train" else "may have been chosen by"
            yield f"WARNING: the model {knew} these questions, so the figures flatter"
    for name, part in summary["by_split"].items():
        if name != split and len(summary["by_split"]) > 1:
            yield f"split {name}: {_share(part)}"


def _share(part: dict[str, Any]) -> str:
    text = f"{part['correct']} of {part['judged']} ({part['accuracy']:.1%})"
    return text + (f", VQA accuracy {part['vqa_accuracy']:.1%}" if "vqa_accuracy" in part else "")
