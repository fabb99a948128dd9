"""What the launcher image of a Dataflow flex template runs: its parameters become a command line.

Google's launcher calls the file that FLEX_TEMPLATE_PYTHON_PY_FILE names with --NAME=VALUE for each
parameter of the template and for each setting of the job (project, region, machine_type...). The
parameters of a command are those of its own parser; everything else is Beam's.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from framebank.features import terminal
from framebank.features.errors import FramebankError, UsageError

COMMANDS = {
    "extract": "framebank.pipelines.extract.command",
    "score": "framebank.pipelines.score.command",
}
# Not for a template: its launcher prints for nobody, does not wait and shares no disk.
_LEFT_OUT = ("help", "json", "wait", "shared_disk")


def find_parameters(command: str) -> list[argparse.Action]:
    """Return the arguments of a command that are a template's parameters, as in its --help."""
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[command]).add_arguments(parser)
    return [action for action in parser._actions if action.dest not in _LEFT_OUT]


def _words(action: argparse.Action, value: str) -> list[str]:
    """Return what a command line has for this value of a parameter; raises UsageError."""
    if action.nargs == 0:
        if value.lower() not in ("true", "false"):
            raise UsageError(f"{action.dest} is not right", got=value, expected="true or false")
        return [action.option_strings[-1]] if value.lower() == "true" else []
    if not action.option_strings:
        return value.split()
    if action.nargs == "+":
        return [action.option_strings[-1], *value.split()]
    return [f"{action.option_strings[-1]}={value}"]


def build_command_line(words: Sequence[str]) -> list[str]:
    """Return the words of `framebank` for what Google's launcher gives; raises UsageError.

    Which command it is follows from the parameters that only one of them demands.
    """
    given, beams = _split(words)
    needs = {name: {p.dest for p in find_parameters(name) if p.required} for name in COMMANDS}
    fitting = [name for name, required in needs.items() if required <= given.keys()]
    if len(fitting) != 1:
        raise UsageError(
            "these parameters are of no template of Framebank",
            got=", ".join(sorted(given)) or "none",
            expected=" or ".join(", ".join(sorted(required)) for required in needs.values()),
        )
    line = fitting.copy()
    for parameter in sorted(find_parameters(*fitting), key=lambda p: bool(p.option_strings)):
        if value := given.pop(parameter.dest, ""):
            line += _words(parameter, value)
    beams += [f"--{name}={value}" for name, value in given.items()]
    if not any(word.startswith("--runner=") for word in beams):
        beams.append("--runner=DataflowRunner")
    return line + beams


def _split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return --NAME=VALUE and --NAME VALUE by name, and the words that are neither.

    An option that is given twice is a list of Beam's, such as --experiments.
    """
    given: dict[str, str] = {}
    others: list[str] = []
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise UsageError("no parameter", got=name, expected="--NAME=VALUE")
        if not equals and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.pop(0)
        if not equals or name[2:] in given:
            others.append(name + equals + value)
        else:
            given[name[2:]] = value
    return given, others


def main(argv: Sequence[str] | None = None) -> int:
    """Submit the job that a template's parameters describe, and return the exit status."""
    import framebank

    try:
        words = build_command_line(sys.argv[1:] if argv is None else argv)
    except FramebankError as error:
        with terminal.guarded():
            print(f"framebank: {error}", file=sys.stderr)
        return error.exit_status
    return framebank.main(words)


if __name__ == "__main__":
    sys.exit(main())
