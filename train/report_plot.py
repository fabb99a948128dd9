"""The plot of calibration as SVG: how often the model is right, by how sure it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 320, 46, 40, 14, 20


def calibration_plot(bins: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG with a dot per bin, the larger the more questions are in it."""
    most = max(one["judged"] for one in bins)
    words = "; ".join(f"{one['confidence']:.0%} sure, {one['accuracy']:.0%} right" for one in bins)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Calibration: {words}">'
    ]
    for step in range(5):
        value = step / 4
        x, y = _place(value, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{value:.0%}</text>')
        low = _HEIGHT - _BOTTOM + 18
        parts.append(f'<text x="{x}" y="{low}" text-anchor="middle">{value:.0%}</text>')
    (x1, y1), (x2, y2) = _place(0, 0), _place(1, 1)
    parts.append(f'<line class="diagonal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    places = [_place(one["confidence"], one["accuracy"]) for one in bins]
    line = " ".join(f"{x},{y}" for x, y in places)
    parts.append(f'<polyline class="curve c0" points="{line}"/>')
    for one, (x, y) in zip(bins, places, strict=True):
        radius = 3 + 9 * (one["judged"] / most) ** 0.5
        parts.append(f'<circle class="spot" cx="{x}" cy="{y}" r="{radius:.1f}"/>')
    return "".join(parts) + "</svg>"


def _place(x: float, y: float) -> tuple[float, float]:
    across = _LEFT + x * (_WIDTH - _LEFT - _RIGHT)
    return round(across, 1), round(_HEIGHT - _BOTTOM - y * (_HEIGHT - _BOTTOM - _TOP), 1)
