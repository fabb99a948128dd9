"""Long films stitched of the demo's plays, with what happens in them, and when.

    python -m framebank.train.demo.stitched OUT [--minutes 60]

Plays of one film stand apart by stretches in which nothing happens: a still stage, or a plain
screen. A class is a play in one direction ("truck loading"), so that half of the classes show the
same pictures as the other half, in reverse order. OUT gets clips/*.mp4 (128 × 96 pixels, 8 frames
a second), segments.csv, and segments.json, which says the same as ActivityNet would. The test film
is as long as all others together. An hour each takes two minutes to draw; the same seed gives the
same films.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.stores import storage
from framebank.train.demo.drawing import Canvas
from framebank.train.demo.scenes import COLOURS, SCENES

RATE_FPS = 8
SIZE = (128, 96)  # w, h pixels
ACT_S = (2.0, 6.0)
REST_S = (2.0, 8.0)
_VIDEOS = 12  # beside the test film
_VALS = 2
_MOST_MINUTES = 6000


class Act(NamedTuple):
    """What happens in a film, in seconds."""

    start_s: float
    end_s: float
    label: str


def stitch(length_s: float, *, seed: tuple[int, ...]) -> Iterator[tuple[NDArray[np.uint8], Act]]:
    """Yield the frames uint8[h, w, 3] (RGB) of a film, each with the act that it is of, whose label
    is "" where nothing happens."""
    rng = np.random.default_rng(seed)
    frame = 0
    while frame < length_s * RATE_FPS:
        for happens in (False, True):
            seconds = rng.uniform(*(ACT_S if happens else REST_S))
            count = max(round(seconds * RATE_FPS), 2)
            label, frames = _play(rng, count, happens=happens)
            act = Act(frame / RATE_FPS, (frame + count) / RATE_FPS, label)
            for pixels in frames:
                noisy = pixels + rng.normal(0, 2, (*pixels.shape[:2], 1))
                yield np.clip(noisy, 0, 255).astype(np.uint8), act
            frame += count


def _play(
    rng: np.random.Generator, count: int, *, happens: bool
) -> tuple[str, Iterator[NDArray[np.float32]]]:
    width, height = SIZE
    scene = SCENES[int(rng.integers(len(SCENES)))]
    colour = COLOURS[list(COLOURS)[int(rng.integers(len(COLOURS)))]]
    stage = scene.prepare(rng, width / height, colour)
    forward, plain, still = bool(rng.integers(2)), rng.uniform(), rng.uniform()
    canvas = Canvas(np.zeros((height, width, 3), np.float32))
    if not happens and plain < 0.3:
        canvas.pixels[:] = rng.uniform(0, 255, 3)
        return "", (canvas.pixels for _ in range(count))
    stage.build(canvas)
    light = np.linspace(*stage.light, width, dtype=np.float32)[None, :, None]

    def frames() -> Iterator[NDArray[np.float32]]:
        for step in np.linspace(0, 1, count):
            scenery = canvas.copy()
            progress = (step if forward else 1 - step) if happens else still
            stage.act(scenery, float(progress))
            yield scenery.pixels * light

    label = f"{scene.name} {scene.forward if forward else scene.backward}"
    return label if happens else "", frames()


def write_film(path: Path, length_s: float, *, seed: tuple[int, ...]) -> list[Act]:
    """Write a film as H.264; return what happens in it."""
    import av

    acts: dict[Act, None] = {}
    options = {"preset": "veryfast", "crf": "24", "threads": "1", "x264-params": "mbtree=0"}
    with storage.replacing(path) as partial, av.open(str(partial), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=Fraction(RATE_FPS), options=options)
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        for pixels, act in stitch(length_s, seed=seed):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            acts[act] = None
        output.mux(stream.encode())
    return [act for act in acts if act.label]


def write_films(out: Path, *, minutes: float, seed: int = 0) -> None:
    """Write films of `minutes` in all to train on and to choose by, and one as long to test."""
    clips = out / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    rows, database = [], {}
    for number in range(_VIDEOS + 1):
        split = "test" if number == _VIDEOS else "val" if number < _VALS else "train"
        name = f"{split}-{number:02d}"
        length_s = minutes * 60 / (1 if split == "test" else _VIDEOS)
        acts = write_film(clips / f"{name}.mp4", length_s, seed=(seed, number))
        rows += [(f"{name}.mp4", act.start_s, act.end_s, act.label, split) for act in acts]
        database[name] = {
            "subset": {"train": "training", "val": "validation", "test": "testing"}[split],
            "duration": acts[-1].end_s,
            "annotations": [{"segment": [a.start_s, a.end_s], "label": a.label} for a in acts],
        }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("video_id", "start_s", "end_s", "label", "split"), *rows])
    storage.write_atomic(str(out / "segments.csv"), text.getvalue().encode())
    whole = {"version": "made", "taxonomy": [], "database": database}
    storage.write_atomic(str(out / "segments.json"), json.dumps(whole, indent=1).encode())


def main() -> None:
    """Draw the films that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m framebank.train.demo.stitched", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder")
    parser.add_argument("--minutes", type=float, default=60.0, help="to train on, and to test (60)")
    given = parser.parse_args()
    if not 0 < given.minutes < _MOST_MINUTES:
        parser.error(f"--minutes is between 0 and {_MOST_MINUTES}, not {given.minutes:g}")
    try:
        write_films(given.out, minutes=given.minutes)
    except OSError as err:
        parser.exit(1, f"{parser.prog}: cannot write to {given.out}: {err.strerror or err}\n")


if __name__ == "__main__":
    main()
