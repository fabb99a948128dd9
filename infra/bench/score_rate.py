"""How long does `framebank score` take for many questions, and how much memory?

    python infra/bench/score_rate.py [--questions 100000] [--videos 10000] [--folder DIR]

Makes a cache of random features (8 frames of 2048 a video, 500 videos a shard), a model of the
default kind and size that learnt nothing, and a question file. Then measures three processes, each
from its start:

    plan    the question file is read, joined with the cache and dealt into files of answers
    score   the whole command, on Beam's local runner
    rest    the same command with one file of answers and the summary gone

Takes two minutes on two cores, most of them for making the cache and for `score`. The last line is
JSON: seconds, seconds of a core and MiB (the kernel's ru_maxrss) of each, and the questions a
second of `score`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from common import made_spec, make_apart, measure

FRAMES, WIDTH, PER_SHARD = 8, 2048, 500
ANSWERS = tuple(f"answer {number}" for number in range(1000))
_WORDS = ("man", "woman", "dog", "guitar", "onion", "car", "ball", "road", "cat", "horse")
_PLAN = """
import sys
from framebank.features.cache.reader import open_cache
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.reading import read_questions
from framebank.pipelines.score.plan import plan_scoring
questions = read_questions(QuestionFiles([sys.argv[1]]))
plan = plan_scoring(questions, open_cache(sys.argv[2]), per_file=10_000)
plan.digest()
print(plan.answerable, "questions in", len(plan.files), "files")
"""


def make_cache(cache: str, *, videos: int) -> None:
    """Write shards and their catalog; all videos have one of a few contents."""
    from framebank.features.cache import catalog, layout
    from framebank.features.cache.record import encode_record
    from framebank.features.cache.sidecar import done_row
    from framebank.features.cache.tfrecord import frame_record
    from framebank.features.stores import storage
    from framebank.features.video import Extracted, SourceInfo, VideoRef

    spec, dice = made_spec(frames=FRAMES), np.random.default_rng(0)
    layout.write_spec(cache, spec)
    about = {"fingerprint": spec.fingerprint, "run_id": "bench", "time": "2026-01-01T00:00:00Z"}
    times, rows = np.arange(FRAMES, dtype=np.int64), []
    info = SourceInfo("mov,mp4", "h264", 64, 64, 1.0, float(FRAMES), FRAMES)
    contents = [dice.random((FRAMES, WIDTH), np.float32) for _ in range(100)]
    for first in range(0, videos, PER_SHARD):
        frames: list[bytes] = []
        offset, shard = 0, f"bench-{first // PER_SHARD:05d}"
        for clip in range(first, min(first + PER_SHARD, videos)):
            ref = VideoRef(f"{clip:07d}.mp4", f"/{clip}", 1, "1")
            video = Extracted(
                ref, contents[clip % 100], times * 1000, times, info, "0" * 64, False, 0, False
            )
            frame = frame_record(encode_record(video, spec=spec)[0])
            place = {"record": len(frames), "offset": offset, "length": len(frame)}
            rows.append(done_row(video, shard=shard, **place, **about))
            frames.append(frame)
            offset += len(frame)
        storage.write_atomic(layout.tfrecord_path(cache, shard), frames)
    catalog.write_catalog(cache, "bench", rows)


def make_model(folder: Path) -> None:
    """Write the folder of a model of the default kind and size that was never trained."""
    from framebank.train.model.config import ModelConfig
    from framebank.train.model.frames import FrameStatistics
    from framebank.train.model.heads import Head
    from framebank.train.model.network import build_network, export
    from framebank.train.model.text import text_layer

    text = text_layer([f"what does the {word} do with it?" for word in _WORDS], max_words=5000)
    head = Head(answers=ANSWERS)
    statistics = FrameStatistics(2, np.full(WIDTH, 0.5), np.full(WIDTH, 0.3))
    network = build_network(ModelConfig(), statistics, words=text.vocabulary_size(), head=head)
    folder.mkdir(parents=True)
    export(network, text).save(folder / "model.keras")
    words = [str(word) for word in text.get_vocabulary()]
    (folder / "vocabulary.json").write_text(json.dumps({**head.to_json(), "words": words}))
    spec = made_spec(frames=FRAMES)
    lineage = {"fingerprint": spec.fingerprint, "spec": spec.to_json(), "random_weights": True}
    (folder / "lineage.json").write_text(json.dumps(lineage))


def make_questions(path: Path, *, count: int, videos: int) -> None:
    dice = np.random.default_rng(1)
    asked, words = dice.integers(0, videos, count), dice.integers(0, len(_WORDS), (count, 2))
    with path.open("w") as file:
        for number, (video, (one, other)) in enumerate(zip(asked, words, strict=True)):
            question = f"what does the {_WORDS[one]} do with the {_WORDS[other]}?"
            answer = ANSWERS[number % len(ANSWERS)]
            row = {"video_id": f"{video:07d}", "question": question, "answer": answer}
            file.write(json.dumps({"question_id": f"q{number}"} | row) + "\n")


def make_all(made: Path, videos: int) -> None:
    make_model(made / "model")
    make_cache(str(made / "cache"), videos=videos)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--questions", type=int, default=100_000, metavar="N")
    parser.add_argument("--videos", type=int, default=10_000, metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="keep what is made here, and use it again")
    args = parser.parse_args()
    made = Path(args.folder or tempfile.mkdtemp(prefix="framebank-bench-")).resolve()
    questions, cache, out = made / "q.jsonl", made / "cache", made / "answers"
    try:
        if not (cache / "catalog").exists():
            make_apart(make_all, made, args.videos)
        make_questions(questions, count=args.questions, videos=args.videos)
        shutil.rmtree(out, ignore_errors=True)
        command = ["-m", "framebank", "score", "--json", "--out", str(out)]
        command += ["--model", str(made / "model"), "--cache", str(cache)]
        command += ["--questions", str(questions)]
        figures = {}
        for name, words in (
            ("plan", ["-c", _PLAN, str(questions), str(cache)]),
            ("score", command),
            ("rest", command),
        ):
            if name == "rest":
                min(out.glob("answers-*")).unlink()
                (out / "_summary.json").unlink()
            said, figures[name] = measure(words)
            print(f"{name}: {figures[name]['seconds']} s, {figures[name]['mib']} MiB")
            if name != "plan" and json.loads(said)["answered"] != args.questions:
                raise SystemExit(f"not every question was answered: {said}")
    finally:
        if args.folder is None:
            shutil.rmtree(made, ignore_errors=True)
    rate = round(args.questions / figures["score"]["seconds"])
    print(json.dumps({"questions": args.questions, "questions_per_s": rate} | figures))


if __name__ == "__main__":
    main()
