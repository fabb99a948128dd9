"""How the evaluation's page writes numbers and names."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_TITLE = 1000  # characters that pointing at a cut text shows


def percent(share: float) -> str:
    return f"{share:.1%}"


def span(interval: Sequence[float]) -> str:
    """Return "41.0% to 53.2%"."""
    low, high = interval
    return f"{low:.1%} to {high:.1%}"


def error(value: float) -> str:
    """Return a square error; one of seven places or more in powers of ten, lest the page widens."""
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:.2e}"


def square_error(score: Mapping[str, Any]) -> str:
    low, high = score["mean_square_error_interval"]
    return f"{error(score['mean_square_error'])} ({error(low)} to {error(high)})"


def points(ahead: Mapping[str, Any]) -> str:
    """Return a difference with its interval: "12.1 points (5.0 to 19.3) ahead"."""
    difference, (low, high) = ahead["difference"], ahead["interval"]
    where = "behind" if difference < 0 else "ahead"
    if difference < 0:
        low, high = -high, -low
    if ahead["measure"] == "mean square error":
        span_text = f"({error(low)} to {error(high)})".replace("-", "−")
        return f"{error(abs(difference))} {span_text} of mean square error {where}"
    span_text = f"({100 * low:.1f} to {100 * high:.1f})".replace("-", "−")
    return f"{100 * abs(difference):.1f} points {span_text} {where}"


def many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def safe(text: object) -> str:
    return html.escape(str(text))


def short(text: object, most: int) -> str:
    """Return `text` for HTML in at most `most` characters; pointing at it shows what was cut."""
    whole = str(text)
    if len(whole) <= most:
        return safe(whole)
    return f'<abbr title="{safe(whole[:_TITLE])}">{safe(whole[: most - 1].rstrip())}…</abbr>'


def caution(figures: Mapping[str, Any]) -> str:
    """Return what an interval over videos cannot tell here; "" where it can."""
    videos = figures["videos"]
    if videos < 2:
        return "All are about one video, so no interval says how sure that is."
    if figures["correct"] in (0, figures["judged"]) and figures["head"] != "count":
        chance = 1 - 0.05 ** (1 / videos)
        return (
            f"All draws of videos are alike, so the interval says nothing; with {videos} videos "
            f"the true figure may be {100 * chance:.1f} points away."
        )
    return ""


def bar(share: float, interval: Sequence[float] | None = None) -> str:
    """Return a bar of `share` in [0, 1], with a whisker over its interval."""
    whisker = ""
    if interval is not None:
        low, high = interval
        whisker = f'<b style="left:{low:.2%};width:{high - low:.2%}"></b>'
    return f'<span class=bar aria-hidden=true><i style="width:{share:.2%}"></i>{whisker}</span>'
