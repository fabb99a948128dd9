"""How long and how large is `framebank retrain`'s look for news on a catalog of a million videos?

    python infra/bench/retrain_news.py [--videos 1000000] [--questions 1000000] [--folder DIR]

Makes a cache of catalogs alone (eight runs, Parquet as `extract` writes it), a question file, and a
registry whose model in use was made from both. Then measures three processes, each from its start:

    same      nothing has changed: catalog names and file hashes tell
    no clip   a catalog came that holds no new video: questions are joined, videos compared
    join      question file and cache become the questions to train on, and nothing else

Takes two minutes, most of them for making. The last line is JSON: seconds, seconds of a core, and
MiB (the kernel's ru_maxrss) of each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import made_spec, make_apart, measure

RUNS = 8
CONFIG, QUESTIONS, CACHE = "retrain.toml", "q.jsonl", "cache"
_WORDS = ("man", "woman", "dog", "guitar", "onion", "car", "ball", "road", "cat", "horse")
_JOIN = """
import sys
from framebank.features.cache.reader import open_cache
from framebank.features.questions.files import QuestionFiles
from framebank.train.data.joining import join_cache
joined = join_cache(QuestionFiles([sys.argv[1]]), open_cache(sys.argv[2]), max_unmatched_ratio=0.1)
print(len(joined.questions), "questions joined")
"""


def video_name(number: int) -> str:
    return f"part-{number % 97:02d}/clip-{number:07d}.mp4"


def make_catalogs(cache: str, *, videos: int) -> None:
    """Write a spec and RUNS catalogs; shards are named and do not exist."""
    from framebank.features.cache import layout
    from framebank.features.cache.catalog import fixed_schema

    spec = made_spec(frames=8)
    layout.write_spec(cache, spec)
    schema = fixed_schema()
    for run, numbers in enumerate(np.array_split(np.arange(videos), RUNS)):
        run_id = f"2026010{run + 1}-0000"
        path = Path(layout.catalog_path(cache, run_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for part in np.array_split(numbers, max(1, len(numbers) // 10_000)):
                writer.write_table(catalog_part(part.tolist(), schema, spec.fingerprint, run_id))


def catalog_part(numbers: list[int], schema: pa.Schema, fingerprint: str, run_id: str) -> pa.Table:
    """Return the rows of these videos; a hundredth of them is quarantined."""
    dice = np.random.default_rng(numbers[0])
    known = {
        "video_id": [video_name(number) for number in numbers],
        "uri": [f"gs://clips/{video_name(number)}" for number in numbers],
        "key": [dice.bytes(32).hex() for _ in numbers],
        "content_sha256": [dice.bytes(32).hex() for _ in numbers],
        "state": ["quarantined" if number % 100 == 7 else "done" for number in numbers],
        "shard": [f"{run_id}-{number // 500:05d}" for number in numbers],
        "offset": [number % 500 * 33_000 for number in numbers],
    }
    same = {"fingerprint": fingerprint, "run_id": run_id, "time": "2026-01-01T00:00:00Z"}
    columns = []
    for field in schema:
        fillers = {pa.int64(): 8, pa.float64(): 0.0, pa.bool_(): False}
        filler = fillers.get(field.type, "")
        values = known.get(field.name, [same.get(field.name, filler)] * len(numbers))
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schema)


def make_questions(path: Path, *, count: int, videos: int) -> None:
    """Write questions about done videos, named without folder and suffix as published sets do."""
    dice = np.random.default_rng(1)
    asked, words = dice.integers(0, videos, count), dice.integers(0, len(_WORDS), (count, 3))
    with path.open("w") as file:
        for number, (video, (one, other, answer)) in enumerate(
            zip(asked.tolist(), words.tolist(), strict=True)
        ):
            row = {
                "question_id": f"q{number}",
                "video_id": f"clip-{video + (video % 100 == 7):07d}",
                "question": f"what does the {_WORDS[one]} do with the {_WORDS[other]} {number}?",
                "answer": _WORDS[answer],
            }
            file.write(json.dumps(row) + "\n")


def make_registry(config_path: str) -> None:
    """Make a registry whose model in use was made from what the config names."""
    from framebank.features.asking.trained_model import MODEL_FILES
    from framebank.features.cache.reader import open_cache, open_spec
    from framebank.features.questions.files import QuestionFiles
    from framebank.features.questions.seen_videos import SEEN, content_hashes
    from framebank.features.stores import storage
    from framebank.train.data.joining import join_cache, videos_digest
    from framebank.train.data.splits import seen_by
    from framebank.train.retrain.config import read_config
    from framebank.train.retrain.registry import (
        BASIS,
        VERDICT,
        Registry,
        new_version,
        write_json,
    )
    from framebank.train.retrain.retraining import look

    config = read_config(config_path)
    cache = open_cache(config.cache)
    joined = join_cache(QuestionFiles(config.questions), cache, max_unmatched_ratio=0.1)
    basis = look(config, fingerprint=open_spec(config.cache).fingerprint)
    registry, version = Registry(config.registry), new_version()
    folder = registry.folder(version)
    for name in MODEL_FILES:  # a look for news asks only whether they are there
        storage.write_atomic(storage.join(folder, name), b"")
    seen = seen_by(joined.questions, content_hashes(cache, set(joined.frames)))
    storage.write_atomic(storage.join(folder, SEEN), seen.to_bytes())
    fields = dataclasses.asdict(basis) | {"videos": videos_digest(cache, joined.frames)}
    write_json(storage.join(folder, BASIS), fields)
    verdict = {"better": True, "reason": "made", "against": None, "against_number": 0}
    write_json(storage.join(folder, VERDICT), verdict | {"figures": {}})
    registry.settle(version)


def make_all(made: Path, videos: int, count: int) -> None:
    """Make cache, questions, registry and config in the folder `made`; the config comes last."""
    make_catalogs(str(made / CACHE), videos=videos)
    make_questions(made / QUESTIONS, count=count, videos=videos)
    part = made / f"part-{CONFIG}"
    part.write_text(
        f'registry = "{made}/registry"\ncache = "{made / CACHE}"\n'
        f'questions = ["{made / QUESTIONS}"]\n'
    )
    make_registry(str(part))
    part.rename(made / CONFIG)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--videos", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--questions", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="keep what is made here, and use it again")
    args = parser.parse_args()
    made = Path(args.folder or tempfile.mkdtemp(prefix="framebank-bench-")).resolve()
    config, questions, cache = made / CONFIG, made / QUESTIONS, made / CACHE
    try:
        if not config.exists():
            make_apart(make_all, made, args.videos, args.questions)
        figures = {}
        command = ["-m", "framebank", "retrain", "--config", str(config)]
        empty = cache / "catalog" / "20260201-0000.parquet"
        empty.unlink(missing_ok=True)
        for name, words in (
            ("same", command),
            ("no clip", command),
            ("join", ["-c", _JOIN, str(questions), str(cache)]),
        ):
            if name == "no clip":
                first = min(empty.parent.glob("*.parquet"))
                pq.write_table(pq.read_table(first).slice(0, 0), empty)
            said, figures[name] = measure(words)
            print(
                f"{name}: {figures[name]['seconds']} s, {figures[name]['mib']} MiB: {said.strip()}"
            )
    finally:
        if args.folder is None:
            shutil.rmtree(made, ignore_errors=True)
    print(json.dumps({"videos": args.videos, "questions": args.questions} | figures))


if __name__ == "__main__":
    main()
