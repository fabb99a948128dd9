"""What share of a training step is spent waiting for input, shards being on a local disk?

    python infra/bench/input_wait.py [--clips 2000] [--frames 16] [--folder DIR]

Makes a cache of random features, 2048 wide, and trains an LSTM on it for some epochs in
which every record is read from its shard (nothing is kept in memory). The first epoch, with its
tracing, is left out. Takes about two minutes on two cores. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, made_spec

WIDTH = 2048
SHARDS = 32
_LINE = re.compile(r"([0-9.]+) ms a step, ([0-9.]+)% of it waiting")


def make_cache(folder: Path, *, clips: int, frames: int) -> None:
    """Write a cache of random features, and a question about each clip."""
    from framebank.features.cache import catalog, layout
    from framebank.features.cache.record import QuantisationError, encode_record
    from framebank.features.cache.sidecar import Sidecar, done_row, write_sidecar
    from framebank.features.cache.tfrecord import frame_record
    from framebank.features.video import Extracted, SourceInfo, VideoRef

    spec = made_spec(frames=frames)
    cache, dice = str(folder / "cache"), np.random.default_rng(0)
    layout.write_spec(cache, spec)
    about = {"fingerprint": spec.fingerprint, "run_id": "bench", "time": "2026-01-01T00:00:00Z"}
    times = np.arange(frames, dtype=np.int64)
    rows, asked = [], []
    for number in range(SHARDS):
        shard, data, part = f"bench-{number:03d}", b"", []
        for clip in range(number, clips, SHARDS):
            features = dice.random((frames, WIDTH), np.float32)
            ref = VideoRef(f"{clip:06d}.mp4", f"/{clip}", 1, "1")
            info = SourceInfo("mov,mp4", "h264", 64, 64, 1.0, float(frames), frames)
            video = Extracted(ref, features, times * 1000, times, info, "0" * 64, False, 0, False)
            frame = frame_record(encode_record(video, spec=spec)[0])
            place = {"record": len(part), "offset": len(data), "length": len(frame)}
            part.append(done_row(video, shard=shard, **place, **about))
            data += frame
            answer = {"question": "what is it?", "answer": f"a{clip % 50}"}
            asked.append(json.dumps({"video_id": ref.video_id, **answer}))
        Path(layout.tfrecord_path(cache, shard)).parent.mkdir(parents=True, exist_ok=True)
        Path(layout.tfrecord_path(cache, shard)).write_bytes(data)
        made = Sidecar(
            shard, "bench", spec.fingerprint, len(data), "0" * 64, QuantisationError(), tuple(part)
        )
        write_sidecar(cache, made)
        rows += part
    catalog.write_catalog(cache, "bench", rows)
    (folder / "q.jsonl").write_text("\n".join(asked))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--folder", help="where the cache is made (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        make_cache(folder, clips=args.clips, frames=args.frames)
        words = ["train", "--cache", folder / "cache", "--questions", folder / "q.jsonl"]
        words += ["--model", folder / "model", "--epochs", args.epochs, "--memory-bytes", 1]
        words += ["--model-kind", "lstm"]
        command = [sys.executable, "-m", "framebank", *words, "--no-baselines"]
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True,
            stdout=subprocess.DEVNULL, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    ends = [line for line in done.stderr.splitlines() if "step," not in line.split(", loss")[0]]
    found = [match for line in ends if (match := _LINE.search(line)) and ", loss" in line][1:]
    print("\n".join(line for line in ends if "ms a step" in line))
    result = {
        "bench": "input_wait",
        "clips": args.clips,
        "frames": args.frames,
        "step_ms": statistics.median(float(match[1]) for match in found),
        "waiting_percent": statistics.median(float(match[2]) for match in found),
        "waiting_percent_max": max(float(match[2]) for match in found),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
