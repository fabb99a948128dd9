"""What grows with what: the rate with the number of clips, and memory with their length.

    python infra/bench/growth.py [--clips 8] [--minutes 1 10 60] [--options whole …]
                                  [--folder DIR]

`videos`: 1, 4 and 16 times as many clips of ten seconds, each another film: frames a second of the
whole program. `length`: one 720p film of each length, checked whole and sampled: the peak of memory
of the program with all its processes, shared pages counted once (Pss), looked at four times a
second; with further `OPTIONS` the shortest and the longest film. How long it takes to list and
match many names is in `start.py`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import common

TIMES = (1, 4, 16)
LOOK_EVERY_S = 0.25
WAY = ["--backbone", "mobilenet_v2", "--weights", "random:0", "--sample", "fps=1", "--json"]
OPTIONS = {
    "whole": ["--check", "whole"],
    "sampled": ["--check", "sampled"],
    "int8": ["--check", "sampled", "--precision", "int8"],
    "bfloat16": ["--check", "sampled", "--precision", "bfloat16"],
    "two backbones": ["--check", "sampled", "--backbone", "inception_v3"],
}


class TreeMemory:
    """Looks, in a thread of its own, at what this process's children and theirs have in memory."""

    def __init__(self) -> None:
        self.peak_bytes, self._ended = 0, threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[TreeMemory]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, sum(map(pss_bytes, descendants(os.getpid()))))


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = Path(f"/proc/{name}/stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                below.setdefault(parent, []).append(int(name))
    found = list(below.get(pid, []))
    for one in found:  # which grows on the way
        found += below.get(one, [])
    return found


def pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def extract(inputs: Path, folder: Path, *words: str) -> dict[str, Any]:
    """Run `framebank extract` on `inputs`; return frames, seconds, and the peak of all memory."""
    with tempfile.TemporaryDirectory(dir=folder) as out, TreeMemory().watching() as memory:
        command = ["-m", "framebank", "extract", str(inputs), "--cache", f"{out}/cache", *WAY]
        start = time.monotonic()
        said, _ = common.measure([*command, *words])
        seconds = time.monotonic() - start
    told = json.loads(said.splitlines()[-1])
    summaries = [told] if "frames" in told else list(told.values())  # of several backbones by name
    frames = summaries[0]["frames"]
    return {
        "frames": frames,
        "seconds": round(seconds, 1),
        "frames_per_s": round(frames / seconds, 2),
        "mib": memory.peak_bytes >> 20,
    }


def videos(folder: Path, *, count: int) -> dict[str, Any]:
    """Return the figures of 1, 4 and 16 times `count` clips, each time into an empty cache."""
    figures = {}
    for times in TIMES:
        clips_folder = folder / f"clips-{times * count}"
        clips_folder.mkdir(exist_ok=True)
        for number in range(times * count):
            path = clips_folder / f"{number:04d}.mp4"
            if not path.exists():
                shown = clips.scene(300, (640, 360), seed=number)
                clips.encode(path, shown, options=clips.NATURAL)
        figures[f"{times}x"] = extract(clips_folder, folder)
    return figures


def length(folder: Path, *, minutes: list[float], options: list[str]) -> dict[str, Any]:
    """Return the figures of a film of each length, and the longest's memory over the shortest's."""
    stretch = folder / "stretch.mp4"
    if not stretch.exists():
        clips.encode(stretch, clips.scene(1801, (1280, 720), seed=0), options=clips.gop(60))
    figures: dict[str, Any] = {}
    for option in options:
        words, peaks = OPTIONS[option], []
        for long in minutes if option in ("whole", "sampled") else (minutes[0], minutes[-1]):
            path = folder / f"film-{long:g}.mp4"
            if not path.exists():
                clips.repeat(stretch, path, seconds=60 * long)
            try:
                found = extract(path, folder, *words)
            except SystemExit as error:  # of a precision that this processor does not have
                figures[f"{option}, {long:g} minutes"] = {"failed": common.reason(error)}
                continue
            figures[f"{option}, {long:g} minutes"] = found
            peaks.append(found["mib"])
        if len(peaks) > 1:
            ratio = round(peaks[-1] / peaks[0], 2)
            figures[f"{option}, memory of the longest to the shortest"] = ratio
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=8, metavar="N", help="how many 1x is")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60])
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--folder", metavar="DIR", help="keep what is made here, and use it again")
    args = parser.parse_args()
    made = Path(args.folder or tempfile.mkdtemp(prefix="framebank-bench-")).resolve()
    made.mkdir(parents=True, exist_ok=True)
    try:
        figures = {
            "bench": "growth",
            "videos": videos(made, count=args.clips),
            "length": length(made, minutes=args.minutes, options=args.options),
        }
    finally:
        if args.folder is None:
            shutil.rmtree(made, ignore_errors=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
