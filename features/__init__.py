"""What is cached, and how one machine makes it: decode, infer, store, read.

    import features
    for record in features.open_cache("cache"):
        record.video_id, record.features, record.pts_ms, record.frame_index

`open_cache` reads a feature cache, `extract_features` makes the features of one clip without Beam.
Nothing heavy is imported until one of them is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.cache import open_cache
    from features.extraction import extract_features

__version__ = "0.1.0"
__all__ = ["extract_features", "open_cache"]


def __getattr__(name: str) -> Any:
    if name == "open_cache":
        from features.cache import open_cache

        return open_cache
    if name == "extract_features":
        from features.extraction import extract_features

        return extract_features
    raise AttributeError(f"module 'features' has no attribute {name!r}")
