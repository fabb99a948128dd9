"""How long do commands take until they do something, and what do many names cost?

    python infra/bench/start.py [--names 100000] [--rounds 3] [--only PART ...] [--folder DIR]

Makes N empty files, a cache whose catalog has them all as done, a clip of one second, a model that
learnt nothing and 720 questions. Then measures, each a process of its own from its start:

    rerun     `extract` of N catalogued videos: nothing is new
    deal      N names listed, matched with that catalog, and then dealt into shards as if all were
              new; the plan written
    network   nothing but Python with TensorFlow and Keras imported: what others wait for
    extract   `extract` of the clip, one frame of it, into a new cache
    ask       one question about the clip
    score     720 questions about 90 videos

`extract`, `ask` and `score` twice: `cold`, with nothing kept from earlier runs (an empty
XDG_CACHE_HOME), and `warm`. Takes some five minutes on two cores with 3 rounds; with a million
names ten. The last line is JSON: of each the median of the rounds of seconds, seconds of a core
and MiB (the kernel's ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import make_apart, measure

PARTS = ("rerun", "deal", "network", "extract", "ask", "score")
QUESTIONS, VIDEOS, FRAMES, WIDTH, BACKBONE = 720, 90, 8, 1280, "mobilenet_v2"
RUN = "20260101T000000000000-0000"
_MADE = ["--backbone", BACKBONE, "--weights", "random:0"]
_DEAL = """
import sys
from framebank.features.cache.known_videos import KnownVideos
from framebank.pipelines.extract.plan import drop_done, plan_shards, write_plan
from framebank.pipelines.inputs.listing import expand_inputs
clips, cache, out, fingerprint = sys.argv[1:]
refs = expand_inputs([clips], images=False).refs
known = KnownVideos.read(cache)
todo = drop_done(refs, known, fingerprint=fingerprint, retry_quarantined=False)
assert (todo.already_done, len(todo.refs)) == (len(refs), 0)
todo = drop_done(refs, known, fingerprint="", retry_quarantined=False)
write_plan(out, "plan", plan_shards(todo.refs, fingerprint=fingerprint))
print(len(todo.refs))
"""


def spec_of(*, frames: int = FRAMES) -> Any:
    from framebank.features.extraction.one_clip import make_spec
    from framebank.features.spec import SpecChoice

    choice = SpecChoice(backbone=BACKBONE, weights="random:0", sample=f"uniform={frames}")
    return make_spec(choice)[0]


def make_names(folder: Path, count: int) -> None:
    """Make `count` empty files, and a cache that has them all as done."""
    from framebank.features.cache import catalog, layout
    from framebank.features.cache.record import QuantisationError
    from framebank.features.cache.sidecar import CatalogRow, Sidecar, write_sidecar
    from framebank.pipelines.extract.plan import plan_shards
    from framebank.pipelines.inputs.listing import expand_inputs

    clips, cache, spec = folder / "names", str(folder / "named"), spec_of()
    for number in range(count):
        if number % 1000 == 0:
            place = clips / f"{number // 1000:05d}"
            place.mkdir(parents=True)
        (place / f"{number:07d}.mp4").touch()
    layout.write_spec(cache, spec)
    refs = expand_inputs([str(clips)], images=False).refs
    length, rows = 100, []
    for shard in plan_shards(refs, fingerprint=spec.fingerprint):
        file = layout.file_name(shard.shard, "0" * 64)
        its = [
            CatalogRow(
                ref.video_id, ref.uri, ref.size_bytes, ref.generation, ref.key(spec.fingerprint),
                "done", 1, RUN, "2026-01-01T00:00:00+00:00", file, record=place,
                offset=place * length, length=length, rows=FRAMES, content_sha256="0" * 64,
                source_container="mov,mp4", source_codec="h264", fingerprint=spec.fingerprint,
            )
            for place, ref in enumerate(shard.refs)
        ]  # fmt: skip
        path, size_bytes = layout.tfrecord_path(cache, file), length * len(its)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as records:
            records.truncate(size_bytes)
        write_sidecar(
            cache,
            Sidecar(
                shard.shard, RUN, spec.fingerprint, size_bytes, "0" * 64, QuantisationError(),
                tuple(its), file=file,
            ),
        )  # fmt: skip
        rows += its
    catalog.write_catalog(cache, RUN, rows)


def make_asked(folder: Path) -> None:
    """Make a clip, a model, and a cache with a file of questions for it."""
    import av
    import score_rate

    score_rate.FRAMES, score_rate.WIDTH = FRAMES, WIDTH
    score_rate.made_spec = spec_of
    score_rate.make_model(folder / "model")
    score_rate.make_cache(str(folder / "cache"), videos=VIDEOS)
    score_rate.make_questions(folder / "q.jsonl", count=QUESTIONS, videos=VIDEOS)
    dice = np.random.default_rng(0)
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height = 320, 240
        for _ in range(8):
            picture = dice.integers(0, 256, (240, 320, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def words_of(part: str, folder: Path, names: int) -> list[str]:
    """Return what is run, after the name of Python."""
    out = folder / "out"
    model = ["--model", str(folder / "model")]
    if part == "rerun":
        words = [str(folder / "names"), "--cache", str(folder / "named"), *_MADE]
        return ["-m", "framebank", "extract", *words, "--sample", f"uniform={FRAMES}"]
    if part == "deal":
        places = [str(folder / "names"), str(folder / "named"), str(out)]
        return ["-c", _DEAL, *places, spec_of().fingerprint]
    if part == "network":
        code = "from framebank.features import tensorflow_import as its; its.import_tensorflow()"
        return ["-c", code + "; import keras"]
    if part == "extract":
        words = [str(folder / "clip.mp4"), "--cache", str(out), *_MADE, "--sample", "uniform=1"]
        return ["-m", "framebank", "extract", *words]
    if part == "ask":
        return ["-m", "framebank", "ask", *model, str(folder / "clip.mp4"), "what is it?"]
    words = ["--cache", str(folder / "cache"), "--questions", str(folder / "q.jsonl")]
    return ["-m", "framebank", "score", *model, *words, "--out", str(out)]


def measured(part: str, folder: Path, names: int, *, cold: bool) -> dict[str, float]:
    out, kept = folder / "out", folder / "kept"
    shutil.rmtree(out, ignore_errors=True)
    if cold:
        shutil.rmtree(kept, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = str(kept)
    return measure(words_of(part, folder, names))[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--names", type=int, default=100_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--folder", metavar="DIR", help="keep what is made here, and use it again")
    args = parser.parse_args()
    folder = Path(args.folder or tempfile.mkdtemp(prefix="framebank-bench-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rounds: dict[str, list[dict[str, float]]] = {}
    try:
        if {"rerun", "deal"} & set(args.only) and not (folder / "named" / "catalog").exists():
            make_apart(make_names, folder, args.names)
        if not (folder / "clip.mp4").exists():
            make_apart(make_asked, folder)
        for _ in range(args.rounds):  # in turn: what else the machine does falls on all alike
            for part in args.only:
                kinds = (True, False) if part in ("extract", "ask", "score") else (False,)
                for cold in kinds:
                    name = part + (" cold" if cold else " warm") * (len(kinds) > 1)
                    figures = measured(part, folder, args.names, cold=cold)
                    rounds.setdefault(name, []).append(figures)
                    print(f"{name}: {figures}", flush=True)
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    found = {
        name: {key: statistics.median(one[key] for one in its) for key in its[0]}
        for name, its in rounds.items()
    }
    print(json.dumps({"names": args.names, "rounds": args.rounds} | found))


if __name__ == "__main__":
    main()
