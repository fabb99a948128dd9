"""The five little plays that the demo films: what stands on the stage and how far the act has gone.

A play is a function of `progress` in [0, 1] alone, so the same pictures shown in reverse order are
its opposite: no single picture, and no mean of pictures, tells loading from unloading. Only the
order does. Lengths are as in `train.demo.drawing`: heights of the picture, y downwards.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from framebank.train.demo.drawing import Canvas, Colour, shade

COLOURS: dict[str, Colour] = {
    "red": (205, 40, 35),
    "green": (45, 150, 60),
    "blue": (40, 80, 200),
    "yellow": (240, 205, 40),
    "white": (240, 240, 238),
}
SKIN, DARK = (226, 178, 140), (38, 34, 40)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One prepared stage: what never moves, and what does.

    `light` is how bright the left and the right edge of the picture are.
    """

    build: Callable[[Canvas], None]
    act: Callable[[Canvas, float], None]
    may_mirror: bool = True
    light: tuple[float, float] = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A kind of clip. `forward` is the right answer where progress goes from 0 to 1."""

    name: str
    thing: str
    forward: str
    backward: str
    questions: tuple[str, ...]
    prepare: Callable[[np.random.Generator, float, Colour], Stage]  # by lot, aspect and colour


def _muted(rng: np.random.Generator, low: float, high: float) -> Colour:
    grey = rng.uniform(low, high)
    red, green, blue = (float(grey + rng.uniform(-18, 18)) for _ in range(3))
    return red, green, blue


def _draw_man(canvas: Canvas, x: float, floor: float, tall: float, *, shirt: Colour) -> None:
    """Draw a man seen from the front; his legs swing with the way that he has gone."""
    swing = 0.10 * tall * math.sin(x / tall * 9)
    hip, neck = floor - 0.45 * tall, floor - 0.80 * tall
    for side in (-1, 1):
        canvas.line((x, hip), (x + side * swing, floor), thickness=0.11 * tall, colour=DARK)
    canvas.line((x, hip), (x, neck + 0.06 * tall), thickness=0.22 * tall, colour=shirt)
    canvas.disc(x, neck - 0.08 * tall, 0.105 * tall, colour=SKIN)


def prepare_truck(rng: np.random.Generator, aspect: float, paint: Colour) -> Stage:
    """A man carries a box into an open truck (0: on the pavement, 1: inside)."""
    sky, street = _muted(rng, 130, 215), _muted(rng, 70, 120)
    side, shirt = _muted(rng, 60, 200), _muted(rng, 30, 220)
    floor = rng.uniform(0.84, 0.9)
    size = rng.uniform(0.27, 0.36)
    left = aspect * rng.uniform(0.51, 0.55)  # the truck's open end
    top, bed = floor - rng.uniform(0.66, 0.72), floor - 0.16
    tall = rng.uniform(0.5, 0.62)
    start = size / 2 + rng.uniform(0.12, 0.18)

    def build(canvas: Canvas) -> None:
        canvas.box(0, 0, canvas.aspect, floor - 0.1, colour=sky)
        canvas.box(0, floor - 0.1, canvas.aspect, 1, colour=street)
        canvas.box(left, top, aspect * 0.9, bed + 0.05, colour=DARK)

    def act(canvas: Canvas, progress: float) -> None:
        walk, lift = min(progress / 0.55, 1.0), max((progress - 0.45) / 0.55, 0.0)
        x = start + walk * (left - 0.2 - start) + lift * (0.36 + 0.3 * size)
        y = floor - 0.03 - size / 2 - (floor - 0.03 - bed) * min(lift * 2.5, 1.0)
        man = min(x, left - 0.06) - size / 2 - 0.02
        _draw_man(canvas, man, floor, tall, shirt=shirt)
        canvas.box(x - size / 2, y - size / 2, x + size / 2, y + size / 2, colour=paint)
        canvas.box(x - size / 2, y - 0.02, x + size / 2, y + 0.02, colour=shade(paint, 0.6))
        canvas.line(
            (man, floor - 0.66 * tall), (min(x, left - 0.04) - size / 3, y + 0.04), thickness=0.06,
            colour=SKIN,
        )  # fmt: skip
        _draw_truck(canvas, left + 0.17, top, bed, floor, paint=side)

    return Stage(build, act)


def _draw_truck(
    canvas: Canvas, left: float, top: float, bed: float, floor: float, *, paint: Colour
) -> None:
    """Draw the truck's near wall, its cab and its wheels, over what is inside."""
    cab = canvas.aspect * 0.9
    canvas.box(left, top, cab, bed + 0.06, colour=paint)
    canvas.box(left - 0.2, bed, cab, bed + 0.07, colour=shade(paint, 0.7))
    canvas.box(cab - 0.01, top + 0.2, cab + 0.3, bed + 0.06, colour=shade(paint, 0.8), corner=0.03)
    for x in (left + 0.05, cab):
        canvas.disc(x, floor - 0.05, 0.09, colour=DARK)
        canvas.disc(x, floor - 0.05, 0.04, colour=(170, 170, 175))


def _on_a_street(
    rng: np.random.Generator, aspect: float, act: Callable[[Canvas, float], None]
) -> Stage:
    """Return a street from a sunlit fence at its left end to a plain house in the shade."""
    light = (rng.uniform(1.0, 1.1), rng.uniform(0.35, 0.5))
    sky, street, wall = _muted(rng, 170, 225), _muted(rng, 80, 130), _muted(rng, 120, 200)
    slats = int(rng.integers(6, 9))
    high, house = rng.uniform(0.2, 0.3), rng.uniform(0.52, 0.6)

    def build(canvas: Canvas) -> None:
        canvas.box(0, 0, aspect, 1, colour=sky)
        canvas.box(0, 0.78, aspect, 1, colour=street)
        for slat in range(slats):
            x = (slat + 0.5) * aspect * 0.42 / slats
            canvas.box(x - 0.025, high, x + 0.025, 0.8, colour=(250, 246, 236), corner=0.01)
        canvas.box(0, high + 0.15, aspect * 0.42, high + 0.2, colour=(250, 246, 236))
        canvas.box(aspect * house, 0.08, aspect, 0.79, colour=shade(wall, 0.6))
        canvas.polygon(
            [(aspect * (house - 0.03), 0.1), (aspect * 1.05, 0.1), (aspect * 1.0, 0.0),
             (aspect * (house + 0.06), 0.0)], colour=(110, 50, 45),
        )  # fmt: skip

    return Stage(build, act, may_mirror=False, light=light)


def prepare_ball(rng: np.random.Generator, aspect: float, paint: Colour) -> Stage:
    """A ball rolls along a street, out of the sun into the shade (0: left end, 1: right end)."""
    radius = rng.uniform(0.2, 0.28)
    start, end = rng.uniform(0.5, 0.9) * radius, aspect - rng.uniform(0.5, 0.9) * radius
    hop, floor = rng.uniform(0.0, 0.12), rng.uniform(0.86, 0.95)

    def act(canvas: Canvas, progress: float) -> None:
        x = start + progress * (end - start)
        y = floor - radius - hop * abs(math.sin(progress * math.pi * 2))
        turn = (x - start) / radius
        canvas.box(x - 0.7 * radius, floor - 0.02, x + 0.7 * radius, floor + 0.02, colour=DARK,
                   corner=0.02)  # fmt: skip
        canvas.disc(x, y, radius, colour=paint)
        for spoke in range(3):
            angle = turn + spoke * 2 * math.pi / 3
            canvas.disc(
                x + 0.55 * radius * math.cos(angle), y + 0.55 * radius * math.sin(angle),
                0.22 * radius, colour=shade(paint, 0.55),
            )  # fmt: skip

    return _on_a_street(rng, aspect, act)


def prepare_car(rng: np.random.Generator, aspect: float, paint: Colour) -> Stage:
    """A car drives along the same street; it looks alike from both ends."""
    long, tall = rng.uniform(0.62, 0.8), rng.uniform(0.24, 0.3)
    start, end = rng.uniform(0.1, 0.3) * long, aspect - rng.uniform(0.1, 0.3) * long
    floor = rng.uniform(0.86, 0.93)

    def act(canvas: Canvas, progress: float) -> None:
        x = start + progress * (end - start)
        top = floor - 0.08 - tall
        canvas.polygon(
            [(x - 0.32 * long, top + 0.02), (x - 0.2 * long, top - 0.15),
             (x + 0.2 * long, top - 0.15), (x + 0.32 * long, top + 0.02)],
            colour=(95, 125, 150),
        )  # fmt: skip
        canvas.box(x - 0.02, top - 0.15, x + 0.02, top + 0.02, colour=paint)
        canvas.box(x - long / 2, top, x + long / 2, floor - 0.05, colour=paint, corner=0.07)
        for side in (-1, 1):
            canvas.disc(x + side * 0.29 * long, floor - 0.06, 0.085, colour=DARK)
            canvas.disc(x + side * 0.29 * long, floor - 0.06, 0.04, colour=(190, 190, 195))

    return _on_a_street(rng, aspect, act)


def prepare_door(rng: np.random.Generator, aspect: float, paint: Colour) -> Stage:
    """A door on its hinge before a sunlit garden (0: shut, 1: open)."""
    wall = _muted(rng, 60, 140)
    wide, high = rng.uniform(0.58, 0.75), rng.uniform(0.74, 0.86)
    hinge = (aspect - wide) / 2 + rng.uniform(-0.12, 0.12)
    floor, angle = rng.uniform(0.93, 0.97), rng.uniform(1.25, 1.5)
    top = floor - high

    def build(canvas: Canvas) -> None:
        canvas.box(0, 0, aspect, 1, colour=wall)
        canvas.box(0, floor, aspect, 1, colour=shade(wall, 0.6))
        canvas.box(hinge - 0.04, top - 0.04, hinge + wide + 0.04, floor, colour=shade(wall, 1.5))
        canvas.box(hinge, top, hinge + wide, floor, colour=(255, 244, 190))
        canvas.box(hinge, floor - 0.3, hinge + wide, floor, colour=(150, 205, 95))
        for leaf in range(5):
            canvas.disc(
                hinge + wide * (0.15 + 0.18 * leaf), floor - 0.33, 0.07, colour=(70, 150, 60)
            )

    def act(canvas: Canvas, progress: float) -> None:
        turn = progress * angle
        free, near = hinge + wide * math.cos(turn), 0.1 * math.sin(turn)
        lit = shade(paint, 1.0 - 0.25 * progress)
        canvas.polygon(
            [(hinge, top), (free, top - near), (free, floor + near), (hinge, floor)], colour=lit
        )
        knob = hinge + wide * 0.86 * math.cos(turn)
        canvas.disc(knob, (top + floor) / 2, 0.035, colour=(60, 50, 30))

    return Stage(build, act)


def prepare_chest(rng: np.random.Generator, aspect: float, paint: Colour) -> Stage:
    """A chest whose lid rises from gold (0: shut, 1: open)."""
    wall, floor_colour = _muted(rng, 90, 200), _muted(rng, 60, 110)
    wide, high = rng.uniform(0.8, 1.0), rng.uniform(0.3, 0.36)
    left, floor = (aspect - wide) / 2 + rng.uniform(-0.1, 0.1), rng.uniform(0.88, 0.94)
    rise = rng.uniform(0.36, 0.44)
    top = floor - high

    def build(canvas: Canvas) -> None:
        canvas.box(0, 0, aspect, 1, colour=wall)
        canvas.box(0, floor - 0.12, aspect, 1, colour=floor_colour)

    def act(canvas: Canvas, progress: float) -> None:
        right = left + wide
        raised = rise * math.sin(progress * math.pi / 2)
        edge, slant = top - 0.1 - raised, 0.05 * progress
        lid = [(left - slant, edge), (right + slant, edge), (right, top), (left, top)]
        canvas.polygon(lid, colour=shade(paint, 1.0 - 0.55 * progress))
        for coin in range(7):  # they come into sight with the lid
            x, sunk = left + wide * (0.08 + 0.14 * coin), 0.12 * (1 - progress)
            if progress > 0.05:
                canvas.disc(x, top + sunk, 0.09 * min(progress * 2, 1), colour=(255, 205, 50))
        canvas.box(left, top, right, floor, colour=shade(paint, 0.85))
        canvas.box(
            (left + right) / 2 - 0.05, top - 0.02, (left + right) / 2 + 0.05, top + 0.1,
            colour=(60, 50, 30),
        )  # fmt: skip

    return Stage(build, act)


SCENES: tuple[Scene, ...] = (
    Scene(
        "truck", "box", "loading", "unloading",
        ("what is the man doing?", "is the man loading or unloading the truck?",
         "what is the man doing with the box?"),
        prepare_truck,
    ),
    Scene(
        "ball", "ball", "right", "left",
        ("which way does the ball roll?", "does the ball move left or right?",
         "where is the ball going?"),
        prepare_ball,
    ),
    Scene(
        "door", "door", "opening", "closing",
        ("is the door opening or closing?", "what does the door do?",
         "what is happening to the door?"),
        prepare_door,
    ),
    Scene(
        "car", "car", "right", "left",
        ("which way does the car drive?", "does the car go left or right?",
         "where is the car going?"),
        prepare_car,
    ),
    Scene(
        "chest", "chest", "opening", "closing",
        ("is the lid opening or closing?", "what does the lid do?",
         "what is happening to the chest?"),
        prepare_chest,
    ),
)  # fmt: skip
