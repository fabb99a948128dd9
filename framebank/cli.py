"""The command `framebank`: a table of sub-commands, each imported only when it is called.

    framebank extract CLIPS --cache CACHE     decode, run the network, keep the features
    framebank inspect CACHE                   what is in a cache
    framebank ls CACHE --where 'frames>10'    list videos of a cache, filtered and sorted
    framebank like CACHE CLIP|VIDEO_ID        find the videos most like one
    framebank browse CACHE                    look into a cache in the browser
    framebank verify CACHE                    read everything back and name each fault
    framebank export CACHE --to FORMAT OUT    the features as other libraries' files
    framebank questions FILE...               what question files hold, and their odd rows
    framebank train --cache CACHE --questions FILE --model DIR
    framebank finetune --labels FILE CLIPS --out W.weights.h5   train a backbone's last layers
    framebank words QUESTIONS... --out vectors.bin              word vectors, for --embeddings
    framebank score --model DIR --cache CACHE --questions FILE --out DIR
    framebank ask --model DIR VIDEO "what is the man doing?"
    framebank serve --model DIR               the same over HTTP, for programs and a browser
    framebank template build --image IMAGE --out DIR
    framebank ways CLIPS --cache-dir DIR --labels FILE     six ways to classify, compared
    framebank demo                            all of it, on clips it makes itself

Exit status: 0 when every input is accounted for, 1 when the job failed, 2 for a mistake in the
command line, 129, 130 or 143 when a signal stopped it, and 141 when the reader of its output left
(`| head`), as git and the coreutils end.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import importlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from framebank.features import terminal
from framebank.features.commands import config_file, ending
from framebank.features.commands.command_line import CommandParser, near
from framebank.features.errors import FramebankError, JobError, missing_library
from framebank.features.stop_signals import TrainingStopped
from framebank.features.tensorflow_import import collect_rarely, own_process, quiet_google

_READER_LEFT = 141  # 128 + SIGPIPE, which Python ignores


class Command(NamedTuple):
    """A sub-command: the module that holds `add_arguments` and `run`, and what --help says."""

    module: str
    help: str
    takes_beam_options: bool = False
    extra: str = "all"  # of the package, which brings what the command needs
    stays: bool = False  # it goes on until it is told to end, or trains


COMMANDS = {
    "extract": Command(
        "pipelines.extract.command", "decode videos and keep features", True, extra="extract"
    ),
    "plan": Command(
        "pipelines.forecast.command", "say what an extraction will take", True, extra="extract"
    ),
    "inspect": Command("features.commands.inspect_command", "show what a cache holds"),
    "ls": Command("features.browsing.ls_command", "list videos of a cache, filtered and sorted"),
    "like": Command("features.browsing.like_command", "find the videos most like one"),
    "browse": Command(
        "features.browsing.browse_command",
        "look into a cache in the browser",
        extra="browse",
        stays=True,
    ),
    "verify": Command("features.commands.verify_command", "read a cache back and name each fault"),
    "export": Command("features.export.command", "write a cache as other libraries' files"),
    "questions": Command("features.questions.command", "show what question files hold"),
    "train": Command(
        "train.fit.command", "train a model on cached features", extra="train", stays=True
    ),
    "retrain": Command(
        "train.retrain.command", "train again where something is new", extra="train", stays=True
    ),
    "models": Command(
        "train.retrain.models_command", "show and choose the models of a registry", extra="train"
    ),
    "finetune": Command(
        "train.finetune.command", "train a backbone's last layers on labelled clips", stays=True
    ),
    "words": Command("train.word_vectors.command", "train word vectors on question files"),
    "evaluate": Command(
        "train.evaluation.command", "judge a model and write a report", extra="train"
    ),
    "score": Command(
        "pipelines.score.command", "answer a file of questions in batch", True, extra="extract"
    ),
    "ask": Command("features.asking.command", "ask one question about one clip", extra="train"),
    "serve": Command(
        "train.serve.command", "answer questions about clips over HTTP", extra="serve", stays=True
    ),
    "template": Command(
        "pipelines.runners.dataflow.template_command",
        "write a template of jobs for Dataflow",
        extra="gcp",
    ),
    "ways": Command("train.ways.command", "compare six ways to classify videos on one set", True),
    "demo": Command("train.demo.command", "make clips, extract, train, score and ask"),
    "completion": Command(
        "features.commands.completion_command", "print a script for bash, zsh or fish"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit status."""
    if argv is None:
        own_process()
        atexit.register(gc.freeze)  # Python's last look for circles takes most of a second
    words = list(sys.argv[1:] if argv is None else argv)
    with terminal.guarded():
        try:
            try:
                return _answer(words)
            finally:
                terminal.flush()  # or Python finds out while it ends, and has words of its own
        except OSError as error:
            left = terminal.reader_left()
            terminal.drop_output()
            if left:
                return _READER_LEFT
            todo = "give the output another place, then run the same command again"
            got = error.strerror or error
            return _failure(JobError("the output cannot be written", got=got, todo=todo))


def _answer(words: list[str]) -> int:
    while len(words) > 1 and words[0] in ("-q", "--quiet", "-v", "--verbose"):
        words = [words[1], words[0], *words[2:]]  # as if it stood behind the command
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print("\n".join(ending.versions(verbose=terminal.is_verbose() or len(words) > 1)))
        return 0
    if words[0] not in COMMANDS:
        return _mistake(f"no such command: {words[0]!r}{near(words[0], COMMANDS)}\n{_overview()}")
    started_s = time.monotonic()
    if not COMMANDS[words[0]].stays:
        collect_rarely()
    try:
        with parsed(words[0], words[1:], command_parser(words[0])) as (module, args, rest):
            status = int(module.run(args, rest))
            if status == 0:
                terminal.flush()  # to a reader that left nothing more is said
                ending.say_end(module, args, time.monotonic() - started_s)
            return status
    except FramebankError as error:
        return _failure(error)
    except TrainingStopped as stopped:  # its command has said so
        return stopped.exit_status
    except KeyboardInterrupt:
        print("framebank: stopped", file=sys.stderr)
        return 130
    except OSError as error:
        if terminal.reader_left():
            raise
        terminal.flush()  # raises again where it is the output that cannot be written
        return _failure(explained(words[0], error))
    except (ModuleNotFoundError, MemoryError) as error:
        return _failure(explained(words[0], error))


def explained(name: str, error: ModuleNotFoundError | MemoryError | OSError) -> FramebankError:
    """Return what a user of the command `name` is told; raises `error` where it is our mistake."""
    if isinstance(error, ModuleNotFoundError):
        return missing_library(name, error, extra=COMMANDS[name].extra)
    if isinstance(error, MemoryError):
        got = str(error).splitlines()[0] if str(error) else None
        todo = "give it more (ulimit -v, the container's limit), or ask for less at a time"
        return JobError(f"{name} needs more memory than there is", got=got, todo=todo)
    from framebank.features.stores.storage import storage_error

    # Not of a file of the user's: storage explains those.
    path = error.filename if isinstance(error.filename, str) else "a file"
    return storage_error(path, error, "use")


def _failure(error: FramebankError) -> int:
    print(f"framebank: {error}", file=sys.stderr)
    return error.exit_status


def command_parser(name: str, *, kind: type[CommandParser] = CommandParser) -> CommandParser:
    """Return the parser of a command's options."""
    module = _module(name)
    parser = kind(
        prog=f"framebank {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    config_file.take_config(parser, takes_beam=COMMANDS[name].takes_beam_options)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(f"framebank.{COMMANDS[name].module}")


@contextlib.contextmanager
def parsed(
    name: str, words: Sequence[str], parser: CommandParser
) -> Iterator[tuple[Any, argparse.Namespace, list[str]]]:
    """Yield the module of a command, its options and Beam's, as `words` give them."""
    args, rest = parser.parse_known_args(words)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    quiet_google()
    if not COMMANDS[name].takes_beam_options:
        if rest:
            parser.error(f"does not take {' '.join(rest)}{near(rest[0], parser.known_options())}")
        with ending.telling(args):
            yield _module(name), args, rest
        return
    from framebank.pipelines.jobs.beam_options import check_beam_options, quiet_beam

    with quiet_beam(), ending.telling(args):
        if rest:
            check_beam_options(rest, own=parser.known_options())
        yield _module(name), args, rest


def _mistake(message: str) -> int:
    print(f"framebank: {message}", file=sys.stderr)
    return 2


def _overview() -> str:
    lines = ["usage: framebank COMMAND [options]", "", "commands:"]
    lines += [f"  {name:10}{command.help}" for name, command in COMMANDS.items()]
    lines += ["", "framebank COMMAND --help shows the options of a command."]
    return "\n".join(lines)
