"""The kit of pages: what is put into them is escaped, and nothing is left out in silence."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import av
import jinja2
import numpy as np
import pytest

from framebank.features.pages.page import facts_table, jpeg_address, render, short


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
