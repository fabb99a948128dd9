"""How far a job is: workers leave counts in a folder, the client adds them up and shows them.

Counts travel through small files because a worker may be a thread of this process, a child of it,
or several of each. On a terminal the client draws a bar, otherwise it prints a line now and then.
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
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_WRITE_EVERY_S = 0.5
_BAR_EVERY_S = 0.5
_LINE_EVERY_S = 5.0


@dataclasses.dataclass
class Counts:
    """What one worker has done so far, or the sum over workers."""

    done: int = 0
    quarantined: int = 0
    frames: int = 0

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
            for name, count in json.loads(path.read_text()).items():
                setattr(total, name, getattr(total, name) + count)
    return total


@contextlib.contextmanager
def show_progress(folder: str, *, videos: int) -> Iterator[None]:
    """Show on stderr how far the workers of `folder` are with `videos` videos."""
    stop = threading.Event()
    show = _draw_bar if sys.stderr.isatty() else _print_lines
    thread = threading.Thread(target=show, args=(folder, videos, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=2)


def _draw_bar(folder: str, videos: int, stop: threading.Event) -> None:
    columns = (
        TextColumn("extracting"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("extract", total=videos, said="")
        while not stop.wait(_BAR_EVERY_S):
            counts = read_counts(folder)
            said = describe(counts, videos=videos, elapsed_s=time.monotonic() - start)
            bar.update(task, completed=counts.videos, said=said)


def _print_lines(folder: str, videos: int, stop: threading.Event) -> None:
    start = time.monotonic()
    while not stop.wait(_LINE_EVERY_S):
        said = describe(read_counts(folder), videos=videos, elapsed_s=time.monotonic() - start)
        print(f"extract: {said}", file=sys.stderr, flush=True)


def describe(counts: Counts, *, videos: int, elapsed_s: float) -> str:
    """Return one line: videos, frames, frames a second, quarantined, time left."""
    rate = counts.frames / elapsed_s if elapsed_s > 0 else 0.0
    parts = [
        f"{counts.videos}/{videos} videos",
        f"{counts.frames} frames",
        f"{rate:.1f} frames/s",
        f"{counts.quarantined} quarantined",
    ]
    if counts.videos:
        left_s = elapsed_s / counts.videos * (videos - counts.videos)
        parts.append(f"about {_duration(left_s)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
