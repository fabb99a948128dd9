"""Numbers and sizes that people give, on the command line or in a file: read in one way.

NaN would pass where a bound is asked the wrong way round (`x < 0`), and infinity is above every
lower one; so both are refused here, and nothing else need think of them.
"""

from __future__ import annotations

import argparse
import math
import re

from framebank.features.errors import UsageError

MOST_INT = 2**31 - 1
MOST_BYTES = 2**63 - 1
MOST_FLOAT = 1e30  # well within float32, in which networks compute
MOST_SEED = 2**32 - 1  # NumPy's, which Keras sets
_NAMES = ("bytes", "KiB", "MiB", "GiB", "TiB")
_UNITS = ("", *(name.lower() for name in _NAMES[1:]))
_SIZE = re.compile(r"(\d{1,20}|\d{1,6}\.\d{1,6}(?= ?[kmgt]))\s?([kmgt]ib|)", re.IGNORECASE)


def within(
    value: float, low: float, high: float, *, above: bool = False, below: bool = False
) -> bool:
    """Return whether a number is finite and from `low` to `high`; `above` and `below` leave that
    bound itself out."""
    if not (isinstance(value, int) or math.isfinite(value)):
        return False
    return (low < value if above else low <= value) and (value < high if below else value <= high)


def check_number(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    above: bool = False,
    below: bool = False,
) -> None:
    """Raise UsageError, which names the number, where it is not `within` its bounds."""
    if within(value, low, high, above=above, below=below):
        return
    if above:
        said = f"above {low:g} and {'below' if below else 'at most'} {_number(high)}"
    else:
        said = f"between {_number(low)} and {_number(high)}" + f", {high:g} itself not" * below
    raise UsageError(f"{name} must be {said}", got=value)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def parse_size(text: str) -> int:
    """Return the bytes that a text such as "512 MiB" or "1000" says, for an option that takes them.

    Raises argparse.ArgumentTypeError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        told = f"{text!r} is no size: give a number of bytes, or such as 512MiB or 50GiB"
        raise argparse.ArgumentTypeError(told)
    number = float(match[1]) if "." in match[1] else int(match[1])
    return int(number * 1024 ** _UNITS.index(match[2].lower()))


def exact_size(size_bytes: int) -> str:
    """Return a size as `parse_size` reads it, in the largest unit in which it is whole."""
    wholes = [n for n in range(len(_NAMES)) if size_bytes % 1024**n == 0 and size_bytes >= 1024**n]
    power = max(wholes, default=0)
    return f"{size_bytes // 1024**power} {_NAMES[power]}"
