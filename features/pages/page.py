"""Pages from templates of Jinja2 that escape whatever is put into them, and parts of pages.

A template `extends "base.html.j2"`, which has the style, and may import from "parts.html.j2".
"""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import jinja2

_TITLE = 1000  # characters that pointing at a cut text shows


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


def facts_table(facts: Mapping[str, object]) -> str:
    """Return a table of names and values, all escaped; a notebook needs no Jinja2 for it."""
    rows = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{''.join(rows)}</table>"


def jpeg_address(rgb: NDArray[np.uint8], *, width: int, height: int) -> str:
    """Return uint8[h, w, 3] (RGB) scaled to an even `width` and `height` as a data: address."""
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=1, options={"qmin": "3", "qmax": "6"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        picture = frame.reformat(width, height, format="yuvj420p", interpolation="AREA")
        output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
