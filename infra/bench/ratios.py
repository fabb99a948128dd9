"""Framebank against itself: what each way of doing less saves, as ratios in one run.

    python infra/bench/ratios.py [--rounds 3] [--minutes 10] [--film-minutes 60] [--folder DIR]
                                 [--only sampled gop film backbones slides]

    sampled    `--check sampled` against `whole`: a frame in 4 s of 1080p H.264, a key frame in 2 s
    gop        the same at a frame a second, key frames 250 frames apart, B-frames
               (what is wanted lies anywhere in its group, and needs what was before it there)
    film       one long 720p film, sampled: all decoders against one; `decoding` without the
               network, which has the same cores, at a frame a second
    backbones  four networks in one decoding against four runs
    slides     a clip of which one picture in ten is new against the network's own rate

The films are made (`clips.py`): minutes, and 2 GB in --folder, which is kept and used again. Whole
programs run in turn, round by round. `program` is the ratio of their seconds, the start included;
`engine` that of the seconds in which frames are made, as the run's summary has them. `same` says
that the features and times of both are the same bytes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clips
import common
from limits import Stages, rate

STRETCH = 31 * 60  # frames; groups of 60 go on undisturbed when it comes round
BACKBONES = ("mobilenet_v2", "resnet50_v2", "resnet50", "inception_v3")
Way = list[str]  # words of `framebank extract`


def films(folder: Path, name: str, *, size: tuple[int, int], gop: int, minutes: float) -> Path:
    """Return a folder of two films of `minutes`, made if it is not there."""

    def fill(part: Path) -> None:
        for number in range(2):
            stretch = folder / f"stretch-{size[1]}-{gop}-{number}.mp4"
            if not stretch.exists():
                shown = clips.scene(STRETCH, size, seed=number)
                clips.encode(stretch, shown, options=clips.gop(gop))
            clips.repeat(stretch, part / f"film-{number}.mp4", seconds=60 * minutes)

    return clips.filled(folder / name, fill)


def extract(inputs: Path, cache: Path, *words: str) -> dict[str, Any]:
    """Run `framebank extract`; return its seconds, and those of its engine, and its frames."""
    command = ["-m", "framebank", "extract", str(inputs), "--cache", str(cache), "--json"]
    # Not auto: what it takes is measured, and may differ from run to run.
    made_with = ["--weights", "random:0", "--precision", "float32"]
    said, figures = common.measure([*command, *made_with, *words])
    told = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    summaries = [told] if "inputs" in told else list(told.values())  # of several backbones by name
    walls = [summary.get("balance", {}).get("wall_s", 0.0) for summary in summaries]
    frames = sum(summary.get("frames", 0) for summary in summaries)
    return {"seconds": figures["seconds"], "engine_s": max(walls), "frames": frames}


def digest(cache: Path) -> str:
    """Return a hash of all features of a cache and their times."""
    from framebank.features.cache.reader import open_cache

    whole = hashlib.sha256()
    for one in sorted(open_cache(cache), key=lambda record: str(record.video_id)):
        for part in (one.video_id.encode(), one.features.tobytes(), one.pts_ms.tobytes()):
            whole.update(part)
    return whole.hexdigest()


def against(slow: Way, fast: Way, *, inputs: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Run both ways in turn; return how many times as fast the second is."""
    taken: list[tuple[dict[str, Any], dict[str, Any]]] = []
    same = True
    for number in range(rounds):
        figures, digests = [], []
        for way in (slow, fast) if number % 2 == 0 else (fast, slow):
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                figures.append(extract(inputs, Path(cache) / "cache", *way))
                digests.append(digest(Path(cache) / "cache"))
        same = same and len(set(digests)) == 1
        taken.append((figures[number % 2], figures[1 - number % 2]))
    return ratios_of(taken) | {"same": same}


def ratios_of(taken: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return the ratios slow/fast of seconds, round by round."""
    found: dict[str, Any] = {"frames": taken[0][1]["frames"]}
    for name, key in (("program", "seconds"), ("engine", "engine_s")):
        if all(fast[key] for _, fast in taken):
            found[name] = common.spread([slow[key] / fast[key] for slow, fast in taken])
            found[f"{name}_s"] = common.spread([fast[key] for _, fast in taken])
    return found


def sampled(args: argparse.Namespace) -> dict[str, Any]:
    inputs = films(args.folder, "key-2s", size=(1920, 1080), gop=60, minutes=args.minutes)
    way = ["--backbone", "mobilenet_v2", "--sample", "fps=1/4", "--check"]
    return against(
        [*way, "whole"], [*way, "sampled"], inputs=inputs, rounds=args.rounds, folder=args.folder
    )


def gop(args: argparse.Namespace) -> dict[str, Any]:
    minutes = args.minutes / 2
    inputs = films(args.folder, "gop-250", size=(1920, 1080), gop=250, minutes=minutes)
    way = ["--backbone", "mobilenet_v2", "--sample", "fps=1", "--check"]
    return against(
        [*way, "whole"], [*way, "sampled"], inputs=inputs, rounds=args.rounds, folder=args.folder
    )


def film(args: argparse.Namespace) -> dict[str, Any]:
    both = films(args.folder, "long", size=(1280, 720), gop=60, minutes=args.film_minutes)
    way = ["--backbone", "mobilenet_v2", "--sample", "fps=1/4", "--check", "sampled"]
    path = both / "film-0.mp4"
    found = against(
        [*way, "--decoders", "1"], way, inputs=path, rounds=args.rounds, folder=args.folder
    )
    pairs = [(decoding_s(path, decoders=1), decoding_s(path)) for _ in range(args.rounds)]
    found["decoding"] = common.spread([one_s / all_s for one_s, all_s in pairs])
    found["decoding_s"] = common.spread([all_s for _, all_s in pairs])
    return found


def decoding_s(path: Path, *, decoders: int | None = None) -> float:
    """Return the seconds in which `decoders` (None: one a core) decode a film, sampled."""
    from framebank.features.decoders.policy import DecoderPolicy
    from framebank.features.decoders.pool import DecoderPool
    from framebank.features.extraction.one_clip import make_spec, ref_of
    from framebank.features.spec import SpecChoice

    choice = SpecChoice(sample="fps=1", backbone="mobilenet_v2", weights="random:0")
    spec, _ = make_spec(choice)
    with contextlib.closing(
        DecoderPool(spec, DecoderPolicy(decoders=decoders, check="sampled"))
    ) as pool:
        start = time.monotonic()
        for _ in pool.decode([ref_of(str(path))]):
            pass
        return time.monotonic() - start


def backbones(args: argparse.Namespace) -> dict[str, Any]:
    minutes = args.minutes / 4
    inputs = films(args.folder, "four", size=(1920, 1080), gop=60, minutes=minutes)
    taken, same = [], True
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            alone, together = Path(folder) / "alone", Path(folder) / "together"
            # Few frames, so that decoding bounds.
            words = ["--sample", "fps=1/10"]
            runs = [extract(inputs, alone / name, "--backbone", name, *words) for name in BACKBONES]
            all_four = itertools.chain.from_iterable(("--backbone", name) for name in BACKBONES)
            once = extract(inputs, together, *all_four, *words)
            slow = {key: sum(run[key] for run in runs) for key in runs[0]}
            taken.append((slow, once))
            pairs = [(digest(alone / name), digest(together / name)) for name in BACKBONES]
            same = same and all(one == other for one, other in pairs)
    return ratios_of(taken) | {"same": same}


def slides(args: argparse.Namespace) -> dict[str, Any]:
    """Return the engine's rate on slides as a multiple of the network's on ready frames."""
    path = args.folder / "slides.gif"  # x264 mends a still for some frames: they are not the same
    if not path.exists():
        shown = clips.slides(600, (480, 270), every=10, seed=3)
        clips.encode(path, shown, codec="gif", rate_fps=10)
    stages = Stages(
        [path], backbone="inception_v3", weights="random:0", sample="all", precision="float32"
    )
    try:
        pairs = [(rate(stages.network), rate(stages.engine)) for _ in range(args.rounds)]
        balance = stages.balance()
    finally:
        stages.close()
    return {
        "pictures": balance["pictures"],
        "computed": balance["computed"],
        "network_bound": common.spread([network for network, _ in pairs]),
        "engine": common.spread([engine for _, engine in pairs]),
        "ratio": common.spread([engine / network for network, engine in pairs]),
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "sampled": sampled,
    "gop": gop,
    "film": film,
    "backbones": backbones,
    "slides": slides,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10, help="of each film of `sampled`")
    parser.add_argument("--film-minutes", type=float, default=60)
    parser.add_argument("--folder", metavar="DIR", help="keep what is made here, and use it again")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    kept, made = args.folder, args.folder or tempfile.mkdtemp(prefix="framebank-bench-")
    args.folder = Path(made).resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"bench": "ratios"}
    try:
        for part in args.only:
            try:
                figures[part] = PARTS[part](args)
            except SystemExit as error:
                figures[part] = {"failed": common.reason(error)}
            common.say(f"{part}: {figures[part]}")
    finally:
        if kept is None:
            shutil.rmtree(args.folder, ignore_errors=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
