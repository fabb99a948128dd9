"""How far a job is: sources that the client shows (`features/progress.py`).

Workers on this machine leave counts in small files of a folder, since a worker may be a thread of
this process, a child of it, or several of each. Of workers elsewhere the client counts the shards
that they have committed, or the files of answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from framebank.features import terminal
from framebank.features.cache import layout
from framebank.features.cache.sidecar import count_kept
from framebank.features.errors import FramebankError
from framebank.features.progress import Pace, Seen
from framebank.features.stores import json_text, storage

_WRITE_EVERY_S = 0.5
_LISTING_SHARE = 20
_SUMMED = ("done", "quarantined", "frames", "unsafe")
_LONG_S = 30.0  # in hand, after which that is said
_MOST_NAME = 48  # characters of a clip's name


@dataclasses.dataclass
class Counts:
    """What one worker has done so far, or the sum over workers."""

    done: int = 0  # and safe: in a committed shard
    quarantined: int = 0  # the same
    frames: int = 0
    unsafe: int = 0  # videos that are through, in a shard that is not committed yet
    clip: str = ""  # that was begun first of those in hand, and when (of time.time())
    since_s: float = 0.0

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
    """Return the sum over workers, with the clip that has been in hand for longest."""
    found = []
    for path in Path(folder).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Counts(**json_text.parse(path.read_text())))
    sums = {name: sum(getattr(one, name) for one in found) for name in _SUMMED}
    held = [(one.since_s, one.clip) for one in found if one.clip]
    since_s, clip = min(held, default=(0.0, ""))
    return Counts(**sums, clip=clip, since_s=since_s)


class WorkerCounts:
    """How far the workers are that write to `folder`; `total` is the number of videos."""

    line_every_s = 5.0
    hint = "one long clip may take that; else see whether this machine is out of memory or disk"

    def __init__(self, folder: str, *, total: int) -> None:
        self._folder, self.total = folder, total
        self._rate = Pace()

    def look(self) -> Seen:
        counts = read_counts(self._folder)
        rate = self._rate.rate(counts.frames, time.monotonic())
        parts = [f"{counts.videos}/{self.total} videos"]
        if counts.unsafe > 0:
            parts.append(f"{counts.unsafe} more not saved yet")
        parts.append(f"{counts.frames} frames")
        if rate is not None:
            parts.append(f"{rate:.1f} frames/s")
        parts.append(f"{counts.quarantined} quarantined")
        if counts.clip:
            parts.append(_in_hand(counts))
        through = counts.videos + counts.unsafe
        return Seen(counts.videos, ", ".join(parts), through + counts.frames, through)


def _in_hand(counts: Counts) -> str:
    name = terminal.printable(counts.clip)
    if len(name) > _MOST_NAME:
        name = "…" + name[1 - _MOST_NAME :]
    held_s = time.time() - counts.since_s
    return f"at {name}" + f" for {terminal.time_text(held_s)}" * (held_s > _LONG_S)


class AnsweredCounts(WorkerCounts):
    """The same where `total` is the number of questions."""

    hint = "see whether this machine is out of memory or disk"

    def look(self) -> Seen:
        done = read_counts(self._folder).done
        return Seen(done, f"{done}/{self.total} questions", done)


class _Listing:
    """How far a job is by files, which stand for `total`.

    Listing a large one is neither quick nor free: it is done every 10 s at most, and takes at most
    a twentieth of the time.
    """

    line_every_s = 10.0

    def __init__(self, total: int, *, hint: str = "") -> None:
        self.total, self.hint = total, hint
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
    """How far a job is by its committed shards: `counts` are videos by shard name, by cache."""

    def __init__(self, counts: Mapping[str, Mapping[str, int]], *, hint: str = "") -> None:
        super().__init__(sum(sum(own.values()) for own in counts.values()), hint=hint)
        self._counts = counts

    def _list(self) -> Seen:
        shards = videos = files = 0
        for cache, own in self._counts.items():
            committed = set(layout.committed_shards(cache))
            shards += len(committed & own.keys())
            videos += count_kept(cache, committed, own)
            files += len(committed)
        of = sum(map(len, self._counts.values()))
        said = f"{shards}/{of} shards committed, {videos}/{self.total} videos"
        return Seen(videos, said, files)


class AnswerFiles(_Listing):
    """How far a scoring is by the files in its folder; `counts` are questions by file name."""

    def __init__(self, place: str, counts: Mapping[str, int], *, hint: str = "") -> None:
        super().__init__(sum(counts.values()), hint=hint)
        self._place, self._counts = place, counts

    def _list(self) -> Seen:
        names = {file.path.rsplit("/", 1)[-1] for file in storage.iter_files(self._place)}
        there = names & self._counts.keys()
        done = sum(self._counts[name] for name in there)
        said = f"{len(there)}/{len(self._counts)} files, {done}/{self.total} questions answered"
        return Seen(done, said, len(there))
