"""Reads the TOML files in which people say what a command is to do, and the paths in them."""

from __future__ import annotations

import os
import re
import tomllib
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.stores import storage

# What Python's TOML reader says of a key that is there already.
_TWICE = re.compile(r"overwrite|twice|Duplicate|redefine", re.IGNORECASE)


def read(path: str) -> dict[str, Any]:
    """Return the tables of a TOML file on disk or in a bucket; raises UsageError."""
    text = ""
    try:
        text = storage.read_bytes(path).decode("utf-8")
        return tomllib.loads(text)
    except storage.FileMissingError as err:
        raise UsageError("no such config", got=path, todo="check --config") from err
    except ValueError as err:  # also text that is not UTF-8
        raise _no_toml(path, text, str(err)) from err
    except RecursionError as err:
        raise UsageError(f"{path} is not valid TOML", got="lists nested too deeply") from err


def _no_toml(path: str, text: str, said: str) -> UsageError:
    """Return the error for a text that the TOML reader refuses as it `said`."""
    if not _TWICE.search(said):
        return UsageError(f"{path} is not valid TOML", got=said)
    lines = text.rstrip().split("\n")
    at = re.search(r"at line (\d+)", said)
    number = int(at[1]) if at else len(lines)
    return UsageError(
        f"{path} gives a key or a table twice",
        got=f"{lines[number - 1].strip()} in line {number}, and before",
        todo="keep one of them",
    )


def place(name: str, *, config: str) -> str:
    """Return the path that a config file calls `name`: one that is not absolute is taken from the
    folder of the file."""
    name = os.path.expanduser(name)
    if "://" in name or os.path.isabs(name):
        return name
    return storage.join(os.path.dirname(storage.absolute(config)), name)
