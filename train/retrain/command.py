"""`framebank retrain`: a new model where there is something new, in use only if it is better.

    framebank retrain --init                     writes retrain.toml, with every key and what it is
    framebank retrain --config retrain.toml

Ends within seconds with "nothing new" where cache and question files are as they were. Else trains,
asks the new model and the one in use the same held questions, which neither has seen, and replaces
the one in use only when the new one is better by the config's margin; otherwise the new one is kept
aside in the registry with the reason. Made for a scheduler: it may be killed at any time, and two
may run at once. `framebank models list` shows what came of it; `--dry-run` only says what is new.

New is: a video that the questions are about came, went, or has other features; other bytes of a
question file or the mapping; another value in the config that shapes the model or the judgement.
Another version of Framebank is not.

The exit status is 0 when it ended as it should: promoted, kept aside and nothing new alike, so that
a scheduler neither tries again nor alarms. 1 when the job failed (trying again goes on), 2 for a
mistake in the config (trying again is of no use), 130 or 143 when it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shlex
from typing import TYPE_CHECKING

from framebank.features import terminal
from framebank.features.stop_signals import TrainingStopped, stop_on_signals
from framebank.train.tracking.trackers import add_track_argument, tracked

if TYPE_CHECKING:
    from framebank.train.retrain.retraining import Result

_OF_MODEL = ("model", "train")  # parts of the config that the training itself tells
_say = functools.partial(terminal.say, who="retrain")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="TOML", help="what to train, and when")
    parser.add_argument(
        "--init", nargs="?", const="retrain.toml", metavar="FILE", action=_Init,
        help="write a config to begin with, with every key and its default, and end",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what is new; write nothing"
    )
    add_track_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


class _Init(argparse.Action):
    """Store the path; there need be no --config then."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        parser._option_string_actions["--config"].required = False
        setattr(namespace, self.dest, values)


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Retrain; return the exit status. Raises FramebankError, TrainingStopped."""
    if args.init is not None:
        from framebank.train.retrain.first_config import write_first_config

        write_first_config(args.init)
        print(f"{args.init} is written: set its registry, cache and questions")
        return 0
    result = execute(args, beam_args)
    if args.json:
        print(json.dumps(dataclasses.asdict(result), ensure_ascii=False))
    else:
        named = result.event in ("promoted", "kept aside")
        print(f"{result.event}{f' {result.version}' if named else ''}: {result.reason}")
    return 0


def next_command(args: argparse.Namespace) -> str:
    if args.init is not None:
        return shlex.join(["framebank", "retrain", "--config", args.init, "--dry-run"])
    if args.dry_run:
        return shlex.join(["framebank", "retrain", "--config", args.config])
    return shlex.join(["framebank", "models", "list", "--registry", args.registry])


def execute(args: argparse.Namespace, beam_args: list[str]) -> Result:
    """Retrain. Raises FramebankError, TrainingStopped."""
    from framebank.train.retrain.config import read_config
    from framebank.train.retrain.registry import now
    from framebank.train.retrain.retraining import retrain
    from framebank.train.workers.run import Run

    config = read_config(args.config)
    args.registry = config.registry  # for what comes next
    more = {name: its for name, its in dataclasses.asdict(config).items() if name not in _OF_MODEL}
    title = f"{os.path.basename(config.registry.rstrip('/'))} {now()}"
    track = tracked(args, kind="retrain", say=_say, more=more, title=title)
    with stop_on_signals() as stop, track:
        try:
            run = Run(stop, _say, track=track)
            return retrain(config, run, dry_run=args.dry_run)
        except TrainingStopped as stopped:
            saved = "what was done is saved" if config.work else "nothing was kept (see: work)"
            _say(f"{stopped}; {saved}, and the model in use is as it was")
            raise
