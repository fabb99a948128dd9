"""How far a job is, shown by the client: a bar on a terminal, otherwise a line now and then.

Workers on this machine leave counts in small files of a folder, since a worker may be a thread of
this process, a child of it, or several of each. Of workers elsewhere the client counts the shards
that they have committed, or the files of answers.
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
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from framebank.features import terminal
from framebank.features.cache import layout
from framebank.features.cache.sidecar import count_kept
from framebank.features.errors import FramebankError
from framebank.features.stores import json_text, storage

_WRITE_EVERY_S = 0.5
_BAR_EVERY_S = 0.5
_LISTING_SHARE = 20
_STALL_S = 300.0  # without any progress, after which that is said, and again after as long
# Before there is as much of either, how long the rest takes is a guess.
_LEAST_WORK_S = 10.0
_LEAST_SHARE = 0.05


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


@dataclasses.dataclass(frozen=True)
class Seen:
    """One look at a job: `done` of its units are safe, `said` tells how far it is.

    `work` grows whenever anything moves: what stands still for long has stopped.
    """

    done: int
    said: str
    work: float


class Source(Protocol):
    """What can be looked at; `hint` says what to look at where it stands still."""

    line_every_s: float
    total: int
    hint: str

    def look(self) -> Seen:
        """Return how far the job is."""


class WorkerCounts:
    """How far the workers are that write to `folder`; `total` is the number of videos."""

    line_every_s = 5.0
    hint = "one long clip may take that; else see whether this machine is out of memory or disk"

    def __init__(self, folder: str, *, total: int) -> None:
        self._folder, self.total = folder, total
        self._rate = Pace()

    def look(self) -> Seen:
        """Return how many videos are done and safe, and a line about it."""
        counts = read_counts(self._folder)
        rate = self._rate.rate(counts.frames, time.monotonic())
        parts = [f"{counts.videos}/{self.total} videos"]
        if counts.unsafe > 0:
            parts.append(f"{counts.unsafe} more not safe yet")
        parts.append(f"{counts.frames} frames")
        if rate is not None:
            parts.append(f"{rate:.1f} frames/s")
        parts.append(f"{counts.quarantined} quarantined")
        work = counts.videos + counts.unsafe + counts.frames
        return Seen(counts.videos, ", ".join(parts), work)


class AnsweredCounts:
    """How far the workers are that write to `folder`; `total` is the number of questions."""

    line_every_s = 5.0
    hint = "see whether this machine is out of memory or disk"

    def __init__(self, folder: str, *, total: int) -> None:
        self._folder, self.total = folder, total

    def look(self) -> Seen:
        """Return how many questions are answered, and a line about it."""
        done = read_counts(self._folder).done
        return Seen(done, f"{done}/{self.total} questions", done)


class _Listing:
    """How far a job is by files that appear in a folder.

    Listing a large one is neither quick nor free: it is done every 10 s at most, and takes at most
    a twentieth of the time.
    """

    line_every_s = 10.0

    def __init__(self, *, total: int) -> None:
        self.total = total
        self._next_s = 0.0
        self._seen = Seen(0, "nothing yet", 0)

    def look(self) -> Seen:
        """Return what the last listing showed, after a new one where that is due."""
        if time.monotonic() >= self._next_s:
            start = time.monotonic()
            with contextlib.suppress(FramebankError):  # the workers' own trouble is told by them
                self._seen = self._list()
            took_s = time.monotonic() - start
            self._next_s = time.monotonic() + max(self.line_every_s, _LISTING_SHARE * took_s)
        return self._seen

    def _list(self) -> Seen:
        raise NotImplementedError


class CommittedShards(_Listing):
    """How far a job is by its committed shards in the cache; `videos` are counts by shard name."""

    def __init__(self, cache: str, *, videos: Mapping[str, int], hint: str = "") -> None:
        super().__init__(total=sum(videos.values()))
        self._cache, self._videos, self.hint = cache, videos, hint

    def _list(self) -> Seen:
        committed = set(layout.committed_shards(self._cache))
        there = committed & self._videos.keys()
        videos = count_kept(self._cache, committed, self._videos)
        said = f"{len(there)}/{len(self._videos)} shards committed, {videos}/{self.total} videos"
        return Seen(videos, said, len(committed))


class AnswerFiles(_Listing):
    """How far a scoring is by the files in its folder; `questions` are counts by file name."""

    def __init__(self, folder: str, *, questions: Mapping[str, int], hint: str = "") -> None:
        super().__init__(total=sum(questions.values()))
        self._folder, self._questions, self.hint = folder, questions, hint

    def _list(self) -> Seen:
        names = {file.path.rsplit("/", 1)[-1] for file in storage.iter_files(self._folder)}
        there = names & self._questions.keys()
        done = sum(self._questions[name] for name in there)
        said = f"{len(there)}/{len(self._questions)} files, {done}/{self.total} questions answered"
        return Seen(done, said, len(there))


class Pace:
    """How quickly something grows since it first did: the time before was the start-up's."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None

    def rate(self, count: float, now_s: float) -> float | None:
        """Return what is added a second, None as long as that is a guess."""
        if count <= 0:
            return None
        if self._start is None:
            self._start = (count, now_s)
        first, since_s = self._start
        spent_s = now_s - since_s
        return (count - first) / spent_s if spent_s >= _LEAST_WORK_S and count > first else None

    def left_s(self, done: int, total: int, now_s: float) -> float | None:
        """Return how long the rest takes at this pace, None as long as that is a guess."""
        rate = self.rate(done, now_s)
        assert rate is None or self._start is not None
        if rate is None or self._start is None or done - self._start[0] < _LEAST_SHARE * total:
            return None
        return (total - done) / rate


class Stall:
    """Notices that nothing moves, and says so every `_STALL_S`."""

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._work, self._since_s, self._said_s = -1.0, 0.0, 0.0

    def note(self, work: float, now_s: float) -> str | None:
        """Return what to say after this look, None where something moved or it was said."""
        if work != self._work:
            self._work, self._since_s, self._said_s = work, now_s, now_s
        if now_s - self._said_s < _STALL_S:
            return None
        self._said_s = now_s
        minutes = round((now_s - self._since_s) / 60)
        return f"nothing has moved for {minutes} minutes{': ' * bool(self._hint)}{self._hint}"


class _Watch:
    """One job's source with its pace and its stalls."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pace, self._stall = Pace(), Stall(source.hint)

    def look(self) -> tuple[int, str, str | None]:
        """Return (units done, a line about the job, what to say of a stall)."""
        seen, now_s = self._source.look(), time.monotonic()
        left_s = self._pace.left_s(seen.done, self._source.total, now_s)
        left = "" if left_s is None else f", about {_duration(left_s)} left"
        return seen.done, seen.said + left, self._stall.note(seen.work, now_s)


@contextlib.contextmanager
def show_progress(source: Source, *, what: str = "extract") -> Iterator[None]:
    """Show on stderr how far a job is, until the end of the block; `what` names the command."""
    stop = threading.Event()
    show = _draw_bar if sys.stderr.isatty() else _print_lines
    thread = threading.Thread(target=show, args=(source, what, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=2)


def _draw_bar(source: Source, what: str, stop: threading.Event) -> None:
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    watch = _Watch(source)
    with Progress(*columns, console=Console(file=terminal.bare(sys.stderr)), transient=True) as bar:
        task = bar.add_task(what, total=source.total, said="starting")
        while not stop.wait(_BAR_EVERY_S):
            done, said, stalled = watch.look()
            bar.update(task, completed=done, said=said)
            if stalled:
                bar.console.print(f"{what}: {stalled}", markup=False)


def _print_lines(source: Source, what: str, stop: threading.Event) -> None:
    watch = _Watch(source)
    while not stop.wait(source.line_every_s):
        _, said, stalled = watch.look()
        for text in filter(None, (said, stalled)):
            print(f"{what}: {text}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
