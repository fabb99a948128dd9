"""A trained model as functions of TensorFlow, kept on this machine for who asks it next.

Keras takes as long to be imported and to read a model as small models take for thousands of
questions. What is kept is what Keras makes of the file, as TensorFlow writes it down; it runs no
other operations, and needs no Keras. `infra/decisions/0020` has the reasons.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framebank.features.network.keras_backends import keras_backend
from framebank.features.stores import kept
from framebank.features.stores.disk import bytes_sha256
from framebank.features.tensorflow_import import import_tensorflow


class Functions(NamedTuple):
    """`answer` maps float32[b, n, d] and texts string[b] to float32[b, a] (or [b, 1], of segments
    [b, n, a + 1]), `number` texts to int64[b, l]: tensors, all of them."""

    answer: Callable[..., Any]
    number: Callable[[Any], Any] | None


def key_of(*data: bytes) -> str | None:
    """Return the key of the model whose files have this content, None where none can be kept."""
    if keras_backend() != "tensorflow":
        return None
    import_tensorflow(keras=False)
    import tensorflow as tf

    made_by = (tf.__version__, importlib.metadata.version("keras"))
    gpus = [gpu.name for gpu in tf.config.list_physical_devices("GPU")]
    hashes = [bytes_sha256(one) for one in data]
    sources = [Path(__file__), Path(__file__).with_name("trained_model.py")]
    return kept.key_of("model", *hashes, *made_by, *gpus, sources=sources)


def load(key: str) -> Functions | None:
    """Return the functions that were kept under `key`, None where there are none."""
    found = kept.load(key)
    if found is None:
        return None
    import tensorflow as tf

    names, files = found
    with tempfile.TemporaryDirectory(prefix="framebank-") as folder:
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.data)
        module = tf.saved_model.load(folder)
    # Not its functions themselves: the module holds their weights and tables.
    numbers = "number" in names
    return Functions(
        lambda *given: module.answer(*given),
        (lambda texts: module.number(texts)) if numbers else None,
    )


def keep(key: str, model: Any, functions: Functions) -> None:
    """Keep the functions of a `keras.Model`, where that can be done; takes a second."""
    import tensorflow as tf

    module = tf.Module()
    module.model, module.answer = model, functions.answer
    if functions.number is not None:
        module.number = functions.number
    names = ["answer"] + ["number"] * (functions.number is not None)
    # What it cannot write down is no fault of the model's: it is loaded from its file each time.
    with contextlib.suppress(Exception), tempfile.TemporaryDirectory(prefix="framebank-") as folder:
        tf.saved_model.save(module, folder)
        files = {
            os.path.relpath(os.path.join(place, name), folder): np.fromfile(
                os.path.join(place, name), np.uint8
            )
            for place, _, its in os.walk(folder)
            for name in its
        }
        kept.keep(key, names, files)
