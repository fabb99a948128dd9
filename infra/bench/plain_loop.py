"""The loop that everybody writes first: PyAV, then `predict_on_batch` of 32. The yardstick.

    python infra/bench/plain_loop.py CLIPS --fps 4 --weights PATH

One clip after the other, in one process: decode, take a frame whenever 1/fps has passed, scale it,
run the network on 32 frames at a time. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def sampled_frames(path: Path, *, rate_fps: float) -> Iterator[np.ndarray]:
    """Yield uint8[299, 299, 3] RGB frames, one whenever a target time is reached."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        start_s, taken = None, 0
        for frame in container.decode(stream):
            if frame.time is None:
                continue
            start_s = frame.time if start_s is None else start_s
            if frame.time - start_s >= taken / rate_fps:
                taken += 1
                yield frame.reformat(299, 299, "rgb24", interpolation="BILINEAR").to_ndarray()


def run_loop(paths: list[Path], model: Any, *, rate_fps: float) -> int:
    """Run the loop over `paths`; return how many frames went through the network."""
    from keras.applications.inception_v3 import preprocess_input

    frames = 0
    for path in paths:
        batch: list[np.ndarray] = []
        features = []
        for image in sampled_frames(path, rate_fps=rate_fps):
            batch.append(image)
            if len(batch) == 32:
                features.append(model.predict_on_batch(preprocess_input(np.float32(batch))))
                batch.clear()
        if batch:
            features.append(model.predict_on_batch(preprocess_input(np.float32(batch))))
        frames += sum(map(len, features))
    return frames


def build_model(weights: str) -> Any:
    """Build keras.applications' InceptionV3 by hand; `random` leaves Keras's own random weights."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    path = None if weights.startswith("random") else weights
    return keras.applications.InceptionV3(include_top=False, weights=path, pooling="avg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips")
    parser.add_argument("--fps", type=float, default=4.0)
    parser.add_argument("--weights", default="random")
    args = parser.parse_args()
    start = time.perf_counter()
    model = build_model(args.weights)
    built = time.perf_counter()
    paths = sorted(path for path in Path(args.clips).iterdir() if path.is_file())
    frames = run_loop(paths, model, rate_fps=args.fps)
    done = time.perf_counter()
    print(json.dumps({"frames": frames, "build_s": built - start, "loop_s": done - built}))


if __name__ == "__main__":
    main()
