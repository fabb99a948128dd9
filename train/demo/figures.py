"""Figures of the demo's page: the frames that the network saw in a row, and curves as SVG."""

from __future__ import annotations

import base64
import html
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Curve = Sequence[tuple[float, float]]  # (epoch, value)

_THUMB_HEIGHT = 72
_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 132, 14, 34


def frame_strip(clip: Path, frame_indices: Sequence[int]) -> str:
    """Return a data: address of a JPEG with the frames side by side, in the order given."""
    import av

    wanted = set(frame_indices)
    found: dict[int, NDArray[np.uint8]] = {}
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                width = 2 * round(frame.width * _THUMB_HEIGHT / frame.height / 2)
                found[index] = frame.to_ndarray(format="rgb24", width=width, height=_THUMB_HEIGHT)
    strip = np.concatenate([found[index] for index in frame_indices], axis=1)
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(strip)).decode()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8[h, w, 3] (RGB) as a JPEG."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=1, options={"qmin": "3", "qmax": "5"})
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuvj420p"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return buffer.getvalue()


def line_chart(curves: Mapping[str, Curve], *, title: str, percent: bool) -> str:
    """Return an SVG of one curve per label, each named at its right end."""
    curves = {label: curve for label, curve in curves.items() if curve}
    if not curves:
        return ""
    last = max(max(x for x, _ in curve) for curve in curves.values())
    high = 1.0 if percent else max(max(y for _, y in curve) for curve in curves.values()) * 1.05
    scale_x = (_WIDTH - _LEFT - _RIGHT) / max(last - 1, 1)
    scale_y = (_HEIGHT - _TOP - _BOTTOM) / max(high, 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x - 1) * scale_x, _HEIGHT - _BOTTOM - y * scale_y

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(_in_words(curves, title, percent))}">'
    ]
    for step in range(5):
        value = high * step / 4
        x, y = place(1, value)
        text = f"{value:.0%}" if percent else f"{value:.2g}"
        parts.append(
            f'<line class="grid" x1="{x}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for epoch in _ticks(int(last)):
        x, y = place(epoch, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{epoch}</text>')
    ends = _spread([place(*curve[-1])[1] for curve in curves.values()], gap=17)
    for number, ((label, curve), end) in enumerate(zip(curves.items(), ends, strict=True)):
        points = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve)
        x, y = place(*curve[-1])
        parts.append(f'<polyline class="curve c{number}" points="{points}"/>')
        parts.append(f'<circle class="dot c{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        parts.append(
            f'<text class="label c{number}" x="{x + 9:.1f}" y="{end + 4:.1f}">'
            f"{html.escape(label)}</text>"
        )
    parts.append("</svg>")
    return "".join(parts)


def _in_words(curves: Mapping[str, Curve], title: str, percent: bool) -> str:
    ends = (
        f"{label} ends at {curve[-1][1]:.0%}" if percent else f"{label} ends at {curve[-1][1]:.3f}"
        for label, curve in curves.items()
    )
    return f"{title}, by epoch: " + "; ".join(ends)


def _ticks(last: int) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if last / step <= 8)
    return sorted({1, *range(step, last + 1, step)})


def _spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Move labels that would cover each other apart, keeping their order."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    moved = list(places)
    for before, after in itertools.pairwise(order):
        moved[after] = max(moved[after], moved[before] + gap)
    over = max(moved, default=0) - (_HEIGHT - _BOTTOM)
    return [place - over if over > 0 else place for place in moved]
