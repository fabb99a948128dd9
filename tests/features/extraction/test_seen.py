"""A picture that was seen is not computed again, and the features are the same for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.extraction import seen
from framebank.features.extraction.engine import Engine
from framebank.features.extraction.seen import SeenPictures
from framebank.features.video import Extracted
from tests.clips.plain_clips import FakeNetwork
from tests.features.extraction.test_engine import SPEC, ref_of


class CountingNetwork(FakeNetwork):
    """Counts the pictures that it computes."""

    pictures = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.pictures += len(images)
        return super().__call__(images)


def write_slides(path: Path, slides: list[int]) -> Path:
    """Write a clip without loss whose frame i shows the slide `slides[i]`."""
    looks = np.random.default_rng(5).integers(0, 256, (max(slides) + 1, 48, 64, 3), np.uint8)
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for slide in slides:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(looks[slide], format="rgb24")))
        out.mux(stream.encode())
    return path


def extracted(paths: list[Path], network: FakeNetwork) -> tuple[list[Extracted], Engine]:
    engine = Engine(network, dataclasses.replace(SPEC, sample="all"), DecoderPolicy(decoders=1))
    results = list(engine.run(map(ref_of, paths)))
    engine.close()
    assert all(isinstance(result, Extracted) for result in results)
    return sorted(results, key=lambda result: result.ref.video_id), engine  # type: ignore[return-value]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_each_picture_is_computed_once(tmp_path: Path, batch_size: int) -> None:
    """Held ones, ones that come back, and those of another clip."""
    slides = {"a.mkv": [0, 0, 0, 1, 1, 0, 2, 2], "b.mkv": [3, 1, 1, 3, 0]}
    paths = [write_slides(tmp_path / name, shown) for name, shown in slides.items()]
    network = CountingNetwork(batch_size=batch_size)
    results, engine = extracted(paths, network)
    assert network.pictures == 4
    assert (engine.balance.pictures, engine.balance.computed) == (13, 4)
    rows: dict[int, np.ndarray] = {}
    for result, shown in zip(results, slides.values(), strict=True):
        assert len(result.features) == len(shown)
        for row, slide in zip(np.asarray(result.features), shown, strict=True):
            assert rows.setdefault(slide, row).tobytes() == row.tobytes()
    assert len({row.tobytes() for row in rows.values()}) == 4


def test_a_held_picture_costs_nothing_even_where_nothing_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoder says that it is the one before."""
    monkeypatch.setattr(SeenPictures, "find", lambda *_: (seen.Picture(), True))
    network = CountingNetwork()
    extracted([write_slides(tmp_path / "a.mkv", [0, 0, 0, 1, 1, 0])], network)
    assert network.pictures == 3


class Clock:
    """Says that each look at a picture takes `step_s`."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def picture(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number % 256, np.uint8) + np.uint8(number // 256)


def test_hashing_rests_where_it_costs_more_than_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_TRIAL", 4)
    monkeypatch.setattr(seen, "_LONGEST_REST", 8)
    clock = Clock(0.25)
    table = SeenPictures(4, lambda: 0.5, clock=clock)

    def looks(numbers: list[int]) -> int:
        """Return how many of these pictures were hashed."""
        before_s = clock.now_s
        for number in numbers:
            table.find(picture(number))
        return round((clock.now_s - before_s) / clock.step_s) // 2

    table._next_rest = 4
    assert looks([0, 1, 2, 3]) == 4  # a trial that found none
    assert looks([0, 1, 2, 3]) == 0
    assert looks([4, 5, 6, 0]) == 4  # one was seen: 0.5 s saved for 1 s of hashing
    assert looks([4] * 8) == 0
    assert looks([4, 4, 5, 9]) == 4  # three: 1.5 s saved
    assert looks([4] * 8) == 8


def test_what_is_kept_of_pictures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_TABLE_BYTES", 2 * (seen._ENTRY_BYTES + 8))
    table = SeenPictures(8, lambda: 1e9)
    first, _ = table.find(picture(1))
    table.find(picture(2))
    assert table.find(picture(1)) == (first, False)
    table.find(picture(3))  # takes the place of 2, which was asked for longest ago
    assert table.find(picture(1))[1] is False
    assert table.find(picture(2))[1] is True
