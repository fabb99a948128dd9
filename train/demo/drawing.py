"""A small canvas for the demo's clips: anti-aliased shapes drawn with numpy alone.

Lengths are in heights of the picture: (0, 0) is the upper left corner, y goes down to 1 and x to
`Canvas.aspect`. A pixel's cover is its signed distance to the shape's edge, clipped to [0, 1]
(https://iquilezles.org/articles/distfunctions2d/), worked out only inside the shape's bounding box.
Dimension letters: h w c image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # red, green, blue in [0, 255]
Point = tuple[float, float]
Plane = NDArray[np.float32]
Distance = Callable[[Plane, Plane], Plane]


class Canvas:
    """Paints shapes one over the other on `pixels` float32[h, w, 3] (RGB, 0–255), in place."""

    def __init__(self, pixels: Plane) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.aspect = self.width / self.height

    def copy(self) -> Canvas:
        return Canvas(self.pixels.copy())

    def disc(self, x: float, y: float, radius: float, *, colour: Colour) -> None:
        """Paint a filled circle."""
        self.line((x, y), (x, y), thickness=2 * radius, colour=colour)

    def box(
        self, left: float, top: float, right: float, bottom: float, *, colour: Colour,
        corner: float = 0.0,
    ) -> None:  # fmt: skip
        """Paint an upright rectangle with round corners of radius `corner`."""
        if right <= left or bottom <= top:
            return
        if corner == 0:  # the quick way: a pixel's cover is a product, and mostly 1
            cover_x = _share_covered(left * self.height, right * self.height, self.width)
            cover_y = _share_covered(top * self.height, bottom * self.height, self.height)
            (columns,), (rows,) = np.nonzero(cover_x), np.nonzero(cover_y)
            if not len(columns) or not len(rows):
                return
            area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            cover = (cover_y[:, None] * cover_x[None, :])[area][..., None]
            self.pixels[area] += cover * (np.asarray(colour, np.float32) - self.pixels[area])
            return
        middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
        half_x = max((right - left) / 2 - corner, 0.0)
        half_y = max((bottom - top) / 2 - corner, 0.0)

        def distance(px: Plane, py: Plane) -> Plane:
            over_x, over_y = np.abs(px - middle_x) - half_x, np.abs(py - middle_y) - half_y
            outside = np.hypot(np.maximum(over_x, 0), np.maximum(over_y, 0))
            inside: Plane = outside + np.minimum(np.maximum(over_x, over_y), 0) - corner
            return inside

        self._paint((left, top, right, bottom), distance, colour=colour)

    def line(self, start: Point, end: Point, *, thickness: float, colour: Colour) -> None:
        """Paint a thick line with round ends."""
        (x0, y0), (x1, y1) = start, end
        step_x, step_y = x1 - x0, y1 - y0
        square = max(step_x * step_x + step_y * step_y, 1e-12)
        half = thickness / 2

        def distance(px: Plane, py: Plane) -> Plane:
            along = np.clip(((px - x0) * step_x + (py - y0) * step_y) / square, 0, 1)
            beside_x, beside_y = px - x0 - along * step_x, py - y0 - along * step_y
            far: Plane = np.hypot(beside_x, beside_y).astype(np.float32) - half
            return far

        bounds = (min(x0, x1) - half, min(y0, y1) - half, max(x0, x1) + half, max(y0, y1) + half)
        self._paint(bounds, distance, colour=colour)

    def polygon(self, corners: list[Point], *, colour: Colour) -> None:
        """Paint a convex polygon, its corners in either direction of turning."""
        ends = zip(corners, corners[1:] + corners[:1], strict=True)
        sides = [(start, end) for start, end in ends if start != end]
        area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in sides)
        if abs(area) < 1e-9:
            return
        turn = math.copysign(1.0, area)

        def beyond(px: Plane, py: Plane, start: Point, end: Point) -> Plane:
            (x0, y0), (x1, y1) = start, end
            over: Plane = (px - x0) * (y1 - y0) - (py - y0) * (x1 - x0)
            return over * np.float32(turn / math.dist(start, end))

        def distance(px: Plane, py: Plane) -> Plane:
            far: Plane = np.maximum.reduce([beyond(px, py, *side) for side in sides])
            return far

        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        self._paint((min(xs), min(ys), max(xs), max(ys)), distance, colour=colour)

    def _paint(
        self, bounds: tuple[float, float, float, float], distance: Distance, *, colour: Colour
    ) -> None:
        scale = self.height
        left, top = (max(math.floor(edge * scale) - 1, 0) for edge in bounds[:2])
        right = min(math.ceil(bounds[2] * scale) + 1, self.width)
        bottom = min(math.ceil(bounds[3] * scale) + 1, self.height)
        if left >= right or top >= bottom:
            return
        px = ((np.arange(left, right, dtype=np.float32) + 0.5) / scale)[None, :]
        py = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / scale)[:, None]
        cover = np.clip(0.5 - distance(px, py) * scale, 0, 1)[..., None]
        patch = self.pixels[top:bottom, left:right]
        patch += cover * (np.asarray(colour, np.float32) - patch)


def _share_covered(start: float, end: float, count: int) -> Plane:
    """Return float32[count]: how much of each pixel lies between `start` and `end` (in pixels)."""
    edges = np.arange(count, dtype=np.float32)
    covered = np.minimum(edges + 1, np.float32(end)) - np.maximum(edges, np.float32(start))
    return np.clip(covered, 0, 1)


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour made darker (`factor` < 1) or lighter (> 1), clipped to 0–255."""
    red, green, blue = (min(max(value * factor, 0.0), 255.0) for value in colour)
    return red, green, blue
