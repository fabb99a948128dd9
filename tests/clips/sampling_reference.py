"""The sampling contract once more, by brute force in seconds; shares no code with the product."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def reference_rows(
    sample: str,
    times: Sequence[Fraction],
    end: Fraction,
    keys: Sequence[bool] = (),
    most: int | None = None,
) -> list[int]:
    """Return the frame of each row; `times` in order of presentation, `end` of the last frame."""
    name, _, value = sample.partition("=")
    start = times[0]
    rows: list[int] = []
    if name == "keyframes":
        rows = [index for index in range(len(times)) if keys[index]]
    elif name in ("every", "all"):
        step = int(value) if value else 1
        rows = [index for index in range(len(times)) if index % step == 0]
    elif name == "uniform":
        for k in range(int(value)):
            rows.append(
                on_display(times, start + (k + Fraction(1, 2)) * (end - start) / int(value))
            )
    elif name == "fps":
        moment = start
        while moment < end:
            rows.append(on_display(times, moment))
            moment += 1 / Fraction(value)
    return rows if most is None else rows[:most]


def on_display(times: Sequence[Fraction], moment: Fraction) -> int:
    """Return the last frame that is shown at or before `moment`."""
    return max(index for index in range(len(times)) if times[index] <= moment)
