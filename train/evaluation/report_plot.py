"""Plots of the evaluation's page as SVG: calibration, and the curves of training.

They are drawn 320 wide, about as wide as they are shown, so that their text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from framebank.train.evaluation.report_text import percent, safe

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 250, 50, 10, 12, 48
_MOST_CURVES = 3
_POINTS = 200  # of one curve that are drawn
_CURVES = (
    ("val_accuracy", "Right answers in validation, by epoch", True),
    ("loss", "Loss in training, by epoch", False),
)


def plots(figures: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Return the reliability diagram and, where `history` has epochs, the learning curves."""
    shown = [_calibration(figures["calibration"])] if "calibration" in figures else []
    for field, title, is_share in _CURVES:
        if field == "val_accuracy" and figures["epoch_chosen_on"] == "train":
            title = "Right answers to training questions (none was kept back), by epoch"
        curves = learning_curves(history, field)
        if curves:
            shown.append(
                f"<figure><h3>{title}</h3>{curve_plot(curves, title=title, is_share=is_share)}"
                f"{_legend(list(curves))}</figure>"
            )
    text = "" if history else "<p>The model's folder holds no history of its training.</p>"
    return (
        "<section><h2>Sureness and training</h2>"
        f"<div class=grid>{''.join(shown)}</div>{text}</section>"
    )


def _calibration(calibration: Mapping[str, Any]) -> str:
    return (
        "<figure><h3>How sure it is, how right it is</h3>"
        f"{calibration_plot(calibration['bins'])}"
        "<p class=soft>A dot for every tenth of sureness, the larger the more answers; on the "
        "dashed line it would be right as often as it thinks. Expected calibration error "
        f"{percent(calibration['expected_error'])}.</p></figure>"
    )


def learning_curves(
    history: Sequence[Mapping[str, Any]], field: str
) -> dict[str, list[tuple[float, float]]]:
    """Return (epoch, value) of each model in `history` that has the `field`, in its order."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in history:
        value = row.get(field)
        if isinstance(value, (int, float)) and math.isfinite(value):
            name = str(row["model"]).replace("_", " ")
            curves.setdefault(name, []).append((row["epoch"], value))
    return dict(list(curves.items())[:_MOST_CURVES])


def calibration_plot(bins: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG with a dot per bin, the larger the more answers are in it."""
    most = max(one["judged"] for one in bins)
    words = "; ".join(f"{one['confidence']:.0%} sure, {one['accuracy']:.0%} right" for one in bins)
    parts = [_open(f"Calibration: {words}")]
    for step in range(5):
        parts.append(_across(step / 4, f"{step / 4:.0%}"))
        parts.append(_below(step / 4, f"{step / 4:.0%}"))
    parts.append(_title("how sure the model was"))
    (x1, y1), (x2, y2) = _place(0, 0), _place(1, 1)
    parts.append(f'<line class="diagonal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for one in bins:
        x, y = _place(one["confidence"], one["accuracy"])
        _, even = _place(one["confidence"], one["confidence"])
        radius = 3 + 8 * (one["judged"] / most) ** 0.5
        parts.append(f'<line class="gap" x1="{x}" x2="{x}" y1="{y}" y2="{even}"/>')
        parts.append(
            f'<circle class="spot" cx="{x}" cy="{y}" r="{radius:.1f}">'
            f"<title>{one['judged']} answers, {one['confidence']:.0%} sure, "
            f"{one['accuracy']:.0%} right</title></circle>"
        )
    return "".join(parts) + "</svg>"


def curve_plot(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str, is_share: bool
) -> str:
    """Return an SVG of (epoch, value) curves, all drawn on one scale from zero."""
    last = max(x for curve in curves.values() for x, _ in curve)
    high = 1.0 if is_share else max(y for curve in curves.values() for _, y in curve) * 1.05 or 1.0
    ends = (
        f"{name} ends at " + (f"{curve[-1][1]:.0%}" if is_share else f"{curve[-1][1]:.3g}")
        for name, curve in curves.items()
    )
    parts = [_open(f"{title}: {'; '.join(ends)}")]
    for step in range(5):
        value = high * step / 4
        parts.append(_across(step / 4, f"{value:.0%}" if is_share else f"{value:.2g}"))
    for epoch in _ticks(int(last)):
        parts.append(_below(_along(epoch, last), str(epoch)))
    parts.append(_title("epoch"))
    for number, curve in enumerate(curves.values()):
        step = -(-len(curve) // _POINTS)
        points = (_place(_along(x, last), y / high) for x, y in curve[::step])
        text = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline class="curve c{number}" points="{text}"/>')
        x, y = _place(_along(curve[-1][0], last), curve[-1][1] / high)
        parts.append(f'<circle class="c{number}" cx="{x}" cy="{y}" r="2.5"/>')
    return "".join(parts) + "</svg>"


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><line class="curve c{number}" x1="0" '
        f'x2="26" y1="5" y2="5"/></svg>{safe(name)}</li>'
        for number, name in enumerate(names)
    )
    return f"<ul class=legend>{items}</ul>"


def _along(epoch: float, last: float) -> float:
    return (epoch - 1) / max(last - 1, 1)


def _ticks(last: int) -> list[int]:
    step = next(
        (step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if last / step <= 7), max(last, 1)
    )
    return sorted({1, *range(step, last + 1, step)})


def _open(words: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{safe(words)}">'
    )


def _across(share: float, text: str) -> str:
    """Return the line at a height of `share` of the plot, with its number at the left."""
    _, y = _place(0, share)
    return (
        f'<line class="gridline" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 5}" text-anchor="end">{text}</text>'
    )


def _below(share: float, text: str) -> str:
    x, y = _place(share, 0)
    anchor = "end" if share == 1 else "middle"
    return f'<text x="{x}" y="{y + 24}" text-anchor="{anchor}">{text}</text>'


def _title(text: str) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return f'<text x="{middle}" y="{_HEIGHT - 7}" text-anchor="middle">{text}</text>'


def _place(x: float, y: float) -> tuple[float, float]:
    across = _LEFT + x * (_WIDTH - _LEFT - _RIGHT)
    return round(across, 1), round(_HEIGHT - _BOTTOM - y * (_HEIGHT - _BOTTOM - _TOP), 1)
