"""Makes small caches of made-up features through the real writers, for tests of readers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from framebank.features.cache import catalog, layout, sidecar, tfrecord
from framebank.features.cache.record import QuantisationError, encode_record
from framebank.features.spec import FeatureSpec
from framebank.features.stores import storage
from framebank.features.video import Extracted, Rejected, SourceInfo, VideoRef

SPEC = FeatureSpec(
    backbone="inception_v3",
    layer="avg_pool",
    weights="random:0",
    weights_sha256="0" * 64,
    input_size=299,
    resize="stretch",
    preprocessing="x/127.5-1",
    sample="fps=1",
    max_frames=None,
    precision="float32",
    dtype="float16",
)


def make_extracted(video_id: str, *, rows: int = 3, width: int = 8, seed: int = 0) -> Extracted:
    """Return features that follow from `video_id` and `seed` alone."""
    digest = hashlib.sha256(f"{seed} {video_id}".encode("utf-8", "surrogateescape")).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return Extracted(
        ref=VideoRef(video_id, f"/clips/{video_id}", 1000 + seed, "1700000000000000000"),
        features=random.random((rows, width), np.float32),
        pts_ms=np.arange(rows, dtype=np.int64) * 1000,
        frame_index=np.arange(rows, dtype=np.int64) * 25,
        source=SourceInfo("mov,mp4", "h264", 320, 240, 25.0, float(rows), 25 * rows),
        content_sha256=digest.hex(),
        partial=False,
        decode_errors=0,
        capped=False,
    )


def make_shard(
    cache: str,
    shard: str,
    videos: Sequence[Extracted | Rejected],
    *,
    run_id: str,
    spec: FeatureSpec = SPEC,
) -> list[sidecar.CatalogRow]:
    """Write and commit one shard; returns its rows."""
    data = b""
    rows = []
    error = QuantisationError()
    about: dict[str, Any] = {
        "fingerprint": spec.fingerprint,
        "run_id": run_id,
        "time": "2026-11-21T01:00:00Z",
    }
    for video in videos:
        if isinstance(video, Rejected):
            rows.append(sidecar.quarantined_row(video, shard=shard, **about))
            continue
        payload, one_error = encode_record(video, spec=spec)
        frame = tfrecord.frame_record(payload)
        number = sum(row.state == "done" for row in rows)
        place: dict[str, Any] = {"record": number, "offset": len(data), "length": len(frame)}
        rows.append(sidecar.done_row(video, shard=shard, **place, **about))
        data += frame
        error += one_error
    storage.write_atomic(layout.tfrecord_path(cache, shard), data)
    sha256 = hashlib.sha256(data).hexdigest()
    committed = sidecar.Sidecar(
        shard, run_id, spec.fingerprint, len(data), sha256, error, tuple(rows)
    )
    sidecar.write_sidecar(cache, committed)
    return rows


def make_cache(cache: str, *, spec: FeatureSpec = SPEC, with_catalog: bool = True) -> None:
    """Write a cache of two runs: a, b, c, d and bad in the first; b changed in the second."""
    layout.write_spec(cache, spec)
    missing = Rejected(VideoRef("bad.mp4", "/clips/bad.mp4", -1, ""), "open", "missing", "no file")
    first = [
        *make_shard(
            cache, "r1-0", [make_extracted("a.mp4"), make_extracted("b.mp4", rows=2), missing],
            run_id="20261121-0100", spec=spec,
        ),
        *make_shard(
            cache, "r1-1", [make_extracted("c/ü.mp4"), make_extracted("d.mp4", rows=5)],
            run_id="20261121-0100", spec=spec,
        ),
    ]  # fmt: skip
    changed = dataclasses.replace(
        make_extracted("b.mp4", rows=4, seed=1), partial=True, decode_errors=2
    )
    second = make_shard(cache, "r2-0", [changed], run_id="20261121-0200", spec=spec)
    if with_catalog:
        catalog.write_catalog(cache, "20261121-0100", first)
        catalog.write_catalog(cache, "20261121-0200", second)
