"""The demo's own clips: real H.264 films of things loaded, moved and opened, and their questions.

Every clip has a twin that shows the same pictures in reverse order, with noise of its own. Twins
share a split and the wording of their questions, so the direction is in neither the question, nor
any picture, nor the mean of the pictures. The same seed gives the same films.

Layout of the folder: clips/<clip>.mp4, and questions.jsonl with video_id, question, answer, split,
type ("direction" | "colour").
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import FramebankError, UsageError
from framebank.features.stores import storage
from framebank.train.demo.drawing import Canvas
from framebank.train.demo.scenes import COLOURS, SCENES, Scene

RATES_FPS = (
    Fraction(10), Fraction(12), Fraction(25, 2), Fraction(15), Fraction(24000, 1001),
    Fraction(24), Fraction(25), Fraction(30000, 1001),
)  # fmt: skip
SIZES = ((320, 240), (288, 216), (352, 264), (320, 180), (384, 216), (256, 256))  # (w, h) pixels
SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """What one clip will show; `pair_seed` is its twin's too, `forward` is not."""

    clip_id: str
    scene: Scene
    forward: bool
    split: str
    pair_index: int
    pair_seed: int

    @property
    def answer(self) -> str:
        return self.scene.forward if self.forward else self.scene.backward


def plan_clips(count: int, *, seed: int = 0) -> list[ClipPlan]:
    """Plan `count` clips, scenes and splits in fixed shares; raises UsageError for an odd number,
    or one that leaves a split without a pair of each scene."""
    least = 2 * len(SCENES) * 4
    if count < least or count % 2:
        raise UsageError(
            "the demo cannot make this number of clips",
            got=count,
            expected=f"an even number, at least {least}",
            todo=f"try --clips {max(least, count + count % 2)}",
        )
    plans = []
    for pair in range(count // 2):
        scene, turn = SCENES[pair % len(SCENES)], pair // len(SCENES)
        turns = (count // 2 - pair % len(SCENES) - 1) // len(SCENES) + 1
        numbers = np.random.default_rng([seed, pair]).integers(2**31, size=2)
        names = [f"{scene.name}-{pair:03d}{letter}" for letter in "ab"]
        forward_first = bool(numbers[1] % 2)
        for name, forward in zip(names, (forward_first, not forward_first), strict=True):
            plans.append(
                ClipPlan(name, scene, forward, _split_of(turn, turns), turn, int(numbers[0]))
            )
    return plans


def _split_of(turn: int, turns: int) -> str:
    """Return the split of pair `turn` of a scene's `turns`; none is left empty."""
    test = max(round(turns * SPLIT_SHARES["test"]), 1)
    val = max(round(turns * SPLIT_SHARES["val"]), 1)
    return "test" if turn < test else "val" if turn < test + val else "train"


class Take:
    """How a pair of twins is filmed, by lot from the pair's seed: all but direction and noise."""

    def __init__(self, plan: ClipPlan) -> None:
        rng = np.random.default_rng(plan.pair_seed)
        self.width, self.height = SIZES[int(rng.integers(len(SIZES)))]
        self.rate = RATES_FPS[int(rng.integers(len(RATES_FPS)))]
        self.colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
        self.stage = plan.scene.prepare(rng, self.width / self.height, COLOURS[self.colour])
        self.frames = round(float(rng.uniform(2.0, 4.0)) * self.rate)
        self.hold_first = float(rng.uniform(0.02, 0.16))  # share of the clip before the act begins
        self.hold_last = float(rng.uniform(0.02, 0.16))
        self.ease = float(rng.uniform(0.0, 1.0))  # 0: steady, 1: slow at both ends
        self.mirror = bool(rng.integers(2)) and self.stage.may_mirror
        self.brightness = float(rng.uniform(0.85, 1.1))

    def progress(self, index: int) -> float:
        """Return how far the act is, in [0, 1], at frame `index` of the forward twin."""
        time = (index / (self.frames - 1) - self.hold_first) / (
            1 - self.hold_first - self.hold_last
        )
        time = min(max(time, 0.0), 1.0)
        return (1 - self.ease) * time + self.ease * time * time * (3 - 2 * time)


def draw_clip(plan: ClipPlan) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames uint8[h, w, 3] (RGB) of a clip in order of presentation."""
    take = Take(plan)
    canvas = Canvas(np.zeros((take.height, take.width, 3), np.float32))
    take.stage.build(canvas)
    light = np.linspace(*take.stage.light, take.width, dtype=np.float32)[None, :, None]
    grain = np.random.default_rng([plan.pair_seed, int(plan.forward)])
    noise = grain.normal(0, grain.uniform(1, 4), (take.height + 32, take.width + 32, 1))
    noise = noise.astype(np.float32)
    for index in range(take.frames) if plan.forward else range(take.frames - 1, -1, -1):
        scenery = canvas.copy()
        take.stage.act(scenery, take.progress(index))
        x, y = grain.integers(32, size=2)
        pixels = scenery.pixels * (light * take.brightness)
        pixels += noise[y : y + take.height, x : x + take.width]
        picture = np.clip(pixels, 0, 255).astype(np.uint8)
        yield np.ascontiguousarray(picture[:, ::-1] if take.mirror else picture)


def write_clip(plan: ClipPlan, folder: Path) -> Path:
    """Encode one clip as `folder`/<clip_id>.mp4 (H.264) unless it is there; returns its path."""
    import av

    path = folder / f"{plan.clip_id}.mp4"
    if path.exists():
        return path
    take = Take(plan)
    # One thread, so that the same plan gives the same bytes whatever the machine's cores; and no
    # macroblock tree, with which libx264 encodes the same frames differently from time to time.
    options = {"preset": "veryfast", "crf": "24", "threads": "1", "x264-params": "mbtree=0"}
    with (
        storage.replacing(path) as partial,
        av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as output,
    ):
        stream = output.add_stream("libx264", rate=take.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = take.width, take.height, "yuv420p"
        for pixels in draw_clip(plan):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return path


def make_clips(
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    workers: int = 2,
    report: Callable[[int, int], None] | None = None,
) -> list[ClipPlan]:
    """Write `count` clips and their questions under `folder`; what is there already is kept.

    `report(made, count)` is called after each clip. Raises FramebankError where writing fails.
    """
    plans = plan_clips(count, seed=seed)
    clips = folder / "clips"
    try:
        clips.mkdir(parents=True, exist_ok=True)
        # spawn: a forked child of a process with threads may hang in the encoder.
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn")
        ) as pool:
            jobs = [pool.submit(write_clip, plan, clips) for plan in plans]
            for made, job in enumerate(concurrent.futures.as_completed(jobs), 1):
                job.result()
                if report:
                    report(made, len(plans))
        write_questions(plans, folder / "questions.jsonl")
    except OSError as err:
        raise FramebankError(
            "the demo's clips could not be written",
            got=f"{type(err).__name__}: {err}",
            todo=f"make room or give another --out than {folder}",
        ) from err
    return plans


def write_questions(plans: list[ClipPlan], path: Path) -> None:
    """Write each clip's questions as JSON lines: direction (two for training) and colour."""
    rows = (row for plan in plans for row in question_rows(plan))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    storage.write_atomic(str(path), lines.encode())


def question_rows(plan: ClipPlan) -> list[dict[str, str]]:
    """Return the questions about one clip; its twin is asked in the same words."""
    scene, colour = plan.scene, Take(plan).colour
    first = plan.pair_index % len(scene.questions)
    wordings = [scene.questions[first]]
    if plan.split == "train":
        wordings.append(scene.questions[(first + 1) % len(scene.questions)])
    asked = [(wording, plan.answer, "direction") for wording in wordings]
    asked.append((f"what colour is the {scene.thing}?", colour, "colour"))
    return [
        {
            "video_id": f"{plan.clip_id}.mp4",
            "question": question,
            "answer": answer,
            "split": plan.split,
            "type": kind,
        }
        for question, answer, kind in asked
    ]
