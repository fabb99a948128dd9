"""Pages from templates of Jinja2 that escape whatever is put into them, and parts of pages.

A template `extends "base.html.j2"`, which has the style, and may import from "parts.html.j2". Plots
are SVG, drawn 320 wide, about as wide as they are shown, so that their text keeps its size.
"""

from __future__ import annotations

import base64
import datetime
import functools
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import jinja2

Curve = Sequence[tuple[float, float]]  # (epoch, value)

_TITLE = 1000  # characters that pointing at a cut text shows
_PLOT = Path(__file__).with_name("plot.svg.j2")
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 310, 12, 202  # edges of the plot in its picture
_MOST_CURVES = 3
_POINTS = 200  # of one curve that are drawn
_QUARTERS = [(step / 4, f"{step / 4:.0%}") for step in range(5)]


def render(template: Path, **values: Any) -> str:
    """Return `template` with `values` as HTML; raises jinja2.UndefinedError for one not given."""
    return _environment(template.parent).get_template(template.name).render(values)


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    import jinja2  # not where a cache is only read

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
    )
    environment.filters["short"] = short
    return environment


def short(text: object, most: int) -> str:
    """Return `text` for HTML in at most `most` characters; pointing at it shows what was cut."""
    from markupsafe import Markup, escape

    whole = str(text)
    if len(whole) <= most:
        return escape(whole)
    cut = Markup('<abbr title="{}">{}…</abbr>')
    return cut.format(whole[:_TITLE], whole[: most - 1].rstrip())


def day(time: str | None) -> str:
    """Return the date of a time as people write it: 29 November 2026."""
    try:
        at = datetime.datetime.fromisoformat(time or "")
    except ValueError:
        return "on a day not known"
    return f"{at.day} {at:%B %Y}"


def facts_table(facts: Mapping[str, object]) -> str:
    """Return a table of names and values, all escaped; a notebook needs no Jinja2 for it."""
    rows = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{''.join(rows)}</table>"


def jpeg_address(rgb: NDArray[np.uint8], *, width: int, height: int) -> str:
    """Return uint8[h, w, 3] (RGB) scaled to an even `width` and `height` as a data: address."""
    return data_address(jpeg_bytes(rgb, width=width, height=height))


def data_address(jpeg: bytes) -> str:
    """Return a JPEG as the data: address that a page shows without a request."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def jpeg_bytes(rgb: NDArray[np.uint8], *, width: int, height: int) -> bytes:
    """Return uint8[h, w, 3] (RGB) scaled to an even `width` and `height` as a JPEG."""
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=1, options={"qmin": "3", "qmax": "6"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        picture = frame.reformat(width, height, format="yuvj420p", interpolation="AREA")
        output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return buffer.getvalue()


def training_plots(history: Sequence[Mapping[str, Any]], *, right: str) -> list[tuple[str, str]]:
    """Return titles and plots of what `history` has: shares of right answers, titled `right`, and
    losses."""
    told = (("val_accuracy", right, True), ("loss", "Loss in training, by epoch", False))
    plots = [
        (title, curve_plot(learning_curves(history, field), title=title, is_share=is_share))
        for field, title, is_share in told
    ]
    return [(title, plot) for title, plot in plots if plot]


def learning_curves(history: Sequence[Mapping[str, Any]], field: str) -> dict[str, Curve]:
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
    spots = [
        {
            "place": _place(one["confidence"], one["accuracy"]),
            "even": _place(one["confidence"], one["confidence"])[1],
            "radius": round(3 + 8 * (one["judged"] / most) ** 0.5, 1),
            "judged": one["judged"],
            "words": f"confidence {one['confidence']:.0%}, {one['accuracy']:.0%} right",
        }
        for one in bins
    ]
    words = "Calibration: " + "; ".join(spot["words"] for spot in spots)
    return _plot(words, "confidence of the model", _QUARTERS, _QUARTERS, spots=spots)


def curve_plot(curves: Mapping[str, Curve], *, title: str, is_share: bool) -> str:
    """Return an SVG of (epoch, value) curves, all drawn on one scale from zero; "" of none."""
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return ""
    last = max(x for curve in curves.values() for x, _ in curve)
    high = 1.0 if is_share else max(y for curve in curves.values() for _, y in curve) * 1.05 or 1.0

    def along(epoch: float) -> float:
        return (epoch - 1) / max(last - 1, 1)

    drawn = {
        name: [
            _place(along(x), y / high)
            for x, y in (*curve[: -1 : -(-len(curve) // _POINTS)], curve[-1])
        ]
        for name, curve in curves.items()
    }
    number = "{:.0%}" if is_share else "{:.3g}"
    ends = (f"{name} ends at {number.format(curve[-1][1])}" for name, curve in curves.items())
    across = _QUARTERS if is_share else [(share, f"{high * share:.2g}") for share, _ in _QUARTERS]
    below = [(along(epoch), str(epoch)) for epoch in _ticks(int(last))]
    return _plot(f"{title}: {'; '.join(ends)}", "epoch", across, below, curves=drawn)


def _ticks(last: int) -> list[int]:
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    step = next((step for step in steps if last / step <= 7), max(last, 1))
    return sorted({1, *range(step, last + 1, step)})


def _plot(
    words: str,
    title: str,
    across: Sequence[tuple[float, str]],
    below: Sequence[tuple[float, str]],
    *,
    spots: Sequence[Mapping[str, Any]] = (),
    curves: Mapping[str, Curve] | None = None,
) -> str:
    from markupsafe import Markup

    edges = {"left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM}
    rows = [(_place(0, share)[1], text) for share, text in across]
    columns = [(_place(share, 0)[0], text) for share, text in below]
    shown = {"rows": rows, "columns": columns, "spots": spots, "curves": curves or {}}
    return Markup(render(_PLOT, words=words, title=title, **edges, **shown))


def _place(x: float, y: float) -> tuple[float, float]:
    """Return where a point of the plot, x and y in [0, 1], is in its picture."""
    return round(_LEFT + x * (_RIGHT - _LEFT), 1), round(_BOTTOM - y * (_BOTTOM - _TOP), 1)
