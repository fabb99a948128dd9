"""Six ways to classify a video, on one set, one split and one budget, with a page at the end.

    framebank ways CLIPS... --cache-dir DIR --labels FILE

Makes three caches in DIR (features of frames, the frames themselves, C3D's features of clips of 16
frames), trains each way on them through the very commands that you would type, and writes
DIR/index.html and DIR/report.json: accuracy with its interval, time of extraction and of training,
bytes, parameters, curves, and what to choose when. The budget is the same for all: the most epochs,
the patience, the batch and the seed. May be killed at any time: the same command goes on, and what
is finished is kept. Options of Apache Beam are passed on to the extractions.

240 clips of 12 frames take some 20 minutes on two cores, most of it C3D's.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from framebank.features import terminal
from framebank.features.bounds import MOST_INT, MOST_SEED, check_number
from framebank.features.commands.steps import Steps
from framebank.features.errors import UsageError
from framebank.features.extraction.one_clip import make_spec
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import LABEL
from framebank.features.questions.reading import read_questions
from framebank.features.questions.sources import compile_grouping
from framebank.features.spec import PRECISIONS, SpecChoice
from framebank.features.stores import locks, storage
from framebank.train.data.splits import assign_splits
from framebank.train.model.config import TrainConfig
from framebank.train.ways.ledger import Ledger
from framebank.train.ways.plan import (
    CLIPS,
    FRAMES,
    OPTIONS,
    WAYS,
    Way,
    cache_choices,
    cache_commands,
    train_command,
)

_say = functools.partial(terminal.say, who="ways")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `framebank ways` takes."""
    add, train = parser.add_argument, TrainConfig()
    add("inputs", nargs="+", metavar="CLIPS", help="files, folders, globs, manifests")
    add("--cache-dir", required=True, metavar="DIR", help="folder for caches, models and page")
    add("--labels", required=True, action="append", metavar="FILE",
        help="video_id,label[,split][,group], or a folder per class; one or more")  # fmt: skip
    add("--sample", default="uniform=8", metavar="RULE", help="frames of ways 1 to 5")
    add("--clip-sample", default="all", metavar="RULE", help="frames that clips are made of")
    add("--backbone", default=SpecChoice.backbone, help="backbone of ways 1, 4 and 5")
    add("--weights", default=SpecChoice.weights,
        help="weights of that backbone: imagenet | PATH | random:SEED")  # fmt: skip
    add("--clip-weights", default="random:0", metavar="WEIGHTS",
        help="weights of C3D, way 6: PATH of the published network | random:SEED")  # fmt: skip
    add("--pixels", type=int, default=64, metavar="SIZE", help="side of the frames of ways 2 and 3")
    add("--precision", choices=PRECISIONS, default="float32",
        help="what the frozen networks compute in")  # fmt: skip
    add("--epochs", type=int, default=40, help="at most this many epochs for each way")
    add("--patience", type=int, default=train.patience,
        help="epochs without a better validation before a way stops")  # fmt: skip
    add("--batch-size", type=int, default=train.batch_size, help="clips in a step")
    add("--seed", type=int, default=0, help="seed of weights, order and split")
    add("--group-by", metavar="REGEX",
        help="finds in a video's id the source that no split may cut")  # fmt: skip
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Go all ways, print the table and return the exit status."""
    found = execute(args, beam_args)
    from framebank.train.ways.report import table

    print(json.dumps(found) if args.json else table(found))
    return 0


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Go all ways; return what report.json has. Raises FramebankError."""
    check_number("--seed", args.seed, 0, MOST_SEED)
    for name in ("epochs", "patience", "batch_size"):
        option = "--" + name.replace("_", "-")
        check_number(option, getattr(args, name), 0, MOST_INT, above=True)
    if args.group_by is not None:
        compile_grouping(args.group_by)
    _check_labels(args)
    _check_caches(args)
    todo = "give a folder on this machine; what is in it may be copied afterwards"
    folder = Path(storage.on_this_machine(args.cache_dir, "the ways are trained here", todo=todo))
    if folder.exists() and not folder.is_dir():
        raise UsageError("--cache-dir is a file", got=folder, expected="a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    options = {name: getattr(args, name) for name in OPTIONS}
    ledger = Ledger(folder, options)
    with locks.held(str(folder), what=f"comparing the ways in {folder}"):
        steps = Steps("ways")
        for name, words in cache_commands(args, folder, beam_args).items():
            if name == CLIPS and args.clip_weights.startswith("random"):
                weights = args.clip_weights
                _say(f"NOTE: C3D has RANDOM weights ({weights}): the figures of way 6 mean nothing")
            with ledger.running(f"extract {name}") as step:
                before = step.seconds
                summary = steps.run(name, words)
            if "frames" in summary:
                step.result = summary
            else:  # nothing was to be done: that took no time of extraction
                step.seconds = before
        labels = _labels_digest(args.labels)
        for way in WAYS:
            _train(way, args, folder, steps, ledger, labels=labels)
        from framebank.train.ways.report import write_report

        found = write_report(folder, args, ledger, typed=_typed(args, beam_args))
    _say(f"look at {folder / 'index.html'}")
    return found


def _check_labels(args: argparse.Namespace) -> None:
    """Raise UsageError for files that no way can be trained on, before hours of extraction."""
    questions = read_questions(QuestionFiles(args.labels), to_train=True)
    for question in questions:
        if question.head != LABEL:
            raise UsageError(
                "the ways name the class of a video",
                got=f"{question.question!r} about {question.video_id} in {', '.join(args.labels)}",
                expected="columns video_id, label, or a folder per class",
                todo="`framebank train` answers questions",
            )
    assign_splits(questions, seed=args.seed, group_by=args.group_by)


def _check_caches(args: argparse.Namespace) -> None:
    """Raise UsageError for a cache that cannot be made, before hours are spent on another one."""
    specs = {name: make_spec(choice)[0] for name, choice in cache_choices(args).items()}
    if specs[FRAMES].holds_pictures:
        raise UsageError(
            "ways 1, 4 and 5 read features",
            got=f"--backbone {args.backbone}",
            expected="any other backbone",
            todo="--pixels SIZE is for ways 2 and 3",
        )


def _train(
    way: Way, args: argparse.Namespace, folder: Path, steps: Steps, ledger: Ledger, *, labels: str
) -> None:
    """Train a way, unless that was done with the same clips and labels."""
    from framebank.features.cache.reader import open_cache

    name = f"train {way.name}"
    digest = hashlib.sha256(labels.encode())
    cache = open_cache(str(folder / "caches" / way.cache))
    for batch in cache.places.select(["video_id", "key"]).to_batches():
        digest.update(json.dumps(batch.to_pydict()).encode())
    key, before = digest.hexdigest(), ledger.step(name)
    if before.key == key and before.result:
        _say(f"{way.label}: finished already, and kept")
        return
    words = train_command(way, args, folder)
    if before.key and before.key != key:
        _say(f"{way.label}: trained anew, for clips or labels have changed")
        words.append("--overwrite")
    with ledger.running(name, key=key) as step:
        step.result = steps.run(name, words)


def _labels_digest(paths: list[str]) -> str:
    """Return what changes with any byte of the label files; of folders, with what they hold."""
    digest = hashlib.sha256()
    for path in paths:
        if storage.is_local(path) and Path(path).is_dir():
            names = sorted(str(one.relative_to(path)) for one in Path(path).rglob("*"))
            digest.update("\0".join(names).encode("utf-8", "surrogateescape"))
        else:
            digest.update(storage.read_bytes(path))
    return digest.hexdigest()


def _typed(args: argparse.Namespace, beam_args: list[str]) -> str:
    words = ["framebank", "ways", *args.inputs, "--cache-dir", args.cache_dir]
    defaults = argparse.ArgumentParser()
    add_arguments(defaults)
    for name in OPTIONS:
        value = getattr(args, name)
        if value == defaults.get_default(name):
            continue
        for one in value if isinstance(value, list) else [value]:
            words += ["--" + name.replace("_", "-"), str(one)]
    return shlex.join([*words, *beam_args])
