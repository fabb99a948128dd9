"""How large is each kind of model, how long does a step take, and does it see the order of frames?

    python infra/bench/model_kinds.py [--frames 16] [--width 2048] [--epochs 30]

A step of 32 clips of random features, traced before; then, on made clips that play one way or the
other, how many of 64 held-out ones each kind tells apart after so many epochs (guessing: half).
Takes about three minutes on two cores. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

BATCH = 32
STEPS = 20
_SEEN = 12  # features of the made clips


def build(kind: str, frames: NDArray[np.float32], *, answers: int) -> Any:
    """Return a compiled network for clips like `frames` float32[b, n, d]."""
    import keras

    from framebank.train.fit.loop import make_optimizer
    from framebank.train.model.config import ModelConfig, TrainConfig
    from framebank.train.model.frames import frame_statistics
    from framebank.train.model.network import build_network

    keras.utils.set_random_seed(0)
    statistics_ = frame_statistics(list(frames), frames.shape[2])
    network = build_network(ModelConfig(kind=kind), statistics_, words=100, answers=answers)
    optimizer = make_optimizer(TrainConfig(lr_schedule="constant"), steps_per_epoch=1)
    network.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def inputs(frames: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return {"features": frames, "words": np.ones((len(frames), 4), np.int32)}


def step_ms(kind: str, *, frames: int, width: int) -> tuple[int, float]:
    """Return (parameters, median milliseconds of a training step)."""
    dice = np.random.default_rng(0)
    clips = dice.normal(size=(BATCH, frames, width)).astype(np.float32)
    network, answers = build(kind, clips, answers=100), dice.integers(0, 100, BATCH)
    network.train_on_batch(inputs(clips), answers)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        network.train_on_batch(inputs(clips), answers)
        times.append(time.perf_counter() - start)
    return network.count_params(), 1000 * statistics.median(times)


def made_clips(pairs: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return clips float32[2 · pairs, 8, d] and whether each is played backwards; twins differ in
    the order of their frames alone."""
    dice = np.random.default_rng(seed)
    moving = np.random.default_rng(99).normal(size=_SEEN)
    scene = dice.normal(size=(pairs, 1, _SEEN))
    clips = (
        scene + np.linspace(-1, 1, 8)[:, None] * moving + dice.normal(size=(pairs, 8, _SEEN)) / 4
    )
    both = np.concatenate([clips, clips[:, ::-1]])
    return both.astype(np.float32), np.repeat(np.arange(2, dtype=np.int32), pairs)


def order_accuracy(kind: str, *, epochs: int) -> float:
    """Return the share of held-out clips whose direction is told right."""
    clips, ways = made_clips(64, seed=1)
    network = build(kind, clips, answers=2)
    network.fit(inputs(clips), ways, batch_size=BATCH, epochs=epochs, verbose=0)
    held, truth = made_clips(32, seed=2)
    return float(network.evaluate(inputs(held), truth, verbose=0)[1])


def main() -> None:
    from framebank.train.model.config import TRAINED_KINDS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    rows = {}
    print(f"{'kind':14}{'parameters':>12}{'ms a step':>12}{'order':>9}")
    for kind in TRAINED_KINDS:
        parameters, spent_ms = step_ms(kind, frames=args.frames, width=args.width)
        right = order_accuracy(kind, epochs=args.epochs)
        print(f"{kind:14}{parameters:12,}{spent_ms:12.1f}{right:9.1%}", flush=True)
        rows[kind] = {"parameters": parameters, "step_ms": spent_ms, "order_accuracy": right}
    result = {"bench": "model_kinds", "frames": args.frames, "width": args.width, "kinds": rows}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
