"""Small clips for tests that need any good clip, and a network that needs no TensorFlow."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_clip(
    path: Path, *, frames: int = 10, seed: int = 0, size: tuple[int, int] = (64, 48)
) -> Path:
    """Write an h264 mp4 at 10 fps whose frames all differ; `size` is (width, height)."""
    noise = np.random.default_rng(seed)
    base = noise.integers(0, 200, (size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            image = np.roll(base, 3 * number, axis=1) + np.uint8(number % 50)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return path


@dataclasses.dataclass
class FakeNetwork:
    """A frame's feature is a few of its pixels: quick, exact, and different for each frame.

    `calls` counts the batches.
    """

    batch_size: int = 4
    in_flight: int = 1
    feature_dim: int = 6
    calls: int = 0

    @property
    def step(self) -> int:
        return self.batch_size

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert 0 < len(images) <= self.batch_size
        self.calls += 1
        flat = images.reshape(len(images), -1).astype(np.float32)
        step = flat.shape[1] // self.feature_dim
        return flat[:, : step * self.feature_dim].reshape(len(images), self.feature_dim, -1).mean(2)
