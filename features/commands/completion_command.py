"""`framebank completion SHELL`: print a script that completes commands, options and their values.

    bash    eval "$(framebank completion bash)"                      in ~/.bashrc
    zsh     framebank completion zsh > ~/.zfunc/_framebank           a folder of $fpath
    fish    framebank completion fish > ~/.config/fish/completions/framebank.fish

The script is made from the parsers of all commands and holds all that they take: pressing Tab
starts no Python. Make it anew after another version of Framebank was installed. Takes a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from framebank.features.commands.command_line import PATHS, CommandParser

_RUNNERS = ("DirectRunner", "PrismRunner", "FlinkRunner", "DataflowRunner")
_MOST_HELP = 70


@dataclasses.dataclass(frozen=True)
class Value:
    """An option, or with no `names` an argument: what it takes, if anything."""

    names: tuple[str, ...]
    help: str
    takes: bool = True
    choices: tuple[str, ...] = ()
    is_path: bool = False
    many: bool = False


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a command takes; `inner` are the commands in it, by name."""

    help: str
    options: tuple[Value, ...]
    places: tuple[Value, ...]
    inner: Mapping[str, Taken] = dataclasses.field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="for which the script is")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Print the script; returns 0."""
    print("\n".join(SHELLS[args.shell](find_commands())))
    return 0


def next_command(args: argparse.Namespace) -> str:
    """Nothing: this may run whenever a shell starts."""
    return ""


def find_commands() -> dict[str, Taken]:
    """Return what each command takes; of one whose libraries are not there, its name alone."""
    from framebank import cli

    found = {}
    for name, command in cli.COMMANDS.items():
        try:
            parser = cli.command_parser(name)
        except ModuleNotFoundError:
            found[name] = Taken(command.help, (), ())
            continue
        taken = _taken(parser, command.help)
        if command.takes_beam_options:
            runner = Value(("--runner",), "Apache Beam's: where the job runs", choices=_RUNNERS)
            taken = dataclasses.replace(taken, options=(*taken.options, runner))
        found[name] = taken
    return found


def _taken(parser: CommandParser, told: str) -> Taken:
    options: list[Value] = []
    places: list[Value] = []
    inner: dict[str, Taken] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {one.dest: one.help or "" for one in action._choices_actions}
            for name, own in action.choices.items():
                inner[name] = _taken(own, texts.get(name, ""))
            continue
        value = Value(
            names=tuple(action.option_strings),
            help=_short(parser, action),
            takes=action.nargs != 0,
            choices=tuple(map(str, action.choices or ())),
            is_path=action.dest in PATHS,
            many=action.nargs in ("*", "+"),
        )
        (options if action.option_strings else places).append(value)
    return Taken(told, tuple(options), tuple(places), inner)


def _short(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = " ".join(parser._get_formatter()._expand_help(action).split()) if action.help else ""
    text = text.partition(" (default")[0]
    return text if len(text) <= _MOST_HELP else text[: _MOST_HELP - 1].rstrip() + "…"


def _with_inner(commands: Mapping[str, Taken]) -> Iterator[tuple[str, Taken]]:
    """Yield each command, and those in it as "models list"."""
    for name, taken in commands.items():
        yield name, taken
        yield from ((f"{name} {inner}", own) for inner, own in taken.inner.items())


def bash_script(commands: Mapping[str, Taken]) -> Iterator[str]:
    """Yield the lines of a script for bash, 3.2 and later; where it has nothing, files come."""
    groups = [name for name, taken in commands.items() if taken.inner]
    yield from _BASH_START.format(groups="|".join(groups)).splitlines()
    yield from ("    case $command:$before in",)
    for name, taken in _with_inner(commands):
        by_choices: dict[tuple[str, ...], list[str]] = {}
        for option in taken.options:
            if option.takes:
                by_choices.setdefault(option.choices, []).extend(option.names)
        for choices, names in by_choices.items():
            pattern = "|".join(shlex.quote(f"{name}:{text}") for text in names)
            yield f"        {pattern}) words={_quoted(choices)} is_value=1 ;;"
    yield from ("    esac", "    if [[ -z $is_value ]]; then case $command in")
    top = ("-h", "--help", "-V", "--version")
    yield f"        '') words={_quoted(commands)} options={_quoted(top)} ;;"
    for name, taken in _with_inner(commands):
        words = [*taken.inner, *(one for place in taken.places for one in place.choices)]
        options = [text for option in taken.options for text in option.names]
        yield f"        {shlex.quote(name)}) words={_quoted(words)} options={_quoted(options)} ;;"
    yield from _BASH_END.splitlines()


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


_BASH_START = """\
# Completes framebank in bash; made by `framebank completion bash`.
_framebank() {{
    local now=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local command= inner= words= options= is_value= word i
    # An equals sign is a word of its own here.
    if [[ $now == = ]]; then now=
    elif [[ $before == = ]]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if [[ $word == -* ]]; then continue
        elif [[ -z $command ]]; then command=$word
        elif [[ -z $inner ]]; then inner=" $word"; fi
    done
    case $command in {groups}) command=$command$inner ;; esac
"""
_BASH_END = """\
    esac; fi
    if [[ $now == -* ]]; then words=$options; fi
    COMPREPLY=($(compgen -W "$words" -- "$now"))
}
complete -o bashdefault -o default -F _framebank framebank"""


def zsh_script(commands: Mapping[str, Taken]) -> Iterator[str]:
    """Yield the lines of a script for zsh, to be a file of $fpath or read by `source`."""
    yield "#compdef framebank"
    yield "# Completes framebank in zsh; made by `framebank completion zsh`."
    for name, taken in _with_inner(commands):
        yield f"_framebank_{name.replace(' ', '_')}() {{"
        if taken.inner:
            yield from _zsh_choice(taken.inner, f"_framebank_{name}_")
        else:
            specs = [spec for option in taken.options for spec in _zsh_options(option)]
            specs += [_zsh_place(number, place) for number, place in enumerate(taken.places, 1)]
            yield f"    _arguments -S {' '.join(map(shlex.quote, specs))}"
        yield "}"
    yield "_framebank() {"
    yield from _zsh_choice(commands, "_framebank_")
    yield "}"
    yield 'if [[ $funcstack[1] == _framebank ]]; then _framebank "$@"'
    yield "else compdef _framebank framebank; fi"


def _zsh_choice(commands: Mapping[str, Taken], start: str) -> Iterator[str]:
    named = " ".join(
        shlex.quote(f"{name}:{taken.help.replace(':', ' -')}") for name, taken in commands.items()
    )
    yield "    local state line"
    yield "    local -a named"
    yield f"    named=({named})"
    yield "    _arguments -C '1: :->command' '*:: :->rest'"
    yield "    case $state in"
    yield "        command) _describe command named ;;"
    yield "        rest) case $line[1] in"
    yield from (f"            {name}) {start}{name} ;;" for name in commands)
    yield "        esac ;;"
    yield "    esac"


def _zsh_options(option: Value) -> Iterator[str]:
    told = _zsh_plain(option.help)
    for name in option.names:
        if not option.takes:
            yield f"({' '.join(option.names)}){name}[{told}]"
        else:
            yield f"*{name}=[{told}]:value:{_zsh_action(option)}"


def _zsh_place(number: int, place: Value) -> str:
    which = "*" if place.many else str(number)
    return f"{which}:{_zsh_plain(place.help)}:{_zsh_action(place)}"


def _zsh_action(value: Value) -> str:
    if value.choices:
        return f"({' '.join(value.choices)})"
    return "_files" if value.is_path else ""


def _zsh_plain(text: str) -> str:
    return "".join(f"\\{char}" if char in "[]:\\" else char for char in text)


def fish_script(commands: Mapping[str, Taken]) -> Iterator[str]:
    """Yield the lines of a script for fish."""
    yield "# Completes framebank in fish; made by `framebank completion fish`."
    yield "complete -c framebank -n __fish_use_subcommand -f"
    yield "complete -c framebank -n __fish_use_subcommand -s V -l version -d 'which this is'"
    for name, taken in commands.items():
        yield _fish("__fish_use_subcommand", "-f", "-a", name, "-d", taken.help)
    for name, taken in _with_inner(commands):
        given = [f"__fish_seen_subcommand_from {word}" for word in name.split()]
        for inner, own in taken.inner.items():
            also = f"not __fish_seen_subcommand_from {' '.join(taken.inner)}"
            yield _fish(f"{given[0]}; and {also}", "-f", "-a", inner, "-d", own.help)
        where = "; and ".join(given)
        for option in taken.options:
            yield _fish(where, *_fish_names(option.names), *_fish_value(option), "-d", option.help)
        for place in taken.places:
            if place.choices:
                yield _fish(where, "-f", "-a", " ".join(place.choices), "-d", place.help)


def _fish(where: str, *words: str) -> str:
    return " ".join(("complete -c framebank -n", *map(_fish_quoted, (where, *words))))


def _fish_quoted(word: str) -> str:
    text = word.replace("\\", "\\\\").replace("'", "\\'")
    return word if word.startswith("-") and word.isascii() and " " not in word else f"'{text}'"


def _fish_names(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield from ("-l", name[2:]) if name.startswith("--") else ("-s", name[1:])


def _fish_value(option: Value) -> tuple[str, ...]:
    if not option.takes:
        return ()
    if option.choices:
        return ("-x", "-a", " ".join(option.choices))
    return ("-r", "-F") if option.is_path else ("-x",)


SHELLS = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
