"""Decoder processes: clips go in, frames come out of a queue bounded in bytes.

Each slot is one thread that owns one child process (`slot.py`, `child.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from framebank.features.cache.record import most_rows
from framebank.features.decoders.clip_staging import ClipSource
from framebank.features.decoders.events import (
    ClipAgain,
    ClipDone,
    ClipProbed,
    ClipRejected,
    Event,
    Frame,
    Lull,
)
from framebank.features.decoders.policy import DecoderPolicy
from framebank.features.decoders.slot import Run, Slot
from framebank.features.decoders.spent import Spent
from framebank.features.machine import Shares, share_memory
from framebank.features.spec import FeatureSpec
from framebank.features.video import VideoRef

__all__ = [
    "ClipAgain",
    "ClipDone",
    "ClipProbed",
    "ClipRejected",
    "DecoderPolicy",
    "DecoderPool",
    "Event",
    "Frame",
    "Lull",
]

_ROW_BYTES = 256  # what a row takes in hand beside its features
_log = logging.getLogger(__name__)


class DecoderPool:
    """Runs decoder processes; use `decode` for one set of clips after the other."""

    def __init__(
        self,
        spec: FeatureSpec,
        policy: DecoderPolicy,
        *,
        feature_dim: int | None = None,
        batch_size: int = 1,
        also: Sequence[tuple[FeatureSpec, int]] = (),
    ) -> None:
        """With `feature_dim` the rows of one clip are limited by what their features take.

        Both are of the network that stands in memory beside the decoders. `also` are the spec and
        `feature_dim` of further ones, which see the same frames of each clip.
        """
        specs = [spec, *(further for further, _ in also)]
        self.pictures = tuple(dict.fromkeys((each.input_size, each.resize) for each in specs))
        shares = share_memory(policy.decoders, batch_size=batch_size, networks=len(specs))
        if policy.decoders and shares.total_bytes > shares.memory_bytes > 0:
            _log.warning(
                "%d decoders may take %.1f GiB with all beside them, and there are %.1f GiB",
                *(policy.decoders, shares.total_bytes / 2**30, shares.memory_bytes / 2**30),
            )
        widths = [] if feature_dim is None else [(spec.dtype, feature_dim)]
        widths += [(further.dtype, width) for further, width in also]
        policy = _within_memory(policy, shares, widths)
        self._policy = policy
        self._frames_ahead = max(1, policy.queue_bytes // _frame_bytes(self.pictures))
        self._closed = threading.Event()
        self._source: ClipSource | None = None
        self.spent = Spent()  # of the run that was begun last
        slot = functools.partial(Slot, spec, policy, self.pictures, self._closed)
        self._slots = [slot() for _ in range(shares.decoders)]

    def decode(self, refs: Iterable[VideoRef]) -> Iterator[Event]:
        """Begin; yield frames and last words as they come. Each clip gets exactly one last word."""
        return self._events(self._begin(refs))

    def decode_hurried(self, refs: Iterable[VideoRef]) -> Iterator[Event | Lull]:
        """Yield what `decode` does, and a Lull before each wait for more."""
        return self._events(self._begin(refs), lulls=True)

    def probe(
        self, refs: Iterable[VideoRef], *, decode_s: Callable[[int], float], until_s: float
    ) -> Iterator[ClipProbed | ClipRejected]:
        """Yield what is found in clips as it comes, and stop at `until_s` (of time.monotonic).

        `decode_s` says for the n-th clip how many seconds of decoding it may have. Nothing but
        `close` is to follow.
        """
        with contextlib.suppress(queue.Empty):
            yield from self._events(self._begin(refs, probe_s=decode_s), until_s=until_s)

    def _begin(
        self, refs: Iterable[VideoRef], *, probe_s: Callable[[int], float] | None = None
    ) -> Run:
        """Have all slots work."""
        if self._source is not None:  # of a run before, which has ended
            self._source.close()
        self._source = ClipSource(
            refs,
            self._closed,
            downloads=len(self._slots),
            max_size_bytes=self._policy.limits.max_size_bytes,
            cuts=self._policy.cuts_films and probe_s is None,
        )
        self.spent = Spent(len(self._slots))
        room = threading.Semaphore(self._frames_ahead)
        run = Run(self._source, probe_s, room, self.spent)
        for slot in self._slots:
            slot.work(run)
        return run

    def _events(
        self, run: Run, *, until_s: float | None = None, lulls: bool = False
    ) -> Iterator[Any]:
        """Yield what comes; raises queue.Empty after `until_s`."""
        working = len(self._slots)
        while working:
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            if lulls and run.events.empty():
                yield Lull()
            event = run.events.get(timeout=left_s)
            if isinstance(event, Frame):
                run.room.release()
            if event is None:
                working -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event

    def close(self) -> None:
        """End every decoder process now and remove what they staged."""
        self._closed.set()
        for slot in self._slots:
            slot.close()
        if self._source is not None:
            self._source.close()


def _frame_bytes(pictures: Sequence[tuple[int, str]]) -> int:
    return sum(3 * size * size for size, _ in pictures)


def _within_memory(
    policy: DecoderPolicy, shares: Shares, widths: Sequence[tuple[str, int]]
) -> DecoderPolicy:
    """Return the policy with what there is room for; `widths`: dtype and width of each feature."""
    rows = policy.limits.max_rows
    if widths:
        in_hand = shares.clip_bytes // sum(4 * width + _ROW_BYTES for _, width in widths)
        rows = max(1, min(rows, in_hand, *(most_rows(dtype, width) for dtype, width in widths)))
    return dataclasses.replace(
        policy,
        memory_bytes=shares.decoder_bytes if policy.memory_bytes is None else policy.memory_bytes,
        limits=dataclasses.replace(policy.limits, max_rows=rows),
    )
