"""`framebank train`: a model from a cache and question files.

    framebank train --cache CACHE --questions FILE... --model DIR

240 clips with a few questions each take about a minute on two cores. MODEL gets model.keras,
vocabulary.json, metrics.json, history.jsonl and lineage.json; the figures, beside those of
majority, question-only and order-blind, end on stdout. A run that was stopped or killed goes on
when the same command is given again.

Several replicas: `--strategy mirrored` takes this machine's GPUs; `--local-workers N` starts N
processes here; `--strategy multi_worker` is one worker of a cluster that TF_CONFIG (or Slurm)
describes. The global batch, the steps and the losses are the same for any number of them.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from framebank.features import terminal
from framebank.features.bounds import parse_size
from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.questions.command import add_format_arguments
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.word_cutting import LANGUAGES, check_language
from framebank.features.stop_signals import (
    StopRequest,
    TrainingStopped,
    signals_held,
    stop_on_signals,
)
from framebank.features.stores import json_text
from framebank.features.tensorflow_import import collect_rarely, own_process, quiet_google
from framebank.train.model.config import (
    AUTO,
    CHOOSABLE,
    LR_SCHEDULES,
    OWN_SIZES,
    PRECISIONS,
    STRATEGIES,
    TASKS,
    ModelConfig,
    TrainConfig,
)
from framebank.train.tracking.trackers import Trackers, add_track_argument, tracked

if TYPE_CHECKING:
    from framebank.train.workers.replicas import Workers

MODEL_OPTIONS = {
    "answers": "the most answers that the model can give (the commonest of the training split)",
    "words": "the most words that it knows",
    "projection": "width that a frame's features are projected to",
    "frame_units": "width of the LSTM over frames",
    "question_units": "width of the LSTM over words",
    "dense_units": "width of the dense layer",
    "segment_units": "width of what reads the rows of long videos, to find segments",
    "segment_dropout": "share of columns, and of values before the last layer, dropped there",
    "dropout": "share of values dropped before the dense layers",
    "frame_dropout": "share of feature columns dropped, in all frames of a clip alike",
}
TRAIN_OPTIONS = {
    "epochs": "at most this many epochs",
    "batch_size": "questions in a step, over all replicas",
    "learning_rate": "of Adam, at the start",
    "warmup_epochs": "epochs in which the rate of the cosine schedule rises from 0",
    "weight_decay": "decoupled from the gradient, as AdamW has it",
    "clip_norm": "the most that the norm of all gradients together may be",
    "patience": "epochs without a better validation before training stops",
    "val_share": "share of the training videos that choose the epoch, without a val split; 0: none",
    "seed": "seed of weights, order and split",
    "seeds": "fit this many models, each of another seed, and average their answers",
    "max_unmatched_ratio": "the share of questions that may lack a video in the cache",
    "checkpoint_every_s": "seconds between checkpoints",
    "memory_bytes": "features beyond this, per worker, are read from the shards in every epoch",
    "shuffle_bytes": "the most features that a shuffle may hold, over all workers",
}
_say = functools.partial(terminal.say, who="train")
_LABELS = {
    "order_blind": "order-blind (mean of frames)",
    "question_only": "question only",
    "probe": "probe (moments, with order)",
    "probe_blind": "probe, order-blind",
    "majority_per_question": "majority per question",
    "majority": "majority answer",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--cache", required=True, help="the feature cache")
    add(
        "--labels", "--questions", dest="questions", required=True, nargs="+", action="extend",
        metavar="FILE",
        help="question files: .csv, .jsonl or .json with video_id, question, answer [split, group, "
        "type]; or with a label for each video, or start_s, end_s and label for each segment",
    )  # fmt: skip
    add(
        "--task", choices=TASKS, help="refuse files for another task (they tell which they are for)"
    )
    add_format_arguments(parser)
    add("--model", required=True, help="folder for the model")
    add(
        "--model-kind", choices=CHOOSABLE, default=AUTO,
        help="what reads the frames; auto: what answers held-out training clips best; image_qa is "
        f"for pictures, with a network of its own (default {AUTO})",
    )  # fmt: skip
    add(
        "--embeddings", metavar="FILE",
        help="pretrained word vectors: GloVe, word2vec or fastText, text or binary, also .gz",
    )  # fmt: skip
    add("--language", choices=LANGUAGES, help="cut questions of this language into words")
    add("--lr-schedule", choices=LR_SCHEDULES, default=TrainConfig.lr_schedule)
    add("--precision", choices=PRECISIONS, default=TrainConfig.precision)
    add("--strategy", choices=STRATEGIES, default="none", help="(default none)")
    add("--local-workers", type=int, metavar="N", help="train with N processes on this machine")
    add("--stage-dir", metavar="DIR", help="keep staged shards of a bucket there")
    add(
        "--stage-bytes", type=parse_size, default=50 * 2**30, metavar="SIZE",
        help="the most that staged shards may take",
    )  # fmt: skip
    for config, options in ((ModelConfig, MODEL_OPTIONS), (TrainConfig, TRAIN_OPTIONS)):
        for name, text in options.items():
            default = getattr(config, name)
            if name.endswith("_bytes"):
                add(
                    f"--{name.replace('_', '-')}",
                    type=parse_size,
                    default=default,
                    help=text,
                    metavar="SIZE",
                )
                continue
            own = [f"of {kind} {sizes[name]}" for kind, sizes in OWN_SIZES.items() if name in sizes]
            add(
                "--" + name.replace("_", "-"), type=type(default), default=None if own else default,
                help=f"{text} (default {', '.join([str(default), *own])})",
            )  # fmt: skip
    add(
        "--group-by", metavar="REGEX",
        help="finds in a video's id the source that no split may cut (its first group, else all)",
    )  # fmt: skip
    add("--tensorboard", metavar="DIR", help="write TensorBoard's events there")
    add_track_argument(parser)
    add("--no-baselines", action="store_true", help="train no baselines")
    add("--overwrite", action="store_true", help="throw away what --model holds")
    add("--json", action="store_true", help="print the metrics as JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Train; return the exit status. Raises FramebankError, TrainingStopped."""

    def show(metrics: dict[str, Any]) -> None:
        print(json.dumps(metrics, ensure_ascii=False) if args.json else table(metrics))

    if args.local_workers is not None:
        return _run_workers(args, quiet=False)
    execute(args, beam_args, show=show)
    return 0


def next_command(args: argparse.Namespace) -> str:
    words = ["framebank", "evaluate", "--model", args.model, "--cache", args.cache]
    return shlex.join([*words, "--questions", *args.questions])


def _run_workers(args: argparse.Namespace, *, quiet: bool) -> int:
    """Train with processes on this machine, of which the chief prints the metrics; return the exit
    status."""
    from framebank.train.workers.local_workers import run_local_workers

    _configs(args)
    if args.strategy not in ("none", "multi_worker"):
        raise UsageError("--local-workers is a strategy of its own", got=args.strategy)
    options = json.dumps(vars(args) | {"local_workers": None, "strategy": "multi_worker"})
    worker = [sys.executable, "-m", "framebank.train.fit.command", options]
    return run_local_workers(worker, args.local_workers, quiet=quiet)


def _configs(args: argparse.Namespace) -> tuple[ModelConfig, TrainConfig]:
    model = ModelConfig.of(
        kind=args.model_kind, **{name: getattr(args, name) for name in MODEL_OPTIONS}
    )
    train = TrainConfig(
        lr_schedule=args.lr_schedule,
        precision=args.precision,
        group_by=args.group_by,
        **{name: getattr(args, name) for name in TRAIN_OPTIONS},
    )
    check_language(args.language)
    return model, train


def execute(
    args: argparse.Namespace,
    beam_args: list[str],
    *,
    show: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> dict[str, Any]:
    """Train; return what metrics.json has, which the chief of several workers hands to `show`.

    Raises FramebankError, TrainingStopped.
    """
    from framebank.features.cache.reader import open_cache
    from framebank.train.fit.model_folder import ModelFolder

    model, train = _configs(args)
    folder = ModelFolder(args.model)
    if args.local_workers is not None:
        if status := _run_workers(args, quiet=True):
            if status > 128:
                raise TrainingStopped(status - 128)
            raise JobError("a worker failed", got=f"exit status {status}", todo="see what it said")
        return folder.read_json("metrics.json")
    cache = open_cache(args.cache)
    if not len(cache):
        raise UsageError(f"the cache {args.cache} holds no features", todo="extract videos first")
    with stop_on_signals() as stop:
        workers = _start_workers(args.strategy, stop)
        from framebank.train.data.shard_files import Staging
        from framebank.train.fit.training import train_model
        from framebank.train.fit.training_data import TrainJob
        from framebank.train.workers.run import Run

        say = _say if workers.is_chief else lambda text: None
        track = Trackers()
        if workers.is_chief:
            track = tracked(args, kind="train", but=(*MODEL_OPTIONS, *TRAIN_OPTIONS), say=say)
        if cache.spec.random_weights:
            say(f"NOTE: the features come from RANDOM weights ({cache.spec.weights})")
        job = TrainJob(
            questions=QuestionFiles(args.questions, args.format, args.mapping),
            model=model,
            train=train,
            with_baselines=not args.no_baselines,
            tensorboard=args.tensorboard,
            staging=Staging(args.stage_dir, args.stage_bytes),
            language=args.language,
            embeddings=args.embeddings,
            task=args.task,
        )
        try:
            with track, workers.together():
                run = Run(stop, say, workers, track)
                metrics = train_model(job, cache, folder, run, overwrite=args.overwrite)
        except TrainingStopped as stopped:
            say(f"{stopped}; what was done is saved. Give the same command again to go on.")
            raise
    if workers.is_chief:
        show(metrics)
        say(f"the model is in {args.model}")
    return metrics


def _start_workers(strategy: str, stop: StopRequest) -> Workers:
    from framebank.features.tensorflow_import import import_tensorflow

    if strategy == "none":
        import_tensorflow()
        from framebank.train.workers.replicas import Workers

        return Workers()
    import_tensorflow(wake=lambda: None)
    if strategy == "multi_worker":
        from framebank.train.workers.cluster import read_cluster
        from framebank.train.workers.liveness import meet

        cluster = read_cluster()
        name, address = cluster.members[cluster.index]
        if len(cluster.members) > 1:
            _say(f"{name} at {address}, one of {len(cluster.members)}, waits for the others")
        meet(cluster, check=stop.check, say=_say)
    started: list[Workers | FramebankError] = []

    def start() -> None:
        from framebank.train.workers.replicas import start_workers

        try:
            started.append(start_workers(strategy))
        except FramebankError as err:  # what TensorFlow said besides helps nobody
            started.append(err)

    with signals_held():
        import_tensorflow(wake=start)
        stop.listen()
    if isinstance(started[0], FramebankError):
        raise started[0]
    return started[0]


def table(metrics: Mapping[str, Any]) -> str:
    """Return the figures as a person reads them: a line for the model and each baseline."""
    if "average_map" in metrics:
        from framebank.train.judging.detections import figure_lines

        its = metrics["rows"]
        said = (
            f"{metrics['questions']} videos judged, {its['judged']} rows; where nothing happens: "
            f"precision {its['background_precision']:.3f}, recall {its['background_recall']:.3f}"
        )
        return "\n".join([*figure_lines(metrics), said, *_remarks(metrics)])
    kinds = list(metrics["by_type"])[:8]
    rows: list[tuple[str, Mapping[str, Any]]] = [("this model", metrics)]
    rows += [
        (label, metrics["baselines"][name])
        for name, label in _LABELS.items()
        if name in metrics["baselines"]
    ]
    counts = "mean_square_error" in metrics
    field, form = ("mean_square_error", ".3f") if counts else ("accuracy", ".1%")
    field = "vqa_accuracy" if "vqa_accuracy" in metrics else field
    cells = [["all", *kinds]]
    for _, scores in rows:
        own = [scores, *(scores["by_type"].get(kind, {}) for kind in kinds)]
        cells.append([f"{one.get(field, 0.0):{form}}" for one in own])
    widths = [max(map(len, (*column, " " * 6))) + 2 for column in zip(*cells, strict=True)]
    labels = [f"{metrics['measure']}, split {metrics['split']}", *(label for label, _ in rows)]
    lines = [
        f"{label:30}" + "".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True))
        for label, line in zip(labels, cells, strict=True)
    ]
    said = f"{metrics['questions']} questions judged" + ("; the lower the better" if counts else "")
    if metrics["oov_answers"]:
        said += f"; {metrics['oov_answers']} have an answer the model cannot give: counted wrong"
    lines.append(said)
    if seeds := metrics.get("seeds"):
        low, high = min(seeds), max(seeds)
        lines.append(
            f"the mean of {len(seeds)} fits; each alone is right on {low:.1%} to {high:.1%}"
        )
    return "\n".join([*lines, *_remarks(metrics)])


def _remarks(metrics: Mapping[str, Any]) -> Iterator[str]:
    if calibration := metrics.get("calibration"):
        before, after = (calibration[name] for name in ("before", "after"))
        yield (f"expected calibration error {after:.3f}, {before:.3f} before it was calibrated")
    for name, (lead, low, high) in metrics.get("led_by", {}).items():
        yield (
            f"WARNING: {_LABELS.get(name, name)} is better, by {lead:.3f} ({low:.3f} to {high:.3f})"
        )
    if metrics["random_weights"]:
        yield ("The features come from RANDOM weights; a real network would give other figures")


def be_local_worker(options: str) -> int:
    """Be one worker of --local-workers, whose parent gives it `options` as JSON."""
    from framebank.train.workers.local_workers import end_with_input

    own_process()
    collect_rarely()
    quiet_google()
    threading.Thread(target=end_with_input, daemon=True).start()
    with terminal.guarded():
        try:
            return run(argparse.Namespace(**json_text.parse(options)), [])
        except FramebankError as error:
            print(f"framebank: {error}", file=sys.stderr, flush=True)
            return error.exit_status
        except TrainingStopped as stopped:
            return stopped.exit_status


if __name__ == "__main__":
    sys.exit(be_local_worker(sys.argv[1]))
