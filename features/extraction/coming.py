"""Networks that are being built, for whoever can begin to decode meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from framebank.features.extraction.batches import FrameNetwork, Rows
from framebank.features.network.backbones import BACKBONES
from framebank.features.spec import FeatureSpec


class ComingNetwork:
    """Stands for a network that another thread builds: `batch_size` and `feature_dim` are known,
    and whoever asks more of it waits for it, and has raised what building it raised."""

    def __init__(
        self,
        networks: Future[Sequence[FrameNetwork]],
        number: int,
        *,
        batch_size: int,
        feature_dim: int,
    ) -> None:
        """The network is the one with that number among `networks`."""
        self._networks, self._number = networks, number
        self.batch_size, self.feature_dim = batch_size, feature_dim

    @property
    def _network(self) -> FrameNetwork:
        return self._networks.result()[self._number]

    @property
    def in_flight(self) -> int:
        return self._network.in_flight

    @property
    def step(self) -> int:
        return self._network.step

    def __call__(self, images: NDArray[np.uint8]) -> Rows:
        return self._network(images)


def coming_networks(
    specs: Sequence[FeatureSpec],
    build: Callable[[], Sequence[FrameNetwork]],
    *,
    batch_size: int,
) -> Sequence[FrameNetwork]:
    """Return what `build` does, the networks of `specs` for batches of so many frames: at once, and
    built by a thread, where how wide their features are is known without them."""
    widths = [_known_width(spec) for spec in specs]
    if None in widths:
        return build()
    thread = ThreadPoolExecutor(1, thread_name_prefix="building")
    networks = thread.submit(build)
    thread.shutdown(wait=False)  # it ends when they are built
    return [
        ComingNetwork(
            networks,
            number,
            batch_size=max(1, batch_size // spec.clip_length),
            feature_dim=width,
        )
        for number, (spec, width) in enumerate(zip(specs, widths, strict=True))
        if width is not None
    ]


def _known_width(spec: FeatureSpec) -> int | None:
    row = BACKBONES.get(spec.backbone)
    return None if row is None or spec.layer != row.layer else row.feature_dim
