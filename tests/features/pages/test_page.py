"""The kit of pages: what is put into them is escaped, and nothing is left out in silence."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree
from pathlib import Path

import av
import jinja2
import numpy as np
import pytest

from framebank.features.pages.page import (
    curve_plot,
    facts_table,
    jpeg_address,
    learning_curves,
    render,
    short,
)


def test_what_is_put_in_is_escaped_and_must_be_given(tmp_path: Path) -> None:
    template = tmp_path / "page.html.j2"
    template.write_text('{% extends "base.html.j2" %}{% block main %}{{ text }}{% endblock %}')
    page = render(template, text="<script>")
    assert "&lt;script&gt;" in page and "<script>" not in page and "--paper" in page
    with pytest.raises(jinja2.UndefinedError, match="text"):
        render(template)


def test_a_text_is_cut_where_pointing_shows_the_rest() -> None:
    assert short("<b>" * 9, 5).endswith("&lt;b&gt;&lt;…</abbr>") and short("<b>", 3) == "&lt;b&gt;"
    assert f'title="{"&lt;b&gt;" * 9}"' in short("<b>" * 9, 5)


def test_facts_are_escaped() -> None:
    assert facts_table({"a & b": 3, "<c>": '"d"'}) == (
        "<table><tr><th>a &amp; b</th><td>3</td></tr>"
        "<tr><th>&lt;c&gt;</th><td>&quot;d&quot;</td></tr></table>"
    )


def test_a_picture_has_the_size_that_was_asked_for() -> None:
    address = jpeg_address(np.full((90, 120, 3), 200, np.uint8), width=60, height=44)
    data = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    with av.open(io.BytesIO(data)) as jpeg:
        [frame] = jpeg.decode(video=0)
    assert (frame.width, frame.height) == (60, 44)
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - 200).max() < 8


def test_chart_is_good_svg_and_reads_in_words() -> None:
    curves = {"a & b": [(1, 0.2), (2, 0.9)], "c": [(1, 0.2), (2, 0.9)], "none": []}
    chart = curve_plot(curves, title="Right answers, by epoch", is_share=True)
    root = xml.etree.ElementTree.fromstring(chart)
    assert root.attrib["aria-label"] == "Right answers, by epoch: a & b ends at 90%; c ends at 90%"
    places = [float(y) for y in re.findall(r'class="label c\d" x="[\d.]+" y="([\d.]+)"', chart)]
    assert len(places) == 2 and abs(places[0] - places[1]) >= 16  # labels do not cover each other
    assert curve_plot({}, title="x", is_share=False) == ""
    one = curve_plot({"a": [(1, 3.0)]}, title="x", is_share=False)
    assert "nan" not in one and "polyline" in one


def test_curves_are_of_finite_numbers_by_model() -> None:
    rows = [
        {"model": "order_blind", "epoch": 1, "loss": 2.0},
        {"model": "order_blind", "epoch": 2, "loss": float("nan")},
        {"model": "lstm", "epoch": 1, "loss": 1, "val_accuracy": "none"},
    ]
    assert learning_curves(rows, "loss") == {"order blind": [(1, 2.0)], "lstm": [(1, 1)]}
    assert learning_curves(rows, "val_accuracy") == {}
