"""Makes a small untrained model folder of the real kind, for the tests of what asks a model, and
spoils one."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np

from framebank.features.spec import FeatureSpec

ANSWERS = ("loading", "unloading", "red")


def make_model(
    folder: Path, spec: FeatureSpec, *, width: int, seed: int = 0, kind: str = "open"
) -> Path:
    """Write a model of float[b, n, width] features; returns its folder.

    One that is open has three answers; a counting one answers 2 to 5.
    """
    import keras

    from framebank.train.model.config import ModelConfig
    from framebank.train.model.frames import FrameStatistics
    from framebank.train.model.heads import Head
    from framebank.train.model.network import build_network, export
    from framebank.train.model.text import text_layer

    keras.utils.set_random_seed(seed)
    text = text_layer(["what is the man doing?", "which colour is it?"], max_words=50)
    config = ModelConfig(projection=8, frame_units=8, word_size=4, question_units=4, dense_units=8)
    statistics = FrameStatistics(2, np.full(width, 0.5), np.full(width, 0.1))
    answers = ANSWERS if kind == "open" else ()
    head = Head(kind, answers, low=2, high=5, mean=3.0, spread=2.0)
    network = build_network(config, statistics, words=text.vocabulary_size(), head=head)
    # Answers of an untrained network hardly differ: make them lean.
    network.set_weights([weights * 3 for weights in network.get_weights()])
    folder.mkdir(parents=True)
    export(network, text).save(folder / "model.keras")
    words = [str(word) for word in text.get_vocabulary()]
    fields = {**head.to_json(), "words": words}
    (folder / "vocabulary.json").write_text(json.dumps(fields))
    lineage = {
        "fingerprint": spec.fingerprint,
        "spec": spec.to_json(),
        "random_weights": spec.random_weights,
        "cache": "",
        "runs": [],
    }
    (folder / "lineage.json").write_text(json.dumps(lineage))
    return folder


def spoil_weights(folder: Path, value: float = np.nan) -> None:
    """Put `value` into one number of the model in `folder`, as a training that diverged did."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    held = io.BytesIO(members["model.weights.h5"])
    with h5py.File(held, "r+") as file:
        arrays: dict[str, h5py.Dataset] = {}
        file.visititems(lambda name, item: arrays.update({name: item}) if _is_array(item) else None)
        last = [array for name, array in arrays.items() if "optimizer" not in name][-1]
        last[...] = np.full(last.shape, value, last.dtype)
    members["model.weights.h5"] = held.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _is_array(item: h5py.Group | h5py.Dataset) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "f"
