"""Which backend Keras runs on, for whoever can do without importing Keras."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from framebank.features.stores import json_text


def keras_backend() -> str:
    """Return the name of Keras's backend as Keras finds it, without importing Keras."""
    if (keras := sys.modules.get("keras")) is not None:
        return str(keras.backend.backend())
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json_text.parse_object((home / "keras.json").read_text())["backend"])
    return "tensorflow"
