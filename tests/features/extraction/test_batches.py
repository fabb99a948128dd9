"""Batches: each row goes to the frame it is of, whatever call ends first."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from framebank.features.extraction.batches import Assembly, Batches, NetworkThreads
from tests.features.extraction.test_engine import SPEC


@dataclasses.dataclass
class MeanNetwork:
    """A feature is the mean of the picture; the first call ends once `others` calls have begun."""

    batch_size: int
    step: int
    in_flight: int = 1
    feature_dim: int = 1
    others: int = 0

    def __post_init__(self) -> None:
        self.sizes: list[int] = []
        self._begun = threading.Semaphore(0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(len(images))
        self._begun.release()
        if len(self.sizes) == 1:
            for _ in range(1 + self.others):
                assert self._begun.acquire(timeout=20)
        return images.mean(axis=(1, 2, 3), keepdims=True)[:, :, 0, 0].astype(np.float32)


def computed(network: MeanNetwork, values: list[int]) -> tuple[list[float], list[int]]:
    """Return the feature of each frame, of one value each, and what `on_frames` was told."""
    told: list[int] = []
    clip = Assembly()
    with NetworkThreads([network]) as threads:
        batches = Batches(network, SPEC, threads, on_frames=told.append)
        for token, value in enumerate(values):
            for _ in batches.add(clip, token, np.full((32, 32, 3), value, np.uint8)):
                pytest.fail("the clip is not done")
        assert list(batches.flush()) == []
    assert not clip.waiting
    return [float(clip.rows[token][0]) for token in range(len(values))], told  # type: ignore[arg-type]


def test_a_batch_is_what_the_network_computes_at_once() -> None:
    network = MeanNetwork(batch_size=8, step=3)
    rows, told = computed(network, list(range(10)))
    assert rows == list(range(10))
    assert network.sizes == [3, 3, 3, 1] and sum(told) == 10
    network = MeanNetwork(batch_size=2, step=3)
    computed(network, [1, 2, 3])
    assert network.sizes == [2, 1]


def test_rows_go_where_they_belong_whatever_call_ends_first() -> None:
    """As on a GPU, two calls are under way; pictures that wait are found by those that follow."""
    values = [1, 2, 3, 4, 1, 3, 5, 5, 6, 1]
    network = MeanNetwork(batch_size=2, step=2, in_flight=2, others=1)
    rows, told = computed(network, values)
    assert rows == values and sum(told) == len(values)
    assert sum(network.sizes) == len(set(values))


def test_what_the_network_raises_is_raised() -> None:
    class Broken(MeanNetwork):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        computed(Broken(batch_size=1, step=1), [1, 2, 3, 4, 5])
