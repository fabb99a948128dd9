"""How soon is `framebank browse` there, and how fast does it filter and compare, of many clips?

    python infra/bench/browse.py [--videos 100000] [--folder DIR]

Makes a cache of N videos with real records (2 frames of 2048 features each, one in a thousand
nearly the same as another), labels and splits. Then, with a real client:

    open        from the start of the command until page, first rows and counts are there
    filter      the slowest of some conditions, each with its rows
    vectors     until what clips are compared by is made, the first time; `kept`: at the next start
    neighbours  of one clip among all, median and slowest of 20
    duplicates  until all pairs with a cosine of .999 are found
    map         20,000 points
    ls          `framebank ls` with a condition, as a command

Takes some ten minutes and 1.3 GB of disk. The last line is JSON: seconds, and MiB of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, made_spec, make_apart, measure, say

FRAMES, WIDTH, PER_SHARD = 2, 2048, 64
RUN = "20260101T000000000000-0000"
LABELS = ("opening", "closing", "loading", "unloading", "left", "right")
FILTERS = (
    ["duration_s>30"],
    ["video_id~77"],
    ["label=loading", "split=test"],
    ["message~gone", "status=quarantined"],
    ["time>2026-01-01", "frames>=2", "duration_s<=59.5"],
)


def make_cache(cache: str, videos: int) -> None:
    from framebank.features.cache import catalog, layout
    from framebank.features.cache.record import encode_record
    from framebank.features.cache.sidecar import CatalogRow, done_row, quarantined_row
    from framebank.features.cache.tfrecord import frame_record
    from framebank.features.stores import storage
    from framebank.features.video import Extracted, Rejected, SourceInfo, VideoRef

    spec, dice = made_spec(frames=FRAMES), np.random.default_rng(0)
    layout.write_spec(cache, spec)
    about = {"fingerprint": spec.fingerprint, "run_id": RUN, "time": "2026-01-01T00:00:00Z"}
    times = np.arange(FRAMES, dtype=np.int64)
    middles = dice.random((len(LABELS) * 10, WIDTH), np.float32)
    rows: list[CatalogRow] = []
    last = middles[:FRAMES]
    for first in range(0, videos, PER_SHARD):
        frames: list[bytes] = []
        offset, shard = 0, f"bench-{first // PER_SHARD:06d}"
        for clip in range(first, min(first + PER_SHARD, videos)):
            kind = clip % len(middles)
            columns = {
                "label": LABELS[kind % len(LABELS)],
                "split": ("train", "test")[clip % 7 == 0],
            }
            ref = VideoRef(
                f"{clip // 1000:04d}/{clip:07d}.mp4", f"/gone/{clip}", 1, "1", 1, columns
            )
            if clip % 500 == 499:
                bad = Rejected(ref, "open", "missing", "it is gone")
                rows.append(quarantined_row(bad, shard=shard, **about))
                continue
            if clip % 1000 == 1:
                features = last + dice.random((FRAMES, WIDTH), np.float32) * 0.01
            else:
                features = middles[kind] + dice.random((FRAMES, WIDTH), np.float32)
            last = features
            info = SourceInfo("mov,mp4", "h264", 320, 240, 25.0, 1 + clip % 60, 25)
            video = Extracted(ref, features, times * 1000, times, info, "0" * 64, False, 0, False)
            frame = frame_record(encode_record(video, spec=spec)[0])
            place: dict[str, Any] = {"record": len(frames), "offset": offset, "length": len(frame)}
            rows.append(done_row(video, shard=shard, **place, **about))
            frames.append(frame)
            offset += len(frame)
        storage.write_atomic(layout.tfrecord_path(cache, shard), frames)
    catalog.write_catalog(cache, RUN, rows)


class Browse:
    """`framebank browse` in a process of its own, and a client of it."""

    def __init__(self, cache: str) -> None:
        self.started = time.monotonic()
        words = ["-m", "framebank", "browse", cache, "--port", "0", "--no-open"]
        self._process = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self._process.stdout is not None
        self._address = self._process.stdout.readline().strip()

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(self._address + path, timeout=600) as answer:
            data: bytes = answer.read()
            return data

    def get(self, view: str, **words: Any) -> tuple[Any, float]:
        """Return what a view answers, and after how many seconds."""
        began = time.monotonic()
        found = json.loads(self.read(f"api/cache/{view}?{urllib.parse.urlencode(words, True)}"))
        return found, time.monotonic() - began

    def opened(self) -> float:
        """Return the seconds from the start until the page and its first rows are there."""
        self.read("")
        self.get("videos", limit=60)
        self.get("about")
        return time.monotonic() - self.started

    def complete(self) -> float:
        """Return the seconds from the start until all clips can be compared."""
        while not self.get("about")[0]["vectors"]["complete"]:
            time.sleep(0.2)
        return time.monotonic() - self.started

    def memory_mib(self) -> dict[str, float]:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return {name: round(int(lines[key].split()[0]) / 1024) for name, key in
                (("now", "VmRSS"), ("most", "VmHWM"))}  # fmt: skip

    def end(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


def figures_of(cache: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    browse = Browse(cache)
    try:
        found["open"] = browse.opened()
        while_making = [browse.get("videos", where=words)[1] for words in FILTERS]
        found["vectors"] = browse.complete()
        found["memory_mib_making"] = browse.memory_mib()
    finally:
        browse.end()
    browse = Browse(cache)
    try:
        found["open_again"] = browse.opened()
        found["vectors_kept"] = browse.complete()
        filters = [browse.get("videos", where=words, sort="video_id")[1] for words in FILTERS * 3]
        found["filter"], found["filter_while_making"] = max(filters), max(while_making)
        ids = [
            row["video_id"]
            for row in browse.get("videos", where="status=done", limit=1000)[0]["rows"]
        ]
        taken = []
        for video_id in ids[:: len(ids) // 20][:20]:
            answer, seconds = browse.get("neighbours", video_id=video_id, count=12)
            taken.append(seconds)
        found |= {"neighbours": statistics.median(taken), "neighbours_slowest": max(taken)}
        found |= {"method": answer["method"], "of": answer["of"]}
        began = time.monotonic()
        while (pairs := browse.get("duplicates", least=0.999)[0])["searching"]:
            time.sleep(0.1)
        found |= {"duplicates": time.monotonic() - began, "pairs": pairs["total"]}
        found["map"] = browse.get("map", colour="label")[1]
        found["memory_mib"] = browse.memory_mib()
    finally:
        browse.end()
    words = ["-m", "framebank", "ls", cache, "--where", "label=loading", "--where", "duration_s>30"]
    found["ls"] = measure([*words, "--limit", "20"])[1]
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--videos", type=int, default=100_000, metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="keep what is made here, and use it again")
    args = parser.parse_args()
    folder = Path(args.folder or tempfile.mkdtemp(prefix="framebank-bench-")).resolve()
    cache = folder / "cache"
    try:
        if not (cache / "catalog").exists():
            say(f"making a cache of {args.videos:,} videos")
            make_apart(make_cache, str(cache), args.videos)
        shutil.rmtree(cache / "moments", ignore_errors=True)
        found = figures_of(str(cache))
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"videos": args.videos, **found}))


if __name__ == "__main__":
    main()
