"""How much faster is an epoch from the cache than the same epoch with the network in the loop?

    python infra/bench/epoch_ratio.py [--clips 40] [--frames 8] [--weights random:0]

From the cache: `train.fit.loop.fit` with the shards on disk read anew in every epoch; an epoch is
timed from the end of one to the end of the next, judging included, and the first, in which graphs
are traced, is left out. With the network: the same batches in the same order, their clips decoded
and run through InceptionV3 by the extraction engine in full batches; the training itself is not
even added. Takes about two minutes on two cores. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
BATCH = 32


class EngineClips:
    """Clips whose features are computed when they are read (`train.data.batches.Clips`)."""

    def __init__(self, engine: Any, paths: list[Path]) -> None:
        self._engine, self._paths = engine, paths
        self._coming: Iterator[Any] = iter(())
        self._done: dict[str, NDArray[Any]] = {}

    def announce(self, numbers: NDArray[np.int64]) -> None:
        from framebank.features.video import VideoRef

        paths = [self._paths[number] for number in numbers.tolist()]
        refs = [VideoRef(path.name, str(path), path.stat().st_size, "") for path in paths]
        self._coming, self._done = self._engine.run(refs), {}

    def read(self, number: int) -> NDArray[Any]:
        name = self._paths[number].name
        while name not in self._done:
            extracted = next(self._coming)
            self._done[extracted.ref.video_id] = extracted.features
        return self._done.pop(name)


def epoch_seconds(features: Any, tables: tuple[Any, Any], *, epochs: int) -> list[float]:
    """Train for `epochs`; return the seconds of each but the first, judging included."""
    import keras

    from framebank.features.stop_signals import StopRequest
    from framebank.train.fit.loop import FitData, fit
    from framebank.train.model.config import ModelConfig, TrainConfig
    from framebank.train.model.frames import FrameStatistics
    from framebank.train.model.network import build_network

    learnt, val = tables
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter())

    width = features.width
    statistics_ = FrameStatistics(2, np.full(width, 0.4), np.full(width, 0.02))
    words, answers = int(learnt.words.max()) + 1, int(learnt.answer.max()) + 1
    network = build_network(ModelConfig(), statistics_, words=words, answers=answers)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(epochs=epochs, batch_size=BATCH, checkpoint_every_s=1e9)
        data = FitData(features, learnt, val)
        stop = StopRequest()
        fit(network, data, config=config, folder=Path(folder), stop=stop, callbacks=[Clock()])
    return [end - start for start, end in itertools.pairwise(ends)]


def tables_of(rows: list[dict[str, str]]) -> tuple[Any, Any]:
    """Return all questions as the table to learn from, and one of them to judge."""
    from framebank.features.questions.question import Question
    from framebank.train.data.batches import QuestionTable
    from framebank.train.model.heads import Head
    from framebank.train.model.text import text_layer, word_numbers

    questions = [
        Question(str(n), row["video_id"], row["question"], row["answer"])
        for n, row in enumerate(rows)
    ]
    head = Head.of(questions, size=100)
    text = text_layer([q.question for q in questions], max_words=100)

    def table(part: list[Question]) -> QuestionTable:
        return QuestionTable.of(part, head, text=lambda asked: word_numbers(text, asked))

    return table(questions), table(questions[:1])


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of both epochs and their ratio."""
    from framebank.features.cache.reader import open_cache
    from framebank.features.decoders.policy import DecoderPolicy
    from framebank.features.extraction.engine import Engine
    from framebank.features.extraction.one_clip import build_network, make_spec
    from framebank.features.spec import SpecChoice
    from framebank.features.video import VideoRef
    from framebank.train.data.batches import Features, cached_features
    from framebank.train.data.epoch_order import Stored
    from framebank.train.data.shard_files import Staging, shard_files
    from framebank.train.demo.clips import make_clips

    make_clips(folder, count=args.clips)
    sample = f"uniform={args.frames}"
    words = ["extract", folder / "clips", "--cache", folder / "cache", "--sample", sample]
    command = [sys.executable, "-m", "framebank", *words, "--weights", args.weights]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    lines = (folder / "questions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    tables = tables_of(rows)
    cache = open_cache(str(folder / "cache"))
    wanted = dict.fromkeys(row["video_id"] for row in rows)
    files = shard_files(cache.path, Staging())
    features = cached_features(cache, wanted, files=files)
    cached = epoch_seconds(features, tables, epochs=args.epochs)

    spec, weights = make_spec(SpecChoice(sample=sample, weights=args.weights))
    engine = Engine(build_network(spec, weights), spec, DecoderPolicy())
    paths = [folder / "clips" / video_id for video_id in sorted(wanted)]
    stored = Stored.dealt([0] * len(paths), [args.frames] * len(paths))
    clips = EngineClips(engine, paths)
    names = [path.name for path in paths]
    looped = Features(names, stored, clips, width=cache.feature_dim or 0, dtype=np.float16)
    list(engine.run([VideoRef("warm", str(paths[0]), 1, "")]))  # once before the clock starts
    start = time.perf_counter()
    batches = sum(1 for _ in looped.batches(tables[0], batch_size=BATCH, seed=[0, 0]))
    network_s = time.perf_counter() - start
    engine.close()
    ratio = network_s / statistics.median(cached)
    return {
        "bench": "epoch_ratio",
        "clips": len(paths),
        "frames": args.frames * len(paths),
        "questions": len(rows),
        "steps": batches,
        "epoch_from_cache_s": round(statistics.median(cached), 4),
        "epoch_with_network_s": round(network_s, 2),
        "ratio": round(ratio, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12, help="epochs from the cache")
    parser.add_argument("--weights", default="random:0")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args)
    print(f"an epoch from the cache is {result['ratio']} times as fast")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
