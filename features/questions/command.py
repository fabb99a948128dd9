"""`framebank questions FILE...`: what question files hold, and every odd row of theirs.

    framebank questions train_qa.json val_qa.json test_qa.json --cache CACHE

Says the set that was found, rows by split beside the published counts, types, the share of the
commonest answer (that of the training split where it is given), and with --cache how many
questions are about its videos, which videos are not there, and how `train` deals the rest into
splits. A row that cannot be a question is refused: `train` then refuses its
file, `score` says so in a row of its own. Odd rows that can be used are kept and listed. 50,000
questions take two seconds.
Exit status: 0, or 1 when rows were refused.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from framebank.features.bounds import MOST_SEED, check_number
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.known_sets import FORMATS
from framebank.features.questions.reading import read_question_files
from framebank.features.questions.report import describe_files
from framebank.features.questions.splits import VAL_SHARE, SplitRule
from framebank.features.terminal import printable

_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "questions", nargs="+", metavar="FILE", help="question files; those of one set together"
    )
    add_format_arguments(parser)
    parser.add_argument("--cache", metavar="CACHE", help="count the questions about its videos")
    parser.add_argument(
        "--seed", type=int, default=0, help="as of `train`: how it splits what the files do not"
    )
    parser.add_argument("--val-share", type=float, default=VAL_SHARE, metavar="X", help="likewise")
    parser.add_argument("--group-by", metavar="REGEX", help="likewise")
    parser.add_argument("--all", action="store_true", help="list all odd rows, not five of a kind")
    parser.add_argument("--json", action="store_true", help="print one JSON document, rows and all")


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --format and --mapping, which every command that reads questions takes."""
    parser.add_argument(
        "--format", choices=FORMATS, help="what the question files are (found from their content)"
    )
    parser.add_argument(
        "--mapping", metavar="FILE", help="other names of the videos, as MSVD's youtube_mapping.txt"
    )


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Print what the files hold; returns 1 when a row was refused. Raises UsageError."""
    found = execute(args, beam_args)
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(found, shown=None if args.all else _SHOWN)))
    return 1 if found["refused"] else 0


def next_command(args: argparse.Namespace) -> str:
    words = ["framebank", "train", "--cache", args.cache or "CACHE"]
    return shlex.join([*words, "--questions", *args.questions, "--model", "model"])


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Return what the files hold. Raises UsageError."""
    check_number("--seed", args.seed, 0, MOST_SEED)
    check_number("--val-share", args.val_share, 0, 1, below=True)
    files = read_question_files(QuestionFiles(args.questions, args.format, args.mapping))
    states = None
    if args.cache is not None:
        from framebank.features.cache.reader import open_cache

        table = open_cache(args.cache).table(["video_id", "state"]).to_pydict()
        states = dict(zip(table["video_id"], table["state"], strict=True))
    return describe_files(
        files, states, rule=SplitRule(args.seed, args.val_share, group_by=args.group_by)
    )


def _lines(found: Mapping[str, Any], *, shown: int | None) -> Iterator[str]:
    for file in found["files"]:
        yield f"{file['path']}: {file['set']}"
    for its in found["sets"].values():
        yield from ("", its["title"])
        for split, facts in its["splits"].items():
            yield f"  {split:6}{_split_line(facts)}"
            yield f"        {_majority_line(facts)}"
        yield "  types"
        for name, count in its["types"].items():
            meaning = "" if " " in name else its["type_names"].get(name, "")
            yield f"    {name:24}{count:>9,}  {meaning}".rstrip()
        if videos := its["in_several_splits"]:
            yield f"  {len(videos):,} videos are in several splits: " + ", ".join(videos[:_SHOWN])
    if "cache" in found:
        yield ""
        yield from _cache_lines(found["cache"], shown)
    yield ""
    yield from _odd_lines(found, shown)


def _cache_lines(cache: Mapping[str, Any], shown: int | None) -> Iterator[str]:
    counts = ", ".join(f"{count:,} {split}" for split, count in cache["train"].items())
    yield f"as `framebank train` deals the answered ones about videos of the cache: {counts}"
    if quarantined := cache["quarantined"]:
        more = ", …" if len(quarantined) > _SHOWN and shown is not None else ""
        names = ", ".join(quarantined[:shown]) + more
        yield f"{len(quarantined):,} videos are quarantined: {names}"
    if missing := cache["missing"]:
        yield f"{len(missing):,} videos are not in the cache"
        for name, hint in list(missing.items())[:shown]:
            yield f"      {name!r}" + (f": {hint}" if hint else "")
        if shown is not None and len(missing) > shown:
            yield f"      … and {len(missing) - shown:,} more (--all or --json lists them)"


def _split_line(facts: Mapping[str, Any]) -> str:
    published = facts.get("published")
    if published == facts["questions"]:
        said = " (as published)"
    else:
        said = f" ({published:,} are published)" if published else ""
    line = f"{facts['questions']:>9,} questions{said}, {facts['videos']:,} videos, "
    line += f"{facts['distinct_answers']:,} answers"
    if facts["answered"] < facts["questions"]:
        line += f", {facts['questions'] - facts['answered']:,} questions without an answer"
    if "in_cache" in facts:
        line += f"; {facts['in_cache']:,} about videos of the cache"
    return line


def _majority_line(facts: Mapping[str, Any]) -> str:
    heads = ", ".join(f"{name} {count:,}" for name, count in facts["heads"].items())
    said = f"{heads}; measure: {', '.join(facts['measures'])}"
    if (majority := facts["majority"]) is not None:
        said += f"; majority {majority['answer']!r} {majority['share']:.1%}"
        if "constant" in majority:
            said += f"; always {majority['constant']}: mean square error "
            said += f"{majority['mean_square_error']:.2f}"
    return said


def _odd_lines(found: Mapping[str, Any], shown: int | None) -> Iterator[str]:
    if not found["odd"]:
        yield "no odd rows"
        return
    by_kind: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in found["odd"]:
        by_kind[f"{row['what']}: {row['decision']}"].append(row)
    many = "1 odd row" if len(found["odd"]) == 1 else f"{len(found['odd']):,} odd rows"
    refused = f"{found['refused']:,} of them" if found["refused"] else "none"
    yield f"{many}, {refused} refused"
    for kind, rows in by_kind.items():
        yield f"  {len(rows):,} × {kind}"
        for row in rows[:shown]:
            yield f"      {row['file']} {row['where']}: {printable(row['got'])}"
            yield f"          expected: {printable(row['expected'])}"
        if shown is not None and len(rows) > shown:
            yield f"      … and {len(rows) - shown:,} more (--all or --json lists them)"
