"""What each stage of an extraction can do alone, and how near the whole comes to it.

    python infra/bench/limits.py --clips DIR --weights FILE [--backbone inception_v3] [--fps 4]
                                 [--precision float32] [--rounds 5]

All in one process, warm: decoders started and the network built before a clock runs. In turn, round
by round: `decode`, frames through the decoders with nobody at the network; `network`, frames that
lie in memory through the network; `write`, ready features into shards on the disk; `engine`, all of
it but the writing, as `framebank extract` runs it. Decoders and network share the cores here, so
beside the part of the slower stage's own limit there is that of what both allow when each frame
takes its turn at both on the same cores. The last line is JSON: frames a second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common  # finds the project
import numpy as np

STAGES = ("decode", "network", "write", "engine")


class Stages:
    """The stages of one extraction of `paths`, built and warm; each returns how many frames."""

    def __init__(
        self, paths: list[Path], *, backbone: str, weights: str, sample: str, precision: str
    ) -> None:
        from framebank.features.decoders.policy import DecoderPolicy
        from framebank.features.decoders.pool import DecoderPool
        from framebank.features.extraction.engine import Engine
        from framebank.features.extraction.one_clip import build_network, make_spec
        from framebank.features.spec import SpecChoice
        from framebank.features.video import Extracted, VideoRef

        choice = SpecChoice(sample=sample, backbone=backbone, weights=weights, precision=precision)
        self.spec, found = make_spec(choice)
        self._network = build_network(self.spec, found)
        self._refs = [VideoRef(one.name, str(one), one.stat().st_size, "") for one in paths]
        self._engine = Engine(self._network, self.spec, DecoderPolicy())
        self._pool = DecoderPool(self.spec, DecoderPolicy(), batch_size=self._network.batch_size)
        results = list(self._engine.run(self._refs))
        self._videos = [result for result in results if isinstance(result, Extracted)]
        self.rejected = len(results) - len(self._videos)
        side = self.spec.input_size
        shape = (self._network.batch_size, side, side, 3)
        self._images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self.decode()

    def decode(self) -> int:
        from framebank.features.decoders.events import ClipDone

        ends = [event for event in self._pool.decode(self._refs) if isinstance(event, ClipDone)]
        return sum(len(end.fields["tokens"]) for end in ends)

    def network(self, *, least_s: float = 3.0) -> int:
        start, frames = time.perf_counter(), 0
        while time.perf_counter() - start < least_s:
            self._network(self._images)
            frames += len(self._images)
        return frames

    def write(self) -> int:
        from framebank.features.cache.record import encode_record
        from framebank.features.cache.tfrecord import frame_record
        from framebank.features.stores import storage

        with tempfile.TemporaryDirectory() as folder:
            records = (encode_record(video, spec=self.spec)[0] for video in self._videos)
            parts = [frame_record(record) for record in records]
            storage.write_atomic(f"{folder}/shard.tfrecord", parts)
        return sum(len(video.features) for video in self._videos)

    def engine(self) -> int:
        return sum(len(result.features) for result in self._engine.run(self._refs))

    def balance(self) -> dict[str, Any]:
        """Return who waited for whom in the last run of the engine."""
        return self._engine.balance.to_json()

    def close(self) -> None:
        self._engine.close()
        self._pool.close()


def rate(stage: Callable[[], int]) -> float:
    """Return the frames a second of one call."""
    start = time.perf_counter()
    return stage() / (time.perf_counter() - start)


def nearness(rates: dict[str, float]) -> dict[str, float]:
    """Return the engine's rate as part of the slower stage's, and of what both allow in turns."""
    decode, network, engine = rates["decode"], rates["network"], rates["engine"]
    in_turns = 1 / (1 / decode + 1 / network)
    return {
        "of_slower_stage": round(engine / min(decode, network), 3),
        "of_both_in_turns": round(engine / in_turns, 3),
    }


def measure_limits(stages: Stages, *, rounds: int) -> dict[str, Any]:
    """Return medians and ranges of all stages and of the nearness, taken round by round."""
    taken = [{name: rate(getattr(stages, name)) for name in STAGES} for _ in range(rounds)]
    near = [nearness(rates) for rates in taken]
    figures: dict[str, Any] = {
        name: common.spread([each[name] for each in taken]) for name in STAGES
    }
    for name in near[0]:
        figures[name] = common.spread([each[name] for each in near], digits=3)
    return figures | {"rejected": stages.rejected, "balance": stages.balance()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", required=True, metavar="DIR")
    parser.add_argument("--weights", default="random:0", metavar="FILE")
    parser.add_argument("--backbone", default="inception_v3")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--fps", default="4")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    stages = Stages(
        sorted(path for path in Path(args.clips).resolve().iterdir() if path.is_file()),
        backbone=args.backbone,
        weights=args.weights,
        sample=f"fps={args.fps}",
        precision=args.precision,
    )
    try:
        figures = measure_limits(stages, rounds=args.rounds)
    finally:
        stages.close()
    print(json.dumps({"bench": "limits", "backbone": args.backbone, "fps": args.fps} | figures))


if __name__ == "__main__":
    main()
