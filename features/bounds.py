"""Numbers that people give, on the command line or in a file: held to their bounds in one way.

NaN would pass where a bound is asked the wrong way round (`x < 0`), and infinity is above every
lower one; so both are refused here, and nothing else need think of them.
"""

from __future__ import annotations

import math

from framebank.features.errors import UsageError

MOST_INT = 2**31 - 1
MOST_BYTES = 2**63 - 1
MOST_FLOAT = 1e30  # well within float32, in which networks compute
MOST_SEED = 2**32 - 1  # NumPy's, which Keras sets


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
