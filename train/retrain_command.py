"""`framebank retrain`: a new model where there is something new, in use only if it is better.

    framebank retrain --config retrain.toml

Ends within seconds with "nothing new" where cache and question files are as they were. Else trains,
asks the new model and the one in use the same held questions, which neither has seen, and replaces
the one in use only when the new one is better by the config's margin; otherwise the new one is kept
aside in the registry with the reason. Made for a scheduler: it may be killed at any time, and two
may run at once. `framebank models list` shows what came of it. The exit status is 0 in all three
cases.
"""

from __future__ import annotations

import argparse
import json
import sys

from features.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="TOML", help="what to train, and when")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Retrain; return the exit status (130 after Ctrl-C). Raises FramebankError."""
    if beam_args:
        raise UsageError("unknown option", got=" ".join(beam_args), todo="framebank retrain --help")
    from train.retrain_config import read_config
    from train.retraining import retrain
    from train.stopping import TrainingStopped, stop_on_signals

    config = read_config(args.config)
    with stop_on_signals() as stop:
        try:
            result = retrain(config, stop=stop, say=_say)
        except TrainingStopped as stopped:
            saved = "what was done is saved" if config.work else "nothing was kept (see: work)"
            _say(f"{stopped}; {saved}, and the model in use is as it was")
            return stopped.exit_status
    if args.json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        name = "" if result.event == "nothing new" or result.version is None else result.version
        print(f"{result.event}{f' {name}' if name else ''}: {result.reason}")
    return 0


def _say(text: str) -> None:
    print(f"retrain: {text}", file=sys.stderr, flush=True)
