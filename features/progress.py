"""How far a job is, shown by the client: a bar on a terminal, otherwise a line now and then.

Workers on this machine leave counts in small files of a folder, since a worker may be a thread of
this process, a child of it, or several of each. Of workers elsewhere the client counts the shards
that they have committed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from features import json_text, layout, terminal
from features.errors import FramebankError
from features.sidecar import count_kept

_WRITE_EVERY_S = 0.5
_BAR_EVERY_S = 0.5
_LISTING_SHARE = 20


@dataclasses.dataclass
class Counts:
    """What one worker has done so far, or the sum over workers."""

    done: int = 0  # and safe: in a committed shard
    quarantined: int = 0  # the same
    frames: int = 0
    unsafe: int = 0  # videos that are through, in a shard that is not committed yet

    @property
    def videos(self) -> int:
        return self.done + self.quarantined


class CountsWriter:
    """A worker's counts, written to `folder` at most twice a second. A folder of None: nowhere."""

    def __init__(self, folder: str | None) -> None:
        self.counts = Counts()
        self._path = Path(folder, f"{os.getpid()}-{uuid.uuid4().hex}.json") if folder else None
        self._written = 0.0

    def write(self, *, now: bool = False) -> None:
        """Leave the counts for the client; the folder may be gone by then, and that is fine."""
        if self._path is None or (not now and time.monotonic() - self._written < _WRITE_EVERY_S):
            return
        self._written = time.monotonic()
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(dataclasses.asdict(self.counts)))
            temporary.replace(self._path)


def read_counts(folder: str) -> Counts:
    """Return the sum of all workers' counts in `folder`."""
    total = Counts()
    for path in Path(folder).glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            for name, count in json_text.parse(path.read_text()).items():
                setattr(total, name, getattr(total, name) + count)
    return total


class WorkerCounts:
    """How far the workers are that write to `folder`; `total` is the number of videos."""

    line_every_s = 5.0

    def __init__(self, folder: str, *, total: int) -> None:
        self._folder, self.total = folder, total

    def look(self, elapsed_s: float) -> tuple[int, str]:
        """Return how many videos are done and safe, and a line about it."""
        counts = read_counts(self._folder)
        return counts.videos, describe(counts, videos=self.total, elapsed_s=elapsed_s)


class CommittedShards:
    """How far a job is by its committed shards in the cache; `videos` are counts by shard name.

    Listing a large cache is neither quick nor free: it is done every 10 s at most, and takes at
    most a twentieth of the time.
    """

    line_every_s = 10.0

    def __init__(self, cache: str, *, videos: Mapping[str, int]) -> None:
        self._cache, self._videos, self.total = cache, videos, sum(videos.values())
        self._next_s = 0.0
        self._seen = (0, f"0/{len(videos)} shards committed")

    def look(self, elapsed_s: float) -> tuple[int, str]:
        """Return how many videos are in committed shards, and a line about it."""
        if time.monotonic() >= self._next_s:
            start = time.monotonic()
            with contextlib.suppress(FramebankError):  # the workers' own trouble is told by them
                self._seen = self._list(elapsed_s)
            took_s = time.monotonic() - start
            self._next_s = time.monotonic() + max(self.line_every_s, _LISTING_SHARE * took_s)
        return self._seen

    def _list(self, elapsed_s: float) -> tuple[int, str]:
        committed = set(layout.committed_shards(self._cache))
        there = committed & self._videos.keys()
        videos = count_kept(self._cache, committed, self._videos)
        parts = [
            f"{len(there)}/{len(self._videos)} shards committed",
            f"{videos}/{self.total} videos",
            *_left(videos, self.total, elapsed_s),
        ]
        return videos, ", ".join(parts)


@contextlib.contextmanager
def show_progress(source: WorkerCounts | CommittedShards) -> Iterator[None]:
    """Show on stderr how far a job is, until the end of the block."""
    stop = threading.Event()
    show = _draw_bar if sys.stderr.isatty() else _print_lines
    thread = threading.Thread(target=show, args=(source, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=2)


def _draw_bar(source: WorkerCounts | CommittedShards, stop: threading.Event) -> None:
    columns = (
        TextColumn("extracting"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(file=terminal.bare(sys.stderr)), transient=True) as bar:
        task = bar.add_task("extract", total=source.total, said="")
        while not stop.wait(_BAR_EVERY_S):
            videos, said = source.look(time.monotonic() - start)
            bar.update(task, completed=videos, said=said)


def _print_lines(source: WorkerCounts | CommittedShards, stop: threading.Event) -> None:
    start = time.monotonic()
    while not stop.wait(source.line_every_s):
        _, said = source.look(time.monotonic() - start)
        print(f"extract: {said}", file=sys.stderr, flush=True)


def describe(counts: Counts, *, videos: int, elapsed_s: float) -> str:
    """Return one line: videos, frames, frames a second, quarantined, time left."""
    rate = counts.frames / elapsed_s if elapsed_s > 0 else 0.0
    unsafe = [f"{counts.unsafe} more not safe yet"] if counts.unsafe > 0 else []
    parts = [
        f"{counts.videos}/{videos} videos",
        *unsafe,
        f"{counts.frames} frames",
        f"{rate:.1f} frames/s",
        f"{counts.quarantined} quarantined",
        *_left(counts.videos, videos, elapsed_s),
    ]
    return ", ".join(parts)


def _left(done: int, total: int, elapsed_s: float) -> list[str]:
    return [f"about {_duration(elapsed_s / done * (total - done))} left"] if done else []


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
