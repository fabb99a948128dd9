"""How fast is extraction, as a ratio against the plain loop, both in one run on one machine.

    python infra/bench/extract_ratio.py [CLIPS] [--weights PATH] [--fps 4] [--rounds 3]

Two comparisons. `warm`: the engine against the loop inside one process, networks built before the
clock starts. `cold`: the command `framebank extract` against the loop as programs of their own, so
imports, Beam, building the network and committing shards count. In turn, loop first; the ratio is
taken round by round, and above 1 Framebank is the faster one. Without CLIPS it makes some.
Takes a few minutes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (0, 2)]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parents[2]


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """Return the seconds and the frames that `work` took."""
    start = time.perf_counter()
    frames = work()
    return time.perf_counter() - start, frames


def measure_warm(paths: list[Path], args: argparse.Namespace) -> dict[str, object]:
    """Compare engine and loop inside this process."""
    from plain_loop import build_model, run_loop

    from framebank.features.decoders.pool import DecoderPolicy
    from framebank.features.extraction.engine import Engine
    from framebank.features.extraction.one_clip import build_network, make_spec
    from framebank.features.spec import SpecChoice
    from framebank.features.video import Extracted, VideoRef

    spec, weights = make_spec(SpecChoice(sample=f"fps={args.fps}", weights=args.weights))
    model, network = build_model(args.weights), build_network(spec, weights)
    refs = [VideoRef(path.name, str(path), path.stat().st_size, "") for path in paths]
    engine = Engine(network, spec, DecoderPolicy())

    def run_engine() -> int:
        results = engine.run(refs)
        return sum(len(r.features) for r in results if isinstance(r, Extracted))

    def run_plain() -> int:
        return run_loop(paths, model, rate_fps=args.fps)

    run_loop(paths[:1], model, rate_fps=args.fps)  # both have run once before the clock starts
    list(engine.run(refs[:1]))
    rounds = [(timed(run_plain), timed(run_engine)) for _ in range(args.rounds)]
    engine.close()
    return describe(rounds)


def measure_cold(clips: Path, args: argparse.Namespace) -> dict[str, object]:
    """Compare whole programs."""

    def run_plain() -> int:
        command = [str(ROOT / "infra/bench/plain_loop.py"), str(clips), "--fps", str(args.fps)]
        out = run_python(*command, "--weights", args.weights)
        return int(json.loads(out.splitlines()[-1])["frames"])

    def run_extract() -> int:
        with tempfile.TemporaryDirectory() as folder:
            words = ["extract", str(clips), "--cache", f"{folder}/cache", "--json"]
            words += ["--sample", f"fps={args.fps}", "--weights", args.weights]
            out = run_python("-m", "framebank", *words, "--max-bad-ratio", "1")
            return int(json.loads(out.splitlines()[-1])["frames"])

    return describe([(timed(run_plain), timed(run_extract)) for _ in range(args.rounds)])


def run_python(*words: str) -> str:
    """Run a Python program of this checkout and return what it printed."""
    done = subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    return done.stdout


def describe(rounds: list[tuple[tuple[float, int], tuple[float, int]]]) -> dict[str, object]:
    """Return medians and the ratio loop/Framebank of seconds a frame, round by round."""
    ratios = [(ls / lf) / (fs / ff) for (ls, lf), (fs, ff) in rounds]
    return {
        "loop_frames": rounds[0][0][1],
        "framebank_frames": rounds[0][1][1],
        "loop_s": round(statistics.median(loop[0] for loop, _ in rounds), 2),
        "framebank_s": round(statistics.median(ours[0] for _, ours in rounds), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="?")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--fps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(args.clips or folder)
        if args.clips is None:
            from framebank.train.demo.clips import make_clips

            make_clips(clips, count=24)
            clips = clips / "clips"
        paths = sorted(path for path in clips.iterdir() if path.suffix != ".jsonl")
        warm = measure_warm(paths, args)
        cold = measure_cold(clips, args)
    for name, result in (("warm", warm), ("cold", cold)):
        print(f"{name}: {result['ratio']} times the plain loop ({result})")
    print(json.dumps({"bench": "extract_ratio", "warm": warm, "cold": cold}))


if __name__ == "__main__":
    main()
