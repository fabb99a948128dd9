"""A small cache of real clips, some of names that a page must not run, for a server to show."""

from __future__ import annotations

import contextlib
from pathlib import Path

from framebank.features.cache import catalog, layout
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.extraction.engine import Engine
from framebank.features.spec import FeatureSpec
from framebank.features.video import VideoRef
from tests.clips.plain_clips import FakeNetwork, write_clip
from tests.made.made_cache import make_shard

HOSTILE = (
    "<img src=x onerror=alert(1)>.mp4",  # what a page must not run
    "\u202egpj.mp4",  # what turns the text around it
    "שלום <b>.mp4",
)
PLAIN = ("street/a0.mp4", "street/a1.mp4", "street/a2.mp4", "yard/b0.mp4", "yard/b1.mp4")
BROKEN = "yard/broken.mp4"
_RUN = "20261129T1000"


def make_site_cache(folder: Path, spec: FeatureSpec, *, width: int) -> str:
    """Write the clips and the cache that an extraction would make of them, by a network that is a
    few sums of pixels; returns the cache's path."""
    refs = []
    for number, name in enumerate((*PLAIN, *HOSTILE, BROKEN)):
        path = folder / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The first two are nearly one clip.
        write_clip(path, frames=12 + number, seed=max(number, 1), size=(96, 64))
        if name == BROKEN:
            path.write_bytes(path.read_bytes()[:300])
        columns = {"label": ("loading", "unloading")[number % 2], "split": "train"}
        status = path.stat()
        generation = str(status.st_mtime_ns)
        refs.append(VideoRef(name, str(path), status.st_size, generation, columns=columns))
    network, policy = FakeNetwork(feature_dim=width), DecoderPolicy(decoders=2)
    with contextlib.closing(Engine(network, spec, policy)) as engine:
        results = list(engine.run(refs))
    cache = str(folder / "cache")
    layout.write_spec(cache, spec)
    catalog.write_catalog(cache, _RUN, make_shard(cache, "s0", results, run_id=_RUN, spec=spec))
    return cache
