"""How the command line is read, the same for every sub-command.

A mistake is told in one message. An option is given once: of two values nobody can say which one
was meant. A path that begins with `~` is taken from the home folder also where the shell leaves it
alone (`--out=~/x`, a quoted glob). No number is NaN or infinite. --help shows every default. Every
command takes --quiet and --verbose. What is mistyped is told with what it is near to.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from framebank.features.bounds import exact_size, parse_size

# Which of the options and arguments that take any text are paths; `tests` hold that each is told.
PATHS = frozenset(
    (
        *("inputs", "cache", "weights", "prices", "questions", "mapping", "model", "out", "video"),
        *("backbone", "registry", "config", "embeddings", "stage_dir", "tensorboard", "labels"),
        *("cache_dir", "clip_weights", "init", "answers", "token_file", "allow"),
    )
)


class CommandParser(argparse.ArgumentParser):
    """argparse with the laws above."""

    _typed: Sequence[str] = ()
    # Adds what stands for words of a command line elsewhere (`config_file.py`).
    widen: Callable[[CommandParser, list[str]], list[str]] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        take_options_once(self)
        self.register("type", float, _finite)
        told = self.add_argument_group("options of every command").add_mutually_exclusive_group()
        for how, text in (
            ("quiet", "say nothing but results, warnings and errors"),
            ("verbose", "say more: versions, each shard, what an error comes from"),
        ):
            # Not there if not given: of a command in a command either may be told.
            told.add_argument(
                f"-{how[0]}", f"--{how}", action="store_const", const=how, dest="verbosity",
                default=argparse.SUPPRESS, help=text,
            )  # fmt: skip

    def error(self, message: str):  # type: ignore[no-untyped-def]
        for word in self._typed if "required" in message else ():  # mistyped, maybe
            is_strange = word.partition("=")[0] not in self.known_options()
            if word.startswith("--") and is_strange and (told := near(word, self.known_options())):
                message += f"; {word} is not known{told}"
        self.exit(2, f"{self.prog}: {message}\n  to do:    see {self.prog} --help\n")

    def _print_message(self, message, file=None):  # type: ignore[no-untyped-def]
        (file or sys.stderr).write(message)  # the library's own hides that nobody reads it

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Return what `words` alone give, whatever they do not name left out."""
        return super().parse_known_args(list(words))[0]

    def check_text(self, action: argparse.Action, text: str) -> None:
        """Raise argparse.ArgumentError for a text that an option does not take."""
        self._check_value(action, self._get_value(action, text))

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        self._typed = list(sys.argv[1:] if args is None else args)
        if self.widen is not None:
            args = self.widen(self, list(self._typed))
            if args != self._typed:  # what the record of a run says that was typed
                namespace = namespace or argparse.Namespace()
                namespace.typed = [*self.prog.split(), *args]
        found, rest = super().parse_known_args(args, namespace)
        for name in PATHS.intersection(vars(found)):
            setattr(found, name, _at_home(getattr(found, name)))
        return found, [_word_at_home(word) for word in rest]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(one) for one in action.choices]
            told = f"invalid choice: {value!r}{near(str(value), known)} (one of {', '.join(known)})"
            raise argparse.ArgumentError(action, told)

    def known_options(self) -> list[str]:
        """Return every option of this command, and of the commands in it."""
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                known += [text for one in action.choices.values() for text in one.known_options()]
        return known

    def format_help(self) -> str:
        for action in self._actions:
            has_one = action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, [])
            if action.option_strings and has_one and "(default" not in (action.help or ""):
                own = exact_size(action.default) if action.type is parse_size else "%(default)s"
                action.help = f"{action.help or ''} (default {own})".strip()
        return super().format_help()


def near(word: str, known: Iterable[str]) -> str:
    """Return the one of `known` that may have been meant, in words; "" where none is near."""
    import difflib

    close = difflib.get_close_matches(word.split("=")[0], list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no number that can be used")
    return number


def _at_home(value: Any) -> Any:
    if isinstance(value, str):
        return os.path.expanduser(value)
    return [_at_home(item) for item in value] if isinstance(value, list) else value


def _word_at_home(word: str) -> str:  # such as --prism_location=~/prism
    name, equals, value = word.partition("=")
    return name + equals + os.path.expanduser(value) if equals else word


def take_options_once(parser: argparse.ArgumentParser) -> None:
    """Have `parser` refuse an option with a second value; what collects values goes on so."""
    for name in (None, "store"):
        parser.register("action", name, StoreOnce)


class StoreOnce(argparse.Action):
    """Store a value; another one for the same option is a mistake."""

    _given: tuple[argparse.Namespace, Any] | None = None

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("nargs") == 0:
            raise ValueError("an option that takes no value stores nothing")
        super().__init__(**kwargs)

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        # By namespace, for a parser may read several command lines.
        before = self._given
        if option_string and before and before[0] is namespace and before[1] != values:
            told = f"given twice, as {_shown(before[1])} and as {_shown(values)}"
            raise argparse.ArgumentError(self, told)
        self._given = (namespace, values)
        setattr(namespace, self.dest, values)


class Collect(argparse.Action):
    """Store a value; of an option that is given several times, the list of its values."""

    _given: tuple[argparse.Namespace, list[Any]] | None = None

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        # By namespace, for a parser may read several command lines.
        before = self._given[1] if self._given and self._given[0] is namespace else []
        self._given = (namespace, [*before, values])
        setattr(namespace, self.dest, values if not before else self._given[1])


def _shown(values: Any) -> str:
    return " ".join(map(str, values)) if isinstance(values, list) else str(values)
