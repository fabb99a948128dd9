"""A small cache of long videos of made-up features, in which things rise and fall, and the file
that says when."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from framebank.features.cache import catalog, layout
from tests.made.made_cache import SPEC, make_extracted, make_shard

WIDTH = 16
STEP_S = 0.5
LABELS = ("rise", "fall", "blink")
_SHAPE = np.random.default_rng(5).normal(size=(3, WIDTH))


def make_video(number: int, rows: int) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Return float32[rows, WIDTH] and what happens in it, in seconds.

    The rows of a rise and of a fall are the same, in reverse order.
    """
    rng = np.random.default_rng([11, number])
    seen = np.zeros((rows, 3))
    acts, row = [], int(rng.integers(2, 6))
    while row + 12 < rows:
        count, label = int(rng.integers(6, 11)), LABELS[int(rng.integers(len(LABELS)))]
        ramp = np.linspace(1, 2, count)
        if label == "blink":
            seen[row : row + count, 2] = 1
        else:
            seen[row : row + count, :2] = np.stack([ramp, ramp**2], axis=1)
            if label == "fall":
                seen[row : row + count] = seen[row : row + count][::-1]
        # A row stands for the time around it.
        acts.append(((row - 0.5) * STEP_S, (row + count - 0.5) * STEP_S, label))
        row += count + int(rng.integers(4, 10))
    features = seen @ _SHAPE + rng.normal(size=(rows, WIDTH)) * 0.05
    return features.astype(np.float32), acts


def make_segment_cache(cache: str, path: Path, *, videos: int = 12, rows: int = 240) -> str:
    """Write the cache, and the file of segments, whose path is returned; every fourth video is a
    test, one validates."""
    spec = dataclasses.replace(SPEC, dtype="float32")
    layout.write_spec(cache, spec)
    made, lines = [], ["video_id,start_s,end_s,label,split"]
    for number in range(videos):
        split = "test" if number % 4 == 0 else "val" if number % 4 == 1 else "train"
        name = f"v{number:02d}.mp4"
        features, acts = make_video(number, rows)
        times = np.arange(rows, dtype=np.int64)
        clip = dataclasses.replace(make_extracted(name), features=features)
        source = dataclasses.replace(clip.source, duration_s=rows * STEP_S)
        made.append(
            dataclasses.replace(
                clip,
                pts_ms=times * round(1000 * STEP_S),
                frame_index=times * 12,
                source=source,
            )
        )
        lines += [f"{name},{start},{end},{label},{split}" for start, end, label in acts]
    half = len(made) // 2
    done = [
        *make_shard(cache, "r1-0", made[:half], run_id="20261121-0100", spec=spec),
        *make_shard(cache, "r1-1", made[half:], run_id="20261121-0100", spec=spec),
    ]
    catalog.write_catalog(cache, "20261121-0100", done)
    path.write_text("\n".join(lines) + "\n")
    return str(path)
