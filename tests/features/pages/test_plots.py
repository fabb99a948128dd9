"""Plots of a page: good SVG that reads in words."""

from __future__ import annotations

import re
import xml.etree.ElementTree

from framebank.features.pages.plots import curve_plot, learning_curves


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
