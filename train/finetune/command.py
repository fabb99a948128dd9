"""`framebank finetune`: weights of a backbone that know more of one task, for a new cache.

    framebank finetune --labels labels.csv clips/ --out tuned.weights.h5
    framebank extract clips/ --cache tuned --weights tuned.weights.h5

A new head (global pooling, Dense 1024, softmax) learns on the frozen backbone; then the layers
from --from on learn with it, by SGD with momentum 0.9. Batch norm keeps its statistics. Features
and pictures are taken by `framebank extract`, into OUT.work, where checkpoints lie too: a run that
was stopped or killed goes on when the same command is given again. The figures of both steps end in
a JSON file beside OUT. 100 clips of 4 frames take some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framebank.features import terminal
from framebank.features.commands.steps import Steps
from framebank.features.errors import UsageError
from framebank.features.questions.command import add_format_arguments
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import require_answers
from framebank.features.questions.reading import read_questions
from framebank.features.spec import RESIZES, SpecChoice
from framebank.features.stop_signals import TrainingStopped, stop_on_signals
from framebank.features.stores import disk, json_text, storage
from framebank.train.model.config import TrainConfig
from framebank.train.tracking.trackers import Trackers, add_track_argument, tracked

_SUFFIX = ".weights.h5"
_STARTS = {"inception_v3": "172"}  # the last two thirds of its blocks of 17 × 17, and all after
_HEAD_RATE = 1e-3  # Adam's
_say = functools.partial(terminal.say, who="finetune")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", metavar="CLIPS", help="as `framebank extract` takes them")
    add(
        "--labels", required=True, nargs="+", action="extend", metavar="FILE",
        help="files with video_id, label [split, group], or a folder that has a folder per class",
    )  # fmt: skip
    add_format_arguments(parser)
    add("--out", required=True, metavar=f"FILE{_SUFFIX}", help="the weights")
    add("--backbone", default=SpecChoice.backbone, help="a name of the table")
    add("--layer", help="what the head reads, pooled (default: the backbone's own)")
    add("--weights", default=SpecChoice.weights, help="what it begins with: imagenet | PATH | "
        "random:SEED")  # fmt: skip
    add("--from", "--start", dest="start", metavar="LAYER",
        help="train from this layer on: a name, or a number (default, of inception_v3: 172)"
    )  # fmt: skip
    add("--sample", default="uniform=4", metavar="RULE", help="the frames of a clip")
    add("--resize", choices=RESIZES, help="as of `framebank extract`")
    add("--images", action="store_true", help="take still pictures from folders too")
    add("--head-epochs", type=int, default=60, metavar="N",
        help="at most this many for the head alone")  # fmt: skip
    add("--epochs", type=int, default=12, metavar="N",
        help="at most this many for the layers with it")  # fmt: skip
    add("--patience", type=int, default=6, metavar="N",
        help="epochs without a better validation before one of the two stops")  # fmt: skip
    add("--learning-rate", type=float, default=1e-4, help="learning rate of SGD")
    add("--batch-size", type=int, default=4, metavar="N", help="clips in a step")
    add("--val-share", type=float, default=TrainConfig.val_share, metavar="X",
        help="share of the training videos that choose the epoch, without a val split; 0: none"
    )  # fmt: skip
    add("--group-by", metavar="REGEX", help="as of `framebank train`")
    add("--max-unmatched-ratio", type=float, default=TrainConfig.max_unmatched_ratio, metavar="X",
        help="the share of labels that may lack a video")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of the head's weights, order and split")
    add("--overwrite", action="store_true", help="throw away what OUT and OUT.work hold")
    add_track_argument(parser)
    add("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Fine-tune, print the figures and return the exit status."""

    def show(figures: dict[str, Any]) -> None:
        print(json.dumps(figures, ensure_ascii=False) if args.json else _table(figures))

    execute(args, beam_args, show=show)
    return 0


def next_command(args: argparse.Namespace) -> str:
    words = ["framebank", "extract", *args.inputs, "--cache", "cache"]
    return shlex.join([*words, "--backbone", args.backbone, "--weights", args.out])


def execute(
    args: argparse.Namespace,
    beam_args: list[str],
    *,
    show: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> dict[str, Any]:
    """Fine-tune; return the figures, which `show` gets too. Raises FramebankError,
    TrainingStopped."""
    from framebank.features.extraction.one_clip import make_spec

    head, tune = _configs(args)
    row, start = _row(args)
    out = _place(args.out)
    report, work = out.with_name(out.name.removesuffix(_SUFFIX) + ".json"), Path(f"{out}.work")
    track = tracked(args, kind="finetune", say=_say)
    if args.overwrite:
        _throw_away(out, report, work)
    if out.exists():
        figures = _finished(out, report)
        _say(f"{out} is there already; --overwrite makes it anew")
        with track:
            _track(track, out, report, figures)
        show(figures)
        return figures
    labels = QuestionFiles(args.labels, args.format, args.mapping)
    require_answers(read_questions(labels, to_train=True), *labels.paths)  # before any work
    choice = SpecChoice(args.sample, args.backbone, args.layer, args.weights, resize=args.resize)
    spec, weights = make_spec(choice)
    if spec.random_weights:
        _say(f"NOTE: the network begins with RANDOM weights ({spec.weights})")
    busy = UsageError(f"another `framebank finetune` is at work in {work}", todo="wait for it")
    work.mkdir(parents=True, exist_ok=True)
    with disk.locked(work / ".lock", otherwise=busy):
        steps = Steps("finetune")
        _extract(steps, args, work, spec.sample)
        with stop_on_signals() as stop, track:
            track.begin(out.name, {})
            from framebank.features.cache.reader import open_cache
            from framebank.features.tensorflow_import import import_tensorflow

            import_tensorflow()
            from framebank.train.finetune.finetuning import Task, finetune
            from framebank.train.workers.run import Run

            task = Task(
                labels,
                row, spec.layer, weights, start, head, tune, spec.lineage,
            )  # fmt: skip
            seen, pixels = (open_cache(str(work / name)) for name in ("features", "pixels"))
            run = Run(stop, _say, track=track)
            try:
                figures = finetune(task, seen, pixels, work / "checkpoints", out, run)
            except TrainingStopped as stopped:
                _say(f"{stopped}; what was done is saved. Give the same command again to go on.")
                raise
            text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
            storage.write_atomic(str(report), text.encode())
            _track(track, out, report, figures)
    shutil.rmtree(work, ignore_errors=True)
    show(figures)
    _say(f"the weights are in {out}: framebank extract ... --weights {out}")
    return figures


def _track(track: Trackers, out: Path, report: Path, figures: dict[str, Any]) -> None:
    """Tell trackers of weights that are made: figures, lineage and the figures' file, not the
    weights."""
    track.begin(out.name, {})
    facts = {name: figures[name] for name in ("split", "weights", "weights_sha256", "lineage")}
    track.tell({"accuracy": figures["accuracy"]}, facts)
    track.files([report], folder="finetune")


def _configs(args: argparse.Namespace) -> tuple[TrainConfig, TrainConfig]:
    def config(epochs: int, rate: float) -> TrainConfig:
        return TrainConfig(
            epochs=epochs, batch_size=args.batch_size, learning_rate=rate, lr_schedule="constant",
            weight_decay=0.0, label_smoothing=0.0, patience=args.patience,
            val_share=args.val_share, seed=args.seed, group_by=args.group_by,
            max_unmatched_ratio=args.max_unmatched_ratio,
        )  # fmt: skip

    return config(args.head_epochs, _HEAD_RATE), config(args.epochs, args.learning_rate)


def _row(args: argparse.Namespace) -> tuple[str, str]:
    """Return the backbone's name and the layer from which on to train; raises UsageError."""
    from framebank.features.network.backbones import BACKBONES, find_backbone

    names = [name for name, row in BACKBONES.items() if row.clip_length == 1]
    if args.backbone not in names:
        find_backbone(args.backbone)
        raise UsageError(
            f"{args.backbone} is not fine-tuned", got=args.backbone, expected=" | ".join(names)
        )
    start = args.start or _STARTS.get(args.backbone)
    if start is None:
        raise UsageError(
            f"where in {args.backbone} to begin is not known",
            got="no --from",
            expected="the first layer that is to learn, by name or number",
        )
    return args.backbone, start


def _place(out: str) -> Path:
    path = storage.on_this_machine(out, "weights are written to a local file", todo="copy it after")
    if not path.name.endswith(_SUFFIX) or path.name == _SUFFIX or path.is_dir():
        raise UsageError("--out is no weight file", got=out, expected=f"a name with {_SUFFIX}")
    return path


def _throw_away(out: Path, report: Path, work: Path) -> None:
    try:
        for path in (out, report):
            path.unlink(missing_ok=True)
        if work.exists():
            shutil.rmtree(work)
    except OSError as err:
        raise storage.storage_error(str(err.filename or out), err, "remove") from err


def _finished(out: Path, report: Path) -> dict[str, Any]:
    """Return the figures of a run that has ended; UsageError for another file."""
    try:
        figures = json_text.parse_object(report.read_bytes())
        if figures["weights_sha256"] == disk.file_hash(out):
            return figures
        got = f"{report} of other weights"
    except (OSError, ValueError, KeyError) as err:
        got = f"no figures of it in {report} ({type(err).__name__})"
    todo = "give another --out, or --overwrite to throw it away"
    raise UsageError(f"{out} is there already", got=got, todo=todo)


def _extract(steps: Steps, args: argparse.Namespace, work: Path, sample: str) -> None:
    """Take features, which the head learns from, and pictures, for the layers before it."""
    from framebank.features.network.backbones import find_backbone

    size = find_backbone(args.backbone).input_size
    same = ["--sample", sample, "--json", *(["--images"] if args.images else [])]
    same += ["--resize", args.resize] if args.resize else []
    layer = ["--layer", args.layer] if args.layer else []
    network = ["--backbone", args.backbone, "--weights", args.weights, *layer]
    pictures = ["--backbone", f"pixels:{size}", "--dtype", "png"]
    clips = [os.fspath(clip) for clip in args.inputs]
    for name, words in (("features", network), ("pixels", pictures)):
        steps.run(name, ["extract", "--cache", str(work / name), *words, *same, "--", *clips])


def _table(figures: dict[str, Any]) -> str:
    accuracy = figures["accuracy"]
    names = list(accuracy["head"])
    lines = [f"{'accuracy':28}" + "".join(f"{name:>8}" for name in names)]
    for stage, label in (("head", "the head alone"), ("fine_tuned", "with the layers fine-tuned")):
        lines.append(f"{label:28}" + "".join(f"{accuracy[stage][n]:8.1%}" for n in names))
    lines.append(
        f"{len(figures['classes'])} classes; clips: "
        + ", ".join(f"{count} {name}" for name, count in figures["videos"].items() if count)
    )
    return "\n".join(lines)
