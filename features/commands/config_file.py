"""`--config FILE`: the options of a command from a TOML file, by their names.

    cache = "cache"                       # train.toml, for `framebank train --config train.toml`
    questions = ["questions.csv"]
    model = "model"
    epochs = 30
    no_baselines = true

    [beam]                                # options of Apache Beam, where the command takes them
    runner = "PrismRunner"

What the command line gives wins. A key is an option without its hyphens at the front; an argument
that has no option goes by its name in Python: `inputs` of `extract`, `video` of `ask`. A path that
is not absolute is taken from the folder of the file, as in retrain.toml. What a file says becomes
words of a command line: there is one place that checks them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from framebank.features.commands import command_line
from framebank.features.errors import UsageError

BEAM = "beam"  # the table of the engine's options
_OWN = ("help", "config")  # what a file cannot say
_NOT_ONLY_PATHS = ("weights", "clip_weights", "backbone")  # also a name, or NAME=PATH


def take_config(parser: command_line.CommandParser, *, takes_beam: bool) -> None:
    """Have a command take `--config`, unless it has its own or is several commands."""
    if "--config" not in parser._option_string_actions and parser._subparsers is None:
        parser.add_argument("--config", metavar="TOML", help="a file of options, by their names")
        parser.widen = functools.partial(with_config, takes_beam=takes_beam)


def with_config(
    parser: command_line.CommandParser, words: Sequence[str], *, takes_beam: bool
) -> list[str]:
    """Return `words` with those that the file of their `--config` adds; raises UsageError."""
    path = _path_in(words)
    if path is None or {"-h", "--help"} & set(words):
        return list(words)
    from framebank.features.stores import toml_text

    fields = toml_text.read(path)
    beam = fields.pop(BEAM, {}) if takes_beam else {}
    given = _given(parser, words)
    try:
        texts = _texts_of(parser, fields, path=path)
        engine = _beam_words(beam, words)
    except UsageError as err:
        what = f"{path}: {err.what}"
        raise UsageError(what, got=err.got, expected=err.expected, todo=err.todo) from err
    left = []
    for action, its in texts:
        if action.dest in given:
            continue
        if _is_greedy(action):  # as words it would take those behind it, and it is given once
            action.default, action.required = its, False
        else:
            left.append((action, its))
    options = [word for action, its in left if action.option_strings for word in its]
    places = [(action, its) for action, its in left if not action.option_strings]
    if any(action.dest in given for action in parser._actions if not action.option_strings):
        # Those of the file do not stand beside those that were typed, as argparse wants them to.
        for action, its in places:
            many = action.nargs in ("*", "+")
            action.nargs, action.default = ("*", its) if many else ("?", its[0])
        places = []
    # Before any option: behind one of Beam's an argument would be its value.
    return [*(word for _, its in places for word in its), *options, *engine, *words]


def _path_in(words: Sequence[str]) -> str | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config")
    with contextlib.suppress(argparse.ArgumentError):  # without a value: the parser says so
        found: str | None = finder.parse_known_args(list(words))[0].config
        return None if found is None else os.path.expanduser(found)
    return None


def _given(parser: command_line.CommandParser, words: Sequence[str]) -> set[str]:
    """Return what `words` give, by the names that the parser has for it."""
    ours: list[str] = []
    is_strange = False  # an option of Beam, whose value is no argument of ours
    for word in words:
        if word.startswith("--") and word != "--":
            is_strange = word.partition("=")[0] not in parser.known_options()
            ours += [] if is_strange else [word]
            is_strange &= "=" not in word
        elif not is_strange:
            ours.append(word)
        else:
            is_strange = False
    with _undemanding(parser):
        return set(vars(parser.parse_words(ours)))


@contextlib.contextmanager
def _undemanding(parser: argparse.ArgumentParser) -> Iterator[None]:
    """While inside, the parser asks for nothing and makes nothing up."""
    before = [(action, action.required, action.default, action.nargs) for action in parser._actions]
    groups = [(group, group.required) for group in parser._mutually_exclusive_groups]
    for action in parser._actions:
        action.required, action.default = False, argparse.SUPPRESS
        if not action.option_strings:
            action.nargs = "*" if action.nargs in ("*", "+") else "?"
    for group, _ in groups:
        group.required = False
    try:
        yield
    finally:
        for action, required, default, nargs in before:
            action.required, action.default, action.nargs = required, default, nargs
        for group, required in groups:
            group.required = required


def _texts_of(
    parser: command_line.CommandParser, fields: Mapping[str, Any], *, path: str
) -> list[tuple[argparse.Action, list[str]]]:
    """Return what stands in `fields`, as words for each option or argument. Raises UsageError."""
    names = _names(parser)
    seen: dict[str, str] = {}
    found = []
    for key, value in fields.items():
        action = names.get(key.replace("-", "_"))
        if action is None:
            meant = command_line.near(key, names).strip(" ()")
            known = ", ".join(dict.fromkeys(names))
            raise UsageError("unknown key", got=key, expected=known, todo=meant or None)
        if (other := seen.setdefault(action.dest, key)) != key:
            raise UsageError(f"{other} and {key} are one option", todo="give one of them")
        texts = _texts(parser, action, key, value, path=path)
        if action.option_strings and not _is_greedy(action):
            option = action.option_strings[-1]
            texts = (
                [option] * bool(value)
                if action.nargs == 0
                else [f"{option}={text}" for text in texts]
            )
        found.append((action, texts))
    return found


def _is_greedy(action: argparse.Action) -> bool:
    """Return whether it is an option that takes many values, all at once."""
    once = isinstance(action, command_line.StoreOnce)
    return bool(action.option_strings) and once and action.nargs in ("+", "*")


def _names(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        texts = action.option_strings or [action.dest]
        for text in reversed([text for text in texts if len(text.strip("-")) > 1]):
            found[text.lstrip("-").replace("-", "_")] = action
    return {name: action for name, action in found.items() if name not in _OWN}


def _texts(
    parser: command_line.CommandParser, action: argparse.Action, key: str, value: Any, *, path: str
) -> list[str]:
    """Return the words for a value of the file after a look at it. Raises UsageError."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise _mistake(key, value, "true or false")
        return []
    takes_many = action.nargs in ("+", "*") or not isinstance(action, command_line.StoreOnce)
    if isinstance(value, list) and not (takes_many and value):
        raise _mistake(key, value, "at least one value" if takes_many else "one value, no list")
    texts = []
    for one in value if isinstance(value, list) else [value]:
        text = _text(action, key, one)
        if action.dest in command_line.PATHS:
            text = _placed(text, action.dest, path)
        try:
            parser.check_text(action, text)
        except argparse.ArgumentError as err:
            raise _mistake(key, one, err.message) from err
        texts.append(text)
    return texts


def _text(action: argparse.Action, key: str, value: Any) -> str:
    kinds: tuple[type, ...] = {int: (int,), float: (int, float)}.get(action.type, (str, int, float))  # type: ignore[call-overload,arg-type]
    if isinstance(value, bool) or not isinstance(value, kinds) or value == "":
        told = {int: "a whole number", float: "a number"}
        raise _mistake(key, value, told.get(action.type, 'a text in "quotes"'))  # type: ignore[call-overload,arg-type]
    if "\0" in str(value):
        raise _mistake(key, value, "a text without the character 0")
    return str(value)


def _placed(text: str, name: str, config: str) -> str:
    """Return a path of the file; what may be a name as well is a path if it looks like one."""
    from framebank.features.stores import storage, toml_text

    if name not in _NOT_ONLY_PATHS:
        return toml_text.place(text, config=config)
    whose, equals, own = text.rpartition("=")
    there = toml_text.place(own, config=config)
    is_path = (
        "/" in own or own.startswith("~") or (storage.is_local(there) and storage.exists(there))
    )
    return whose + equals + (there if is_path else own)


def _beam_words(fields: Any, words: Sequence[str]) -> list[str]:
    if not isinstance(fields, dict):
        raise _mistake(BEAM, fields, f"a table: [{BEAM}]")
    given = {word.partition("=")[0] for word in words}
    found = []
    for key, value in fields.items():
        option = f"--{key}"
        if option in given or value is False:
            continue
        many = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int | float) for one in many):
            raise _mistake(f"{BEAM}.{key}", value, "a text, a number, true or false")
        found += [option if one is True else f"{option}={one}" for one in many]
    return found


def _mistake(key: str, got: object, expected: str) -> UsageError:
    shown = str(got).lower() if isinstance(got, bool) else repr(got)
    return UsageError(f"the key {key} cannot be used", got=shown, expected=expected)
