"""Networks that are built while the decoders are at work."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import UsageError
from framebank.features.extraction.batches import FrameNetwork
from framebank.features.extraction.coming import coming_networks
from framebank.features.extraction.engine import Engine
from framebank.features.video import Extracted, VideoRef
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.features.extraction.test_engine import SPEC, ref_of

TABLE = dataclasses.replace(SPEC, backbone="mobilenet_v2", layer="avg_pool")
ONE = DecoderPolicy(decoders=1)


def network() -> FakeNetwork:
    return FakeNetwork(feature_dim=1280)


def test_decoding_begins_before_the_network_is_there(tmp_path: Path) -> None:
    clip = ref_of(write_clip(tmp_path / "a.mp4", frames=20))
    begun, found = threading.Event(), network()

    def build() -> Sequence[FrameNetwork]:
        assert begun.wait(60), "nothing was begun before there was a network"
        return [found]

    def clips() -> Iterator[VideoRef]:
        begun.set()
        yield clip

    (coming,) = coming_networks([TABLE], build, batch_size=4)
    engine = Engine(coming, TABLE, ONE)
    try:
        (result,) = engine.run(clips())
    finally:
        engine.close()
    expected = Engine(network(), TABLE, ONE)
    try:
        (alone,) = expected.run([clip])
    finally:
        expected.close()
    assert isinstance(result, Extracted) and isinstance(alone, Extracted)
    np.testing.assert_array_equal(result.features, alone.features)
    assert 0 < engine.balance.decode_s <= engine.balance.decoders_s


def test_what_building_raises_ends_the_run(tmp_path: Path) -> None:
    def build() -> Sequence[FrameNetwork]:
        raise UsageError("weights that fit nothing")

    (coming,) = coming_networks([TABLE], build, batch_size=4)
    engine = Engine(coming, TABLE, ONE)
    try:
        with pytest.raises(UsageError, match="fit nothing"):
            list(engine.run([ref_of(write_clip(tmp_path / "a.mp4", frames=20))]))
    finally:
        engine.close()


@pytest.mark.parametrize("changes", [{"backbone": "own:x"}, {"layer": "block_1_expand"}])
def test_where_a_width_is_not_known_the_network_is_built_first(changes: dict[str, str]) -> None:
    found = [network()]
    specs = [dataclasses.replace(TABLE, **changes)]
    assert coming_networks(specs, lambda: found, batch_size=4) is found
