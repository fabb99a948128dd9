"""A small cache whose clips differ only in the order of their frames, and questions about them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.cache import catalog, layout
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import Question
from framebank.features.questions.reading import read_questions
from tests.made.made_cache import SPEC, make_extracted, make_shard

WIDTH = 24
QUESTION = "Is the box loaded or unloaded?"


def direction_clip(number: int, *, forward: bool) -> NDArray[np.float32]:
    """Return float32[n, WIDTH]: something passes, one way or the other, before a scene of its own.

    As with a random network the spread is a thousandth of the values, and a third is constant.
    """
    rng = np.random.default_rng([7, number])
    frames = int(rng.integers(5, 9))
    place = np.linspace(0, 1, frames) if forward else np.linspace(1, 0, frames)
    shape = np.random.default_rng(3).normal(size=(3, WIDTH))  # the same network for all clips
    seen = np.stack([place, np.sin(place * 3), np.ones(frames)], axis=1) @ shape
    seen += rng.normal(size=WIDTH) * 0.5 + rng.normal(size=(frames, WIDTH)) * 0.05
    seen[:, : WIDTH // 3] = 0
    return (0.5 + 1e-3 * seen).astype(np.float32)


def make_direction_cache(cache: str, *, pairs: int = 60) -> list[dict[str, str]]:
    """Write the cache, twin clips in each pair; return question rows, splits given by pair."""
    spec = dataclasses.replace(SPEC, dtype="float32")
    layout.write_spec(cache, spec)
    videos, rows = [], []
    for number in range(pairs):
        split = {0: "test", 1: "val"}.get(number % 5, "train")
        for way in ("loading", "unloading"):
            video_id = f"{number:03d}-{way}.mp4"
            clip = direction_clip(number, forward=way == "loading")
            videos.append(dataclasses.replace(make_extracted(video_id), features=clip))
            about = {"video_id": video_id, "question": QUESTION, "split": split}
            rows.append(about | {"answer": way, "type": "direction"})
    half = len(videos) // 2
    made = []
    for shard, part in (("r1-0", videos[:half]), ("r1-1", videos[half:])):
        part = [_with_rows(video) for video in part]
        made += make_shard(cache, shard, part, run_id="20261121-0100", spec=spec)
    catalog.write_catalog(cache, "20261121-0100", made)
    return rows


def _with_rows(video):  # type: ignore[no-untyped-def]
    count = len(video.features)
    times = np.arange(count, dtype=np.int64)
    return dataclasses.replace(video, pts_ms=times * 1000, frame_index=times * 25)


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def read_one(path: str, **options: Any) -> list[Question]:
    """Return the questions of one file, with the splits that its rows state."""
    return read_questions(QuestionFiles([path], **options), to_train=True)
