"""Which backend Keras runs on, for whoever can do without importing Keras; and a Keras model as one
compiled function of JAX, as on GPUs and TPUs.

uint8 pixels are what moves to JAX's device, where they are cast: four times less than float32.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from framebank.features.stores import json_text

if TYPE_CHECKING:
    from framebank.features.network.frozen_graph import Call, Features, Images


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


def jax_on_gpu() -> bool:
    """Return whether JAX computes on something else than the processor."""
    import jax

    return jax.default_backend() != "cpu"


def compile_function(
    model: Any, *, preprocess: Callable[[Any], Any], products: str = "float32"
) -> Call:
    """Return a function uint8[b, h, w, c=3] → float32[b, d] that runs `model` with its weights.

    `preprocess` maps images to the input of the network, both float32. Each shape of images is
    compiled when it first comes, which takes seconds. `products` is JAX's matmul precision: GPUs
    would take TF32 by default, which is another feature than the processor's.
    """
    import jax
    import jax.numpy as jnp

    weights = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]

    @jax.jit
    def features_of(weights: Any, state: Any, images: Any) -> Any:
        with jax.default_matmul_precision(products):
            pixels = preprocess(images.astype(jnp.float32))
            features, _ = model.stateless_call(weights, state, pixels, training=False)
        return features.astype(jnp.float32)

    def call(images: Images) -> Features:
        return np.asarray(features_of(weights, state, images))

    return call
