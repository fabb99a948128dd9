"""Pictures of coloured shapes, and questions about them in the files that VQA publishes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from framebank.train.demo.drawing import Canvas

COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 220)}
SHAPES = ("circle", "square")
_SIZE = 96


def draw_picture(path: Path, colour: str, shape: str, count: int, *, seed: int) -> None:
    """Write a JPEG of `count` shapes, one or two, on grey."""
    import av

    rng = np.random.default_rng(seed)
    canvas = Canvas(np.full((_SIZE, _SIZE, 3), 200 + 20 * rng.random(), np.float32))
    for number in range(count):
        x, y = 0.25 + 0.5 * number + 0.04 * rng.normal(), 0.5 + 0.08 * rng.normal()
        radius = 0.16 + 0.03 * rng.random()
        if shape == "circle":
            canvas.disc(x, y, radius, colour=COLOURS[colour])
        else:
            canvas.box(x - radius, y - radius, x + radius, y + radius, colour=COLOURS[colour])
    with av.open(str(path), "w", format="image2") as file:
        stream = file.add_stream("mjpeg", rate=1)
        stream.width = stream.height = _SIZE
        stream.pix_fmt, stream.time_base = "yuvj420p", Fraction(1)
        frame = av.VideoFrame.from_ndarray(canvas.pixels.round().astype(np.uint8), format="rgb24")
        file.mux([*stream.encode(frame), *stream.encode()])


def _people(answer: str, other: str, *, seed: int) -> list[dict[str, Any]]:
    """Return the answers of ten people, of whom up to three say something else."""
    dissent = np.random.default_rng(seed).integers(0, 4)
    said = [other] * dissent + [answer] * (10 - dissent)
    return [
        {"answer": one, "answer_confidence": "yes", "answer_id": number}
        for number, one in enumerate(said, start=1)
    ]


def make_pictures(
    folder: Path, *, train: int, val: int, version: str = "2.0"
) -> dict[str, tuple[str, str, str]]:
    """Draw pictures below `folder`/images; return by split the paths of the open questions, the
    multiple choices and the annotations about them."""
    (folder / "images").mkdir(parents=True)
    files, number = {}, 0
    for split, pictures in (("train", train), ("val", val)):
        subset, asks, said = f"{split}2014", [], []
        for _ in range(pictures):
            number += 1
            colour, shape = list(COLOURS)[number % 3], SHAPES[number // 3 % 2]
            count = 1 + number // 6 % 2
            name = f"COCO_{subset}_{number:012d}.jpg"
            draw_picture(folder / "images" / name, colour, shape, count, seed=number)
            is_circle = ("no", "yes")[shape == "circle"]
            for place, (question, answer, other, kind) in enumerate((
                ("What color is the shape?", colour, "dark", "other"),
                ("Is it a circle?", is_circle, "maybe", "yes/no"),
                ("How many shapes are there?", str(count), "many", "number"),
            )):  # fmt: skip
                about = {"image_id": number, "question_id": number * 10 + place}
                asks.append({"question": question, **about})
                people = _people(answer, other, seed=number * 10 + place)
                said.append({
                    "question_type": " ".join(question.lower().split()[:2]),
                    "multiple_choice_answer": answer, "answers": people, "answer_type": kind,
                    **about,
                })  # fmt: skip
        about = {
            "info": {"description": f"This is v{version} of the VQA dataset.", "version": version},
            "data_type": "mscoco", "data_subtype": subset, "license": {"name": "none"},
        }  # fmt: skip
        offered = ["yes", "no", "1", "2", *COLOURS, *(f"thing {place}" for place in range(11))]
        chosen = [{**ask, "multiple_choices": offered} for ask in asks]
        paths = [
            folder / f"OpenEnded_mscoco_{subset}_questions.json",
            folder / f"MultipleChoice_mscoco_{subset}_questions.json",
            folder / f"mscoco_{subset}_annotations.json",
        ]
        parts = (
            {"task_type": "Open-Ended", "questions": asks},
            {"task_type": "Multiple-Choice", "num_choices": 18, "questions": chosen},
            {"annotations": said},
        )
        for path, part in zip(paths, parts, strict=True):
            path.write_text(json.dumps(about | part))
        files[split] = tuple(map(str, paths))
    return files
