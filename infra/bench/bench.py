"""All benches of extraction, as `make bench` runs them; tables at the end, the last line is JSON.

    python infra/bench/bench.py [--clips DIR] [--weights FILE] [--backbone inception_v3] [--fps 4]
                                [--rounds 5 | --quick] [--only PART ...] [--programs NAME ...]
                                [--out FILE]
    python infra/bench/bench.py --table FILE

`comparison` runs whole programs in turn, round by round: Framebank in each precision, and each peer
that installed (`peers.py`), on the same clips with the same weights, features on the disk. The
order turns with the round; ratios are taken round by round. The other parts are programs of this
folder: what each stage can do (`limits.py`), Framebank against itself (`ratios.py`), what grows
with what (`growth.py`), and the start (`start.py`). Without --clips it makes some, without
--weights random ones. Takes one to two hours, minutes with `--only comparison --rounds 1`.
`--quick` is one round over small things, to see that all of it runs: no figure of it says anything.
`--table` prints the tables of the JSON that an earlier run wrote with --out.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clips as made_clips
import common
import numpy as np
import peers
import tables
from install_peers import FFMPEG, LEDGER
from weights import weights_file

HERE = Path(__file__).resolve().parent
PROGRAM_TIMEOUT_S = 1800
# Rounds at most of what takes minutes each: over an hour of film, and of each stage alone.
MOST_OF_FILMS, MOST_OF_LIMITS = 1, 3
CLIPS_S, QUICK_CLIPS_S = 12, 8  # made ones; of shorter ones the start is half of the work
QUICK = {  # words for each part where nothing counts but that it runs
    "ratios": ["--minutes", "0.5", "--film-minutes", "2"],
    "growth": ["--minutes", "0.1", "2", "--clips", "1"],
    "start": ["--names", "2000", "--rounds", "1"],
    "epoch": ["--frames", "2", "--epochs", "3"],
    "score": ["--questions", "2000", "--videos", "200"],
}


def framebank_words(args: argparse.Namespace, precision: str, out: str) -> list[str]:
    words = ["-m", "framebank", "extract", args.clips, "--cache", out, "--json"]
    words += ["--sample", f"fps={args.fps}", "--backbone", args.backbone]
    words += ["--weights", args.weights, "--precision", precision, "--max-bad-ratio", "1"]
    return words


def peer_words(args: argparse.Namespace, peer: str, out: str) -> list[str]:
    words = [str(HERE / "peers.py"), peer, args.clips, "--out", out]
    return [*words, "--fps", args.fps, "--backbone", args.backbone, "--weights", args.weights]


def programs() -> dict[str, Callable[[argparse.Namespace, str], list[str]]]:
    """Return how each program of the comparison is called, by its name."""
    from framebank.features.spec import PRECISIONS

    def ours(precision: str) -> Callable[[argparse.Namespace, str], list[str]]:
        return lambda args, out: framebank_words(args, precision, out)

    def theirs(peer: str) -> Callable[[argparse.Namespace, str], list[str]]:
        return lambda args, out: peer_words(args, peer, out)

    return {
        **{peer: theirs(peer) for peer in peers.PEERS},
        **{f"framebank {one}": ours(one) for one in dict.fromkeys((*PRECISIONS, "auto", "int8"))},
    }


def features_of(name: str, out: Path) -> dict[str, np.ndarray]:
    """Return float32[n, d] by the name of the clip, of what a program wrote."""
    if not name.startswith("framebank"):
        return peers.read_features(out)
    from framebank.features.cache.reader import open_cache

    cache = open_cache(out)
    return {Path(one.video_id).name: one.features.astype(np.float32) for one in cache}


def nearness(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Return the least cosine of the clips' mean features: what runs with other weights, or other
    pixels, shows. Frames of one row may be neighbours, since programs differ in which is due."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a.mean(0, dtype=np.float64), b.mean(0, dtype=np.float64)
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))

    both = found.keys() & wanted.keys()
    return min((cosine(found[clip], wanted[clip]) for clip in both), default=0.0)


def run_program(
    name: str, words: list[str], out: Path
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Run a program; return its figures and its features. Raises SystemExit if it fails."""
    libraries = {"LD_LIBRARY_PATH": os.pathsep.join(FFMPEG)} if name == "torchcodec" else {}
    _, figures = common.measure(words, environment=libraries, timeout_s=PROGRAM_TIMEOUT_S)
    found = features_of(name, out)
    frames = sum(map(len, found.values()))
    if not frames:
        raise SystemExit("it ended well and wrote no features")
    return figures | {"frames": frames, "frames_per_s": frames / figures["seconds"]}, found


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Return what each program did in all rounds, and why others did nothing."""
    ledger = json.loads(LEDGER.read_text()) if LEDGER.exists() else {}
    failed = {one: row["why_not"] for one, row in ledger.items() if "why_not" in row}
    calls = {name: call for name, call in programs().items() if name not in failed}
    if args.programs:
        calls = {name: call for name, call in calls.items() if name in args.programs}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    features: dict[str, dict[str, np.ndarray]] = {}
    for number in range(args.rounds):
        names = [name for name in calls if name not in failed]
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                out = Path(folder) / "out"
                try:
                    figures, found = run_program(name, calls[name](args, str(out)), out)
                except SystemExit as error:
                    failed[name] = common.reason(error)
                    common.say(f"{name} failed: {failed[name]}")
                    continue
            features.setdefault(name, found)
            taken[name].append(figures)
            common.say(f"round {number + 1}, {name}: {figures['frames_per_s']:.2f} frames/s")
    return describe({name: rows for name, rows in taken.items() if rows}, features) | {
        "backbone": args.backbone,
        "fps": args.fps,
        "rounds": args.rounds,
        "clips": len(list(Path(args.clips).iterdir())),
        "failed": failed,
    }


def describe(
    taken: dict[str, list[dict[str, float]]], features: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Return medians and ranges of each program's rounds, and its ratios to others' rounds."""
    rows = {}
    for name, rounds in taken.items():
        rates = [one["frames_per_s"] for one in rounds]
        row: dict[str, Any] = {
            "frames": rounds[0]["frames"],
            "seconds": common.spread([one["seconds"] for one in rounds]),
            "cpu_seconds": common.spread([one["cpu_seconds"] for one in rounds]),
            "frames_per_s": common.spread(rates),
        }
        for other in ("plain", "ray"):
            pairs = list(zip(rates, taken.get(other, []), strict=False))
            if pairs:
                ratios = [mine / theirs["frames_per_s"] for mine, theirs in pairs]
                row[f"to_{other}"] = common.spread(ratios, digits=3)
        if "framebank float32" in features:
            found = nearness(features[name], features["framebank float32"])
            row["cosine"] = round(found, 5)
        rows[name] = row
    return {"programs": rows}


def run_part(script: str, *words: str) -> dict[str, Any]:
    """Run a program of this folder; return its last line."""
    said, _ = common.measure([str(HERE / script), *words])
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    return figures


def limits(args: argparse.Namespace) -> dict[str, Any]:
    """Return the limits of each stage on clips of one kind and on all of them; of made clips also
    on smaller ones, whose decoding takes less from the network's cores."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(Path(args.clips).iterdir()):
        kinds.setdefault(path.suffix, []).append(path)
    figures = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        alike = Path(folder)
        for path in max(kinds.values(), key=len):
            (alike / path.name).symlink_to(path.resolve())
        larger = "one kind, 720p and 1080p" if args.small else "one kind"
        asked = {larger: str(alike), "mixed": args.clips}
        if args.small:
            asked["one kind, 360p"] = args.small
        for name, clips in asked.items():
            words = ["--clips", clips, "--weights", args.weights, "--backbone", args.backbone]
            rounds = min(args.rounds, MOST_OF_LIMITS)
            words += ["--fps", args.fps, "--rounds", str(rounds)]
            figures[name] = run_part("limits.py", *words)
    return figures


def scripts(args: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what makes each part."""
    rounds = ["--rounds", str(min(args.rounds, MOST_OF_FILMS))]
    small = QUICK if args.quick else {}
    own = {
        "ratios": ("ratios.py", rounds),
        "growth": ("growth.py", []),
        "start": ("start.py", []),
        "epoch": ("epoch_ratio.py", []),
        "score": ("score_rate.py", []),
    }
    return {
        "comparison": lambda: compare(args),
        "limits": lambda: limits(args),
        **{
            part: functools.partial(run_part, script, *words, *small.get(part, []))
            for part, (script, words) in own.items()
            if (HERE / script).exists()
        },
    }


def machine() -> dict[str, Any]:
    """Return what ran the benches."""
    from framebank.features.machine import processor

    described = processor().split()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": [flag for flag in wanted if flag in described],
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"bench": "all", "machine": machine(), "failed": {}}
    for part, make in scripts(args).items():
        if args.only and part not in args.only:
            continue
        try:
            result[part] = make()
        except (SystemExit, ValueError, IndexError) as error:
            result["failed"][part] = common.reason(error)
            common.say(f"{part} failed: {error}")
            continue
        common.say("\n".join(tables.render({part: result[part]})))
        write(result, args.out)  # an hour would be lost with what is stopped later
    return result


def write(result: dict[str, Any], out: str | None) -> None:
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(result) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", metavar="DIR", help="a folder of clips (default: made)")
    parser.add_argument("--weights", metavar="FILE", help="of keras.applications (default: random)")
    parser.add_argument("--backbone", default="inception_v3", choices=peers.NETWORKS)
    parser.add_argument("--fps", default="4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round over small things")
    parser.add_argument("--only", nargs="+", metavar="PART", help="comparison, limits, ratios, …")
    parser.add_argument("--programs", nargs="+", metavar="NAME", help="of the comparison")
    parser.add_argument("--folder", metavar="DIR", help="keep what is made here, and use it again")
    parser.add_argument("--out", metavar="FILE", help="write the JSON here too, part by part")
    parser.add_argument("--table", metavar="FILE", help="print the tables of such a file, only")
    args = parser.parse_args()
    if args.table:
        print("\n".join(tables.render(json.loads(Path(args.table).read_text()))))
        return 0
    args.rounds, args.small = 1 if args.quick else args.rounds, None
    kept, args.folder = args.folder, args.folder or tempfile.mkdtemp(prefix="framebank-bench-")
    try:
        folder = Path(args.folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        args.weights = args.weights or weights_file(folder, args.backbone)
        if args.clips is None:
            seconds = QUICK_CLIPS_S if args.quick else CLIPS_S
            args.clips = str(made_clips.mixed(folder, seconds=seconds))
            args.small = str(made_clips.small(folder, seconds=seconds))
        args.clips = str(Path(args.clips).resolve())
        result = run(args)
    finally:
        if kept is None:
            shutil.rmtree(args.folder, ignore_errors=True)
    write(result, args.out)
    print(json.dumps(result))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
