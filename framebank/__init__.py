"""Framebank: decode videos once, keep per-frame features, train and score on the features.

In a checkout the floors `features/`, `pipelines/` and `train/` lie beside this folder, and are its
sub-packages all the same; installed, they lie in it (setup.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framebank.cli import main
    from framebank.features.cache.reader import open_cache
    from framebank.features.extraction.one_clip import extract_features

__version__ = "0.1.0"
__all__ = ["extract_features", "main", "open_cache"]

_HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.dirname(_HERE)  # the folder from which `import framebank` works
if not os.path.isdir(os.path.join(_HERE, "features")):
    __path__.append(HOME)

_HOMES = {
    "extract_features": "framebank.features.extraction.one_clip",
    "main": "framebank.cli",
    "open_cache": "framebank.features.cache.reader",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'framebank' has no attribute {name!r}")
