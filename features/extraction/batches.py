"""Batches of one network: pictures of whatever video fill them, and each is computed once.

The network is called from threads of its own: while it computes one batch, the next one fills, and
one more waits, so that it never waits for what this process does between two calls.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders.pool import ClipDone
from framebank.features.extraction.balance import Busy
from framebank.features.extraction.clip_windows import FrameSpool
from framebank.features.extraction.seen import Picture, Row, SeenPictures
from framebank.features.spec import FeatureSpec

Rows = NDArray[np.float32] | Sequence[bytes]


class FrameNetwork(Protocol):
    """What the engine needs of a `features.network.frozen_network.Network`, or of what stands in
    for one where pictures are kept.

    `batch_size`: what one call takes at most. `step`: what it computes at once; a call with fewer
    costs as much. `in_flight`: how many calls may be under way at a time.
    """

    batch_size: int
    feature_dim: int

    @property
    def step(self) -> int: ...

    @property
    def in_flight(self) -> int: ...

    def __call__(self, images: NDArray[np.uint8]) -> Rows:
        """Map uint8[b, size, size, 3] RGB, or clips [b, frames, size, size, 3], b at most
        `batch_size`, to float32[b, feature_dim], or to a file of a picture each."""


@dataclasses.dataclass
class Assembly:
    """The rows of one video that are through the network, by token, of clips by their number."""

    rows: dict[int, Row] = dataclasses.field(default_factory=dict)
    waiting: int = 0  # rows whose pictures are not computed yet
    done: ClipDone | None = None
    rejected: bool = False
    frames: FrameSpool | None = None  # that wait until clips can be made of them
    last: dict[int, Picture] = dataclasses.field(default_factory=dict)  # by share of a film


class Batches:
    """Takes pictures, hands them to the network and gives their rows to the videos they are of."""

    def __init__(
        self,
        network: FrameNetwork,
        spec: FeatureSpec,
        threads: NetworkThreads,
        *,
        on_frames: Callable[[int], None],
    ) -> None:
        self._network, self._on_frames, self._stride = network, on_frames, spec.clip_stride
        self._threads, self._busy = threads, Busy()
        self._size = min(network.step, network.batch_size)
        self._ahead = network.in_flight + 1
        frames = (spec.clip_length,) if spec.clip_length > 1 else ()
        shape = (self._size, *frames, spec.input_size, spec.input_size, 3)
        self._free = [np.empty(shape, np.uint8) for _ in range(self._ahead + 1)]
        self._images = self._free.pop()
        self._filling: list[Picture] = []
        self._flying: deque[tuple[Future[Rows], NDArray[np.uint8], list[Picture]]]
        self._flying = deque()
        row_bytes = network.feature_dim * (1 if spec.holds_pictures else 4)
        self._seen = SeenPictures(row_bytes, self._compute_s)
        self._untold = 0  # rows that are there, and nobody was told
        self.pictures = self.computed = 0

    def _compute_s(self) -> float:
        return self._busy.seconds / max(1, self.computed)

    def add(
        self,
        clip: Assembly,
        token: int,
        rgb: NDArray[np.uint8],
        *,
        same: bool = False,
        share: int = 0,
    ) -> Iterator[Assembly]:
        """Add one frame, or one clip of frames, `same` where it is the one before of its share
        of its video; yield the videos that were completed meanwhile."""
        picture, is_new = clip.last.get(share), False
        if picture is None or not same:
            picture, is_new = self._seen.find(rgb)
        clip.last[share] = picture
        self.pictures += 1
        if picture.row is None:
            picture.owners.append((clip, token))
            clip.waiting += 1
        else:
            clip.rows[token] = picture.row
            self._tell(1)
        if is_new:
            self._images[len(self._filling)] = rgb
            self._filling.append(picture)
        if len(self._filling) == self._size:
            yield from self._launch()
        while self._flying and self._flying[0][0].done():
            yield from self._land()

    def flush(self) -> Iterator[Assembly]:
        """Compute what there is; yield the videos that this completes."""
        if self._filling:
            yield from self._launch()
        while self._flying:
            yield from self._land()
        self._tell(0, now=True)

    def _launch(self) -> Iterator[Assembly]:
        if len(self._flying) == self._ahead:
            yield from self._land()
        images, pictures = self._images, self._filling
        call = self._threads.submit(self._call, images[: len(pictures)])
        self._flying.append((call, images, pictures))
        self._images, self._filling = self._free.pop(), []

    def _call(self, images: NDArray[np.uint8]) -> Rows:
        with self._busy, self._threads.busy:
            return self._network(images)

    def _land(self) -> Iterator[Assembly]:
        """Give the rows of the earliest batch to whoever waits for them."""
        call, images, pictures = self._flying.popleft()
        rows = call.result()
        self._free.append(images)
        self.computed += len(pictures)
        touched: dict[int, Assembly] = {}
        count = 0
        for row, picture in zip(rows, pictures, strict=True):
            picture.row = row if isinstance(row, bytes) else np.array(row, np.float32)
            count += len(picture.owners)
            for clip, token in picture.owners:
                clip.rows[token] = picture.row
                clip.waiting -= 1
                touched[id(clip)] = clip
            picture.owners.clear()
        self._tell(count, now=True)
        for clip in touched.values():
            if clip.done and not clip.rejected and not clip.waiting:
                yield clip

    def _tell(self, count: int, *, now: bool = False) -> None:
        """Count rows that are there, and pass it on where it is worth it."""
        self._untold += count
        if self._untold >= self._size or (now and self._untold):
            self._on_frames(self._untold * self._stride)
            self._untold = 0


class NetworkThreads:
    """The threads that call the networks of one run, each batch in its turn: one thread, or as many
    as calls may be under way. As a context they end, after the calls that are under way."""

    def __init__(self, networks: Sequence[FrameNetwork]) -> None:
        count = max(network.in_flight for network in networks)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="network")
        self.submit = self._pool.submit
        self.busy = Busy()

    def __enter__(self) -> NetworkThreads:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
