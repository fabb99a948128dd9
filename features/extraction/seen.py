"""Pictures that were seen: what is identical, bit for bit, is computed once.

A network's feature depends on its input alone, so a picture that comes again (a slide, a still
scene, a screen recording, a GIF, black) has the row that is there already. Pictures are told apart
by a SHA-256 of their bytes, made here and not by the decoders, which are not believed: one that
somebody took over could pass its picture off as another clip's. Hashing is left off where it costs
more than it saves, by what both take while running, and tried again now and then.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32] | bytes

_TABLE_BYTES = 32 * 2**20  # of rows and what finds them
_ENTRY_BYTES = 512
_DIGEST_BYTES = 16
_TRIAL = 256  # pictures that are hashed before it is judged whether that pays
_LONGEST_REST = 16 * _TRIAL  # that are not hashed after a trial that did not


@dataclasses.dataclass(eq=False)
class Picture:
    """One input of the network: its row once that is computed, until then who waits for it."""

    row: Row | None = None
    owners: list[tuple[Any, int]] = dataclasses.field(default_factory=list)


class SeenPictures:
    """Finds pictures by their bytes, as many as there is room for, the latest ones."""

    def __init__(
        self,
        row_bytes: int,
        compute_s: Callable[[], float],
        *,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`compute_s` says how long the network takes for one picture, as far as is known."""
        self._most = max(1, _TABLE_BYTES // (row_bytes + _ENTRY_BYTES))
        self._compute_s, self._clock = compute_s, clock
        self._found: OrderedDict[bytes, Picture] = OrderedDict()
        self._looked = self._hits = self._rest = 0
        self._next_rest = _TRIAL
        self._spent_s = 0.0

    def find(self, image: NDArray[np.uint8]) -> tuple[Picture, bool]:
        """Return the picture whose bytes `image` has, and whether it is a new one."""
        if self._rest:
            self._rest -= 1
            return Picture(), True
        start = self._clock()
        digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()[:_DIGEST_BYTES]
        picture = self._found.get(digest)
        is_new = picture is None
        if picture is None:
            picture = self._found[digest] = Picture()
            if len(self._found) > self._most:
                self._found.popitem(last=False)
        else:
            self._found.move_to_end(digest)
        self._judge(hit=not is_new, took_s=self._clock() - start)
        return picture, is_new

    def _judge(self, *, hit: bool, took_s: float) -> None:
        self._looked += 1
        self._hits += hit
        self._spent_s += took_s
        if self._looked < _TRIAL:
            return
        if self._hits * self._compute_s() < self._spent_s:
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest, _LONGEST_REST)
        else:
            self._next_rest = _TRIAL
        self._looked = self._hits = 0
        self._spent_s = 0.0
