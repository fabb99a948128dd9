"""Reads JSON that others may have written, or changed: the one place where it is parsed.

Whatever is wrong with a text is a ValueError with words, also what nests so deeply that what walks
it would run out of stack: a reader that explains a ValueError explains them all.
"""

from __future__ import annotations

import json
import math
from typing import Any

from framebank.features.errors import CacheError
from framebank.features.stores import storage

MOST_LEVELS = 100  # lists and objects in one another; Python's own limit depends on who asks


def parse(text: str | bytes | bytearray, **hooks: Any) -> Any:
    """Return the value of a JSON text; raises ValueError.

    NaN and Infinity, which Python writes, are taken unless `parse_constant` refuses them; a number
    that is too large for a float is not. The hooks are those of `json.loads`.
    """
    try:
        value = json.loads(text, **{"parse_float": _finite, **hooks})
        _check_levels(value)
    except RecursionError:
        raise ValueError(f"nested too deeply (more than {MOST_LEVELS} levels)") from None
    except UnicodeDecodeError as err:
        raise ValueError(f"bytes that are no UTF-8, from byte {err.start}") from None
    except ValueError as err:
        if "integer string conversion" in str(err):  # Python's words are about Python
            raise ValueError("a number that is too long") from None
        raise
    except MemoryError:
        raise ValueError("more than fits into memory") from None
    return value


def parse_object(text: str | bytes | bytearray) -> dict[str, Any]:
    """Return the fields of a JSON text that must be an object; raises ValueError."""
    value = parse(text)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {_kind(value)} where an object was expected")
    return value


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """Return the objects of JSON lines, a line for each; raises ValueError."""
    # Not splitlines(): that also cuts at characters that are legal inside a JSON string.
    return [parse_object(line) for line in data.decode().split("\n") if line]


def read_object(path: str, *, todo: str | None = None) -> dict[str, Any]:
    """Return the fields of a file that is one JSON object.

    Raises CacheError with `todo` for one that is not, and what `storage.read_bytes` raises.
    """
    try:
        return parse_object(storage.read_bytes(path))
    except ValueError as err:
        raise CacheError(f"{path} is damaged", got=err, todo=todo) from err


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:40]} is out of range")
    return number


def _check_levels(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_LEVELS + 1):
        if not level:
            return
        level = [
            item
            for holder in level
            for item in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(item, dict | list)
        ]
    raise RecursionError


def _kind(value: Any) -> str:
    names = {list: "list", str: "text", bool: "flag", type(None): "null"}
    return names.get(type(value), "number")
