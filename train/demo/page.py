"""The demo's page: one index.html beside the clips that shows what was asked and answered.

Opens from disk without a network: styles, curves and frame strips are inside, clips beside it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.asking.command import answer_lines
from framebank.features.pages.page import facts_table, jpeg_address, render, training_plots
from framebank.features.stores import json_text, storage
from framebank.features.terminal import size_text

if TYPE_CHECKING:
    from framebank.features.cache.reader import Cache

_TEMPLATE = Path(__file__).with_name("index.html.j2")
_STRIP_HEIGHT = 72  # pixels
_MODELS = {"lstm": "model", "order_blind": "order-blind", "question_only": "question only"}
_SCORES = {
    "model": ("model", "sees the frames in their order"),
    "order_blind": ("order-blind", "sees the mean of the frames"),
    "question_only": ("question only", "sees no clip at all"),
    "majority": ("majority", "always the commonest answer"),
}


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """What the steps of a demo printed; `asked` also has the "truth", `seconds` a time a step."""

    metrics: Mapping[str, Any]
    asked: Mapping[str, Any]
    weights: str
    seconds: Mapping[str, float]
    commands: list[str]


def write_page(out: Path, result: DemoResult) -> Path:
    """Write `out`/index.html from the folder of a demo; raises FramebankError."""
    from framebank.features.cache.reader import open_cache

    cache = open_cache(str(out / "cache"))
    asked = dict(result.asked)
    asked["correct"] = asked["answers"][0]["answer"] == asked["truth"]
    rows = _held_out_rows(out)
    epochs = _read_lines([out / "model" / "history.jsonl"])
    history = [row | {"model": _MODELS.get(row["model"], row["model"])} for row in epochs]
    pairs: dict[str, list[dict[str, Any]]] = {}
    for video_id, its in rows.items():
        pair = video_id.rsplit(".", 1)[0][:-1]
        pairs.setdefault(pair, []).append(_clip(out, video_id, its, cache))
    text = render(
        _TEMPLATE,
        result=result,
        scores=[(*_SCORES[name], *found) for name, *found in direction_table(result.metrics)],
        asked=_clip(out, Path(asked["video"]).name, [asked], cache),
        printed=[_parts(line) for line in answer_lines(asked["answers"])],
        way=way(result, cache, held_out=len(rows)),
        held_out=len(rows),
        pairs=[(pair.split("-")[0], clips) for pair, clips in pairs.items()],
        curves=training_plots(history, right="Right answers on the validation films, by epoch"),
        cache=cache,
        spec=facts_table(cache.spec.to_json()),
    )
    page = out / "index.html"
    storage.write_atomic(str(page), text.encode())
    return page


def direction_table(metrics: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """Return (name, accuracy on the direction questions, how many) for the model and baselines."""
    scores = {"model": metrics} | dict(metrics["baselines"])
    rows = []
    for name in _SCORES:
        part = scores.get(name, {}).get("by_type", {}).get("direction")
        if part:
            rows.append((name, float(part["accuracy"]), int(part["judged"])))
    return rows


def way(result: DemoResult, cache: Cache, *, held_out: int) -> list[tuple[str, str, str]]:
    """Return the steps from films to answers: what each did, what came of it, and what it took."""
    frames, stored = (sum(cache.places.column(name).to_pylist()) for name in ("rows", "length"))
    steps = [
        ("extract", "Decode once", f"{len(cache)} films became {frames} rows of numbers, "
         f"{size_text(stored)}: what a frozen network saw in each frame that was sampled."),
        ("train", "Learn from what was kept", "A small model read those rows in their order, and "
         "no film. Training again costs this much, not the decoding."),
        ("score", "Answer in batch", f"Questions about {held_out} films that the model had never "
         "met were answered from the cache."),
        ("ask", "Ask about one clip", "A clip of your own, decoded and answered at once."),
    ]  # fmt: skip
    seconds = result.seconds
    return [
        (title, about, f"{seconds[name]:.0f} s" if name in seconds else "")
        for name, title, about in steps
    ]


def _parts(line: str) -> tuple[str, str, str]:
    """Return a printed answer as its percentage, its bar, for which a phone has no room, and the
    answer."""
    found = re.fullmatch(r"(\s*\S+%\s+)([█·]+\s+)(.*)", line)
    return (found[1], found[2], found[3]) if found else (line, "", "")


def _held_out_rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the answer rows of each held-out clip, by video_id in order of name."""
    asked = _read_lines([out / "questions.jsonl"])
    held_out = {row["video_id"] for row in asked if row["split"] == "test"}
    rows: dict[str, list[dict[str, Any]]] = {video_id: [] for video_id in sorted(held_out)}
    for row in _read_lines(sorted((out / "answers").glob("answers-*.jsonl"))):
        if row["video_id"] in rows and row["status"] == "answered":
            rows[row["video_id"]].append(row)
    return {video_id: its for video_id, its in rows.items() if its}


def _read_lines(paths: Iterable[Path]) -> list[dict[str, Any]]:
    lines = (line for path in paths for line in path.read_text("utf-8").splitlines())
    return [json_text.parse(line) for line in lines]


def _clip(
    out: Path, video_id: str, rows: Sequence[Mapping[str, Any]], cache: Cache
) -> dict[str, Any]:
    """Return what the page shows of one clip and of the `rows` of its answers."""
    record = cache[video_id]
    likeliest = (
        [(one["answer"], one["probability"]) for one in row["answers"][:3]] for row in rows
    )
    return {
        "name": video_id,
        "source": record.source,
        "frames": len(record.frame_index),
        "strip": frame_strip(out / "clips" / video_id, record.frame_index.tolist()),
        "rows": [{**row, "likeliest": its} for row, its in zip(rows, likeliest, strict=True)],
    }


def frame_strip(clip: Path, frame_indices: Sequence[int]) -> str:
    """Return a data: address of a JPEG with the frames side by side, in the order given."""
    import av

    wanted = set(frame_indices)
    found: dict[int, NDArray[np.uint8]] = {}
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                width = 2 * round(frame.width * _STRIP_HEIGHT / frame.height / 2)
                found[index] = frame.to_ndarray(format="rgb24", width=width, height=_STRIP_HEIGHT)
    strip = np.concatenate([found[index] for index in frame_indices], axis=1)
    return jpeg_address(strip, width=strip.shape[1], height=_STRIP_HEIGHT)
