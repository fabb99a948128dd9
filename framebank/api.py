"""The commands as functions: `import framebank as fb; fb.train(cache=…, questions=…, model=…)`.

Each takes the words of its command's options, with underscores for hyphens, checks them as the
command does, and returns what the command would print. Paths may be text or `pathlib.Path`, and an
open cache stands for its path. What goes wrong is a `framebank.FramebankError`; a stop by Ctrl-C is
a KeyboardInterrupt. Progress goes to stderr, or into the notebook.
"""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from framebank import cli
from framebank.features.commands.command_line import CommandParser, near
from framebank.features.errors import UsageError
from framebank.features.stop_signals import TrainingStopped, kept_alive

if TYPE_CHECKING:
    from framebank.features.cache.verify import Report
    from framebank.pipelines.forecast.report import Plan
    from framebank.train.retrain.retraining import Result

    PathLike = str | os.PathLike[str]
    Paths = PathLike | Iterable[PathLike]

P = ParamSpec("P")
R = TypeVar("R")
_BEAM = "beam_options"  # what takes the options of Apache Beam, in the signatures below
# These give the process another temporary folder while they run: several threads take turns.
_TAKES_TURNS = ("extract", "plan", "score", "retrain")
_TURN = threading.RLock()


class _Parser(CommandParser):
    """Tells of a mistake by an exception."""

    def error(self, message: str) -> NoReturn:
        raise _mistake(self.prog.rpartition(" ")[2], message)


def _mistake(name: str, message: str) -> UsageError:
    return UsageError(f"{name}: {message}", todo=f"see help(framebank.api.{name})")


def _command(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function run the command of its name; its signature and docstring are all it has."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **words: P.kwargs) -> Any:
        name = function.__name__
        own = _own_words(name, words, signature.parameters)
        try:
            given = signature.bind(*args, **own).arguments  # type: ignore[arg-type]
        except TypeError as err:
            strange = [word for word in own if word not in signature.parameters]
            meant = near(strange[0], signature.parameters) if strange else ""
            raise _mistake(name, f"{err}{meant}") from None
        return _run(name, given)

    return call


def _own_words(
    name: str, words: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    """Return `words` with an option's other name (`labels` for `questions`) in ours."""
    own = dict(words)
    if own.keys() <= parameters.keys():
        return own
    for action in cli.command_parser(name, kind=_Parser)._actions:
        word = word_of(action)
        for other in map(_plain, action.option_strings):
            if word in parameters and other not in parameters and other in own:
                if word in own:
                    raise _mistake(name, f"{other} and {word} are one: give either")
                own[word] = own.pop(other)
    return own


def _run(name: str, given: Mapping[str, Any]) -> Any:
    try:
        parser = cli.command_parser(name, kind=_Parser)
        words = list(_words(name, parser, given))
        turn = _TURN if name in _TAKES_TURNS else contextlib.nullcontext()
        with turn, kept_alive(), cli.parsed(name, words, parser) as (module, args, rest):
            args.typed = ["framebank", name, *words]  # what says the same
            return module.execute(args, rest)
    except TrainingStopped as stopped:
        raise KeyboardInterrupt(str(stopped)) from None
    except (ModuleNotFoundError, MemoryError, OSError) as error:
        raise cli.explained(name, error) from error


def word_of(action: Any) -> str:
    """Return what an option of a command is called here."""
    if not action.option_strings:
        return str(action.dest)
    return _plain(action.option_strings[-1])


def _plain(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _words(name: str, parser: CommandParser, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the command line that says what a function was `given`."""
    places: list[str] = []
    for action in parser._actions:
        value = given.get(word_of(action))
        if value is None:
            continue
        if not action.option_strings:
            places += _texts(value)
        elif action.nargs != 0:
            yield from (f"{action.option_strings[0]}={text}" for text in _texts(value))
        elif not isinstance(value, bool):
            raise _mistake(name, f"{word_of(action)} is True or False, not {value!r}")
        elif value:
            yield action.option_strings[0]
    for option, value in given.get(_BEAM, {}).items():
        if value is True:
            yield f"--{option}"
        elif value is not None and value is not False:
            yield from (f"--{option}={text}" for text in _texts(value))
    if places:
        yield "--"
        yield from places


def _texts(value: Any) -> list[str]:
    """Return a value, or each of several, as the command line has it."""
    if isinstance(value, PurePath) and value.parts[:1] in (("gs:",), ("s3:",)):
        expected = f"text, such as '{value.parts[0]}//BUCKET/NAME'"
        raise UsageError("a Path cannot name a bucket", got=repr(value), expected=expected)
    if isinstance(value, str | os.PathLike):
        return [str(os.fspath(value))]
    if isinstance(value, Iterable):
        return [text for one in value for text in _texts(one)]
    return [str(value)]


@_command
def extract(
    inputs: Paths,
    *,
    cache: PathLike,
    sample: str | None = None,
    max_frames: int | None = None,
    backbone: Paths = "inception_v3",
    layer: str | Iterable[str] | None = None,
    weights: Paths = "imagenet",
    preprocess: str | None = None,
    input_size: int | None = None,
    dtype: str | None = None,
    resize: str | None = None,
    precision: str = "auto",
    images: bool = False,
    videos_per_shard: int | None = None,
    allow_partial: bool = False,
    strict: bool = False,
    check: str = "whole",
    retry_quarantined: bool = False,
    max_bad_ratio: float = 0.2,
    batch_size: int = 32,
    decoders: int | None = None,
    decode_timeout: float = 60.0,
    max_pixels: int = 2**26,
    wait: bool = False,
    accelerator: str | None = None,
    shared_disk: bool = False,
    **beam_options: Any,
) -> dict[str, Any] | None:
    """Decode videos once, run a frozen network over the sampled frames, keep the features.

    `inputs` are files, folders, globs, gs:// prefixes or manifests. What the cache has already is
    not done again. With a list of names for `backbone` each fills a cache of its own, CACHE/NAME,
    from one decoding. `beam_options` are Apache Beam's (runner="PrismRunner", …).

    Returns the run's summary as a dict: inputs, done, quarantined, frames, … (as --json); of
    several backbones a dict of these by name. None for a job that was submitted and that nobody
    waits for.
    """


@_command
def plan(
    inputs: Paths,
    *,
    cache: PathLike | None = None,
    probes: int = 400,
    no_measure: bool = False,
    prices: PathLike | None = None,
    sample: str | None = None,
    max_frames: int | None = None,
    backbone: Paths = "inception_v3",
    layer: str | Iterable[str] | None = None,
    weights: Paths = "imagenet",
    preprocess: str | None = None,
    input_size: int | None = None,
    dtype: str | None = None,
    resize: str | None = None,
    precision: str = "auto",
    images: bool = False,
    videos_per_shard: int | None = None,
    allow_partial: bool = False,
    strict: bool = False,
    check: str = "whole",
    retry_quarantined: bool = False,
    max_bad_ratio: float = 0.2,
    batch_size: int = 32,
    decoders: int | None = None,
    decode_timeout: float = 60.0,
    max_pixels: int = 2**26,
    wait: bool = False,
    accelerator: str | None = None,
    shared_disk: bool = False,
    **beam_options: Any,
) -> Plan:
    """Say what an extraction will take (frames, bytes, hours) before it is run; writes nothing.

    Takes the words of `extract`. Returns a Plan (framebank.pipelines.forecast.report).
    """


@_command
def train(
    *,
    cache: PathLike,
    questions: Paths,
    model: PathLike,
    format: str | None = None,
    mapping: PathLike | None = None,
    task: str | None = None,
    model_kind: str = "auto",
    embeddings: PathLike | None = None,
    language: str | None = None,
    lr_schedule: str = "cosine",
    precision: str = "float32",
    strategy: str = "none",
    local_workers: int | None = None,
    stage_dir: PathLike | None = None,
    stage_bytes: int = 50 * 2**30,
    answers: int = 1000,
    words: int = 10_000,
    projection: int = 128,
    frame_units: int = 96,
    question_units: int | None = None,
    dense_units: int | None = None,
    dropout: float | None = None,
    frame_dropout: float | None = None,
    segment_units: int = 512,
    segment_dropout: float = 0.5,
    epochs: int = 60,
    batch_size: int = 32,
    learning_rate: float = 0.002,
    warmup_epochs: float = 0.0,
    weight_decay: float = 0.2,
    clip_norm: float = 1.0,
    patience: int = 15,
    val_share: float = 0.1,
    seed: int = 0,
    seeds: int = 1,
    group_by: str | None = None,
    max_unmatched_ratio: float = 0.2,
    checkpoint_every_s: float = 20.0,
    memory_bytes: int = 2**31,
    shuffle_bytes: int = 2**28,
    tensorboard: PathLike | None = None,
    track: str | Sequence[str] = (),
    no_baselines: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train a model on cached features and question files; `model` is the folder that it gets.

    Files of labels or segments may be given as `labels`, here and where models are asked. A run
    that was stopped goes on when it is called again. Returns what metrics.json has, as a dict:
    accuracy (or mean_square_error), by_type, baselines, kind, tried, calibration, epochs, …
    """


@_command
def finetune(
    inputs: Paths,
    *,
    labels: Paths,
    out: PathLike,
    format: str | None = None,
    mapping: PathLike | None = None,
    backbone: str = "inception_v3",
    layer: str | None = None,
    weights: PathLike = "imagenet",
    start: str | int | None = None,
    sample: str = "uniform=4",
    resize: str | None = None,
    images: bool = False,
    head_epochs: int = 60,
    epochs: int = 12,
    patience: int = 6,
    learning_rate: float = 1e-4,
    batch_size: int = 4,
    val_share: float = 0.1,
    group_by: str | None = None,
    max_unmatched_ratio: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
    track: str | Sequence[str] = (),
) -> dict[str, Any]:
    """Train a backbone's last layers, from `start` on, on labelled clips; `out` gets the weights.

    A run that was stopped goes on when it is called again. Returns the figures as a dict: accuracy
    (of the head alone, and fine-tuned, by split), videos, classes, lineage, … (as --json).
    """


@_command
def words(
    questions: Paths,
    *,
    out: PathLike,
    format: str | None = None,
    mapping: PathLike | None = None,
    language: str | None = None,
    size: int = 300,
    window: int = 5,
    min_count: int = 2,
    epochs: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Train word vectors on question files; `out` is what `train` takes as `embeddings`.

    Returns a dict: words, size, texts, seconds, sha256, near (as --json).
    """


@_command
def score(
    *,
    model: PathLike,
    cache: PathLike,
    questions: Paths,
    out: PathLike,
    format: str | None = None,
    mapping: PathLike | None = None,
    top: int = 5,
    questions_per_file: int = 10_000,
    output_format: str = "jsonl",
    split: str | None = None,
    overwrite: bool = False,
    wait: bool = False,
    accelerator: str | None = None,
    shared_disk: bool = False,
    **beam_options: Any,
) -> dict[str, Any] | None:
    """Answer files of questions in batch; `out` gets the answers, one row for each question.

    `beam_options` are Apache Beam's (runner="PrismRunner", …). Returns the summary as a dict:
    questions, answered, accuracy, by_type, … (as --json). None for a job that was submitted and
    that nobody waits for.
    """


@_command
def evaluate(
    *,
    model: PathLike,
    cache: PathLike,
    questions: Paths,
    format: str | None = None,
    mapping: PathLike | None = None,
    split: str | None = None,
    out: PathLike | None = None,
    examples: int = 12,
    max_unmatched_ratio: float = 0.2,
    track: str | Sequence[str] = (),
    no_baselines: bool = False,
) -> dict[str, Any]:
    """Judge a model beside what it must beat, and write OUT/report.html.

    Returns every number as a dict, as OUT/evaluation.json has them.
    """


@_command
def ask(
    video: PathLike,
    question: str = "",
    *,
    model: PathLike,
    choice: str | Sequence[str] = (),
    top: int = 5,
    weights: PathLike | None = None,
    backbone: PathLike | None = None,
    layer: str | None = None,
    sample: str | None = None,
    max_frames: int | None = None,
    dtype: str | None = None,
    resize: str | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
    """Ask a trained model one question about one clip.

    Returns a dict: answers (a list of dicts, the likeliest first, each with answer and
    probability), unknown_words, frames, … (as --json).
    """


@_command
def retrain(*, config: PathLike, track: str | Sequence[str] = (), dry_run: bool = False) -> Result:
    """Train again where there is something new, and use the new model only if it is better.

    `config` is a TOML file. Returns a Result: event ("promoted", "kept aside", "nothing new",
    "something new"), version, reason, figures.
    """


@_command
def questions(
    questions: Paths,
    *,
    format: str | None = None,
    mapping: PathLike | None = None,
    cache: PathLike | None = None,
    seed: int = 0,
    val_share: float = 0.1,
    group_by: str | None = None,
) -> dict[str, Any]:
    """Say what question files hold, and each odd row of theirs.

    Returns a dict: files, sets, odd, refused, and with `cache` what it has of them (as --json).
    """


@_command
def export(
    cache: PathLike, out: PathLike, *, to: str, file_bytes: int = 128 * 2**20
) -> dict[str, Any]:
    """Write the features of a cache as other libraries' files, into the new folder `out`.

    `to` is "npz", "parquet", "webdataset", "tfds" or "yt8m". Returns the summary as a dict: videos,
    frames, files, bytes, … (as --json).
    """


@_command
def ls(
    cache: PathLike,
    *,
    where: str | Sequence[str] = (),
    sort: str | None = None,
    descending: bool = False,
    limit: int | None = None,
) -> dict[str, Any]:
    """List videos of a cache: those for which all conditions hold, such as "duration_s>10".

    Returns a dict: total, rows (a dict for each video, with every column; as --json).
    """


@_command
def like(
    cache: PathLike, video: PathLike, *, count: int = 10, weights: PathLike | None = None
) -> dict[str, Any]:
    """Find the videos of a cache that are most like one of it, or like a clip anywhere.

    Returns a dict: video_id (None of a clip), method, neighbours (a list of dicts, the nearest
    first, each with video_id and cosine), … (as --json).
    """


@_command
def ways(
    inputs: Paths,
    *,
    cache_dir: PathLike,
    labels: Paths,
    sample: str = "uniform=8",
    clip_sample: str = "all",
    backbone: str = "inception_v3",
    weights: PathLike = "imagenet",
    clip_weights: PathLike = "random:0",
    pixels: int = 64,
    precision: str = "float32",
    epochs: int = 40,
    patience: int = 15,
    batch_size: int = 32,
    seed: int = 0,
    group_by: str | None = None,
    **beam_options: Any,
) -> dict[str, Any]:
    """Go six ways to classify videos, on one set, one split and one budget, and compare them.

    Returns what `cache_dir`/report.json holds: ways, best, advice, caches, … (as --json).
    """


@_command
def verify(cache: PathLike) -> Report:
    """Read a whole cache back and name each fault; what is damaged is noted for `extract`.

    Returns a Report: faults (empty for an intact cache), remarks, shards, records, frames, ….
    """
