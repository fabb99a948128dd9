"""The demo's canvas: shapes cover the area that geometry says, wherever they lie."""

from __future__ import annotations

import math

import numpy as np
import pytest

from framebank.train.demo.drawing import Canvas, shade

WHITE = (255.0, 255.0, 255.0)


def _canvas() -> Canvas:
    return Canvas(np.zeros((200, 300, 3), np.float32))


def _area(canvas: Canvas) -> float:
    """Return the white area in squared heights."""
    return float(canvas.pixels[..., 0].sum()) / 255 / canvas.height**2


def test_shapes_cover_their_area() -> None:
    canvas = _canvas()
    assert canvas.aspect == 1.5
    canvas.disc(0.7, 0.5, 0.3, colour=WHITE)
    assert _area(canvas) == pytest.approx(math.pi * 0.09, rel=0.01)
    canvas = _canvas()
    canvas.box(0.101, 0.2, 0.7123, 0.55, colour=WHITE)
    assert _area(canvas) == pytest.approx(0.6113 * 0.35, rel=0.01)
    canvas = _canvas()
    canvas.box(0.1, 0.2, 0.7, 0.5, colour=WHITE, corner=0.1)
    assert _area(canvas) == pytest.approx(0.18 - (4 - math.pi) * 0.01, rel=0.01)
    canvas = _canvas()
    canvas.line((0.3, 0.3), (0.9, 0.8), thickness=0.1, colour=WHITE)
    expected = 0.1 * math.hypot(0.6, 0.5) + math.pi * 0.0025
    assert _area(canvas) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("turned", [False, True])
def test_polygon_may_turn_either_way(turned: bool) -> None:
    corners = [(0.2, 0.1), (1.2, 0.3), (0.6, 0.9)]
    canvas = _canvas()
    canvas.polygon(corners[::-1] if turned else corners, colour=WHITE)
    assert _area(canvas) == pytest.approx(0.36, rel=0.01)


def test_what_lies_outside_is_cut_off_and_nothing_is_left_of_nothing() -> None:
    canvas = _canvas()
    canvas.disc(-1, 0.5, 0.2, colour=WHITE)
    canvas.box(2, 0, 3, 1, colour=WHITE)
    canvas.box(0.5, 0.5, 0.4, 0.6, colour=WHITE)
    canvas.polygon([(0.1, 0.1), (0.2, 0.2), (0.3, 0.3)], colour=WHITE)
    assert _area(canvas) == 0
    canvas.box(-1, -1, 9, 9, colour=WHITE)
    assert _area(canvas) == pytest.approx(1.5)


def test_a_copy_is_its_own_and_colours_mix_at_edges() -> None:
    canvas = _canvas()
    copy = canvas.copy()
    copy.box(0.0025, 0, 1, 1, colour=(200, 100, 50))  # half of the first column
    assert not canvas.pixels.any()
    assert copy.pixels[100, 0] == pytest.approx(np.array([100, 50, 25]), abs=1)
    assert copy.pixels[100, 5] == pytest.approx(np.array([200, 100, 50]))


def test_shade_stays_a_colour() -> None:
    assert shade((200, 100, 0), 0.5) == (100, 50, 0) and shade((200, 100, 0), 2) == (255, 200, 0)
