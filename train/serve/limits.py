"""What one request may ask for, how many may be under way, and how often one address may ask."""

from __future__ import annotations

import collections
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from framebank.features.bounds import MOST_INT, check_number
from framebank.features.machine import usable_memory_bytes

MIB = 2**20
BODY_BYTES = 4 * MIB  # of a request without a clip
FIELDS_BYTES = MIB  # beside the clip of one with one
LEAST_BYTES_PER_S = 1024  # of a body, on the whole; slower ones only hold a place
STALL_S = 10.0  # without a byte of a body, or of a request's head
GRACE_S = 5.0  # before a body's pace is judged
_MOST_ADDRESSES = 10_000  # whose rates are remembered


@dataclasses.dataclass(frozen=True)
class Limits:
    """`queue`: requests under way at a time, each with one clip at most; `rate`: requests a second
    of one address, of which as many again may come at once; `rows` of one `/v1/score`."""

    upload_mib: int = 256
    clip_s: float = 600.0
    questions: int = 32
    rows: int = 1000
    queue: int = 64
    timeout_s: float = 120.0
    rate: float = 100.0
    memory_mib: int = 0  # 0: four fifths of what there is

    def __post_init__(self) -> None:
        """Raises UsageError for a number that is no limit."""
        named = {
            "--max-upload": self.upload_mib,
            "--max-clip": self.clip_s,
            "--max-questions": self.questions,
            "--queue": self.queue,
            "--timeout": self.timeout_s,
            "--rate": self.rate,
        }
        for option, value in named.items():
            check_number(option, value, 0, MOST_INT, above=True)
        check_number("--max-memory", self.memory_mib, 0, MOST_INT)

    @property
    def upload_bytes(self) -> int:
        return self.upload_mib * MIB

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MIB or usable_memory_bytes() * 4 // 5


class Rates:
    """How often each address asked lately: a bucket of tokens that fills at `rate` a second."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._most = max(1.0, 2 * rate)
        self._left: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def wait_s(self, address: str) -> float:
        """Count a request; return 0, or in how many seconds the address may ask again."""
        now = self._clock()
        left, at = self._left.pop(address, (self._most, now))
        left = min(self._most, left + (now - at) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[address] = (left if wait else left - 1, now)
        if len(self._left) > _MOST_ADDRESSES:
            self._left.popitem(last=False)
        return wait


def resident_bytes() -> int:
    """Return what this process holds in memory, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
