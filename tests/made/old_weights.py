"""Weight files of image question answering as Keras 1 and Keras 2 laid them out, by h5py alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def old_arrays(
    *, word_size: int = 4, units: int = 5, width: int = 6, dense: int = 7, answers: int = 3
) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of a network, by layer and role; gates are i, f, c, o."""
    rng = np.random.default_rng(0)

    def made(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    layers = {}
    for number, size in enumerate((word_size, units, units), start=1):
        layers[f"lstm_{number}"] = {
            "kernel": made(size, 4 * units), "recurrent_kernel": made(units, 4 * units),
            "bias": made(4 * units),
        }  # fmt: skip
    sides = [(units + width, dense), (dense, dense), (dense, dense), (dense, answers)]
    for number, side in enumerate(sides, start=1):
        layers[f"dense_{number}"] = {"kernel": made(*side), "bias": made(side[1])}
    return layers


def keras1_names(layer: str, roles: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays as Keras 1 named them: of an LSTM one for each gate, in order i c f o."""
    short = {"kernel": "W", "recurrent_kernel": "U", "bias": "b"}
    if "recurrent_kernel" not in roles:
        return {f"{layer}_{short[role]}": array for role, array in roles.items()}
    found = {}
    for gate in "icfo":
        for role, array in roles.items():
            part = np.split(array, 4, axis=-1)["ifco".index(gate)]
            found[f"{layer}_{short[role]}_{gate}"] = part
    return found


def keras2_names(layer: str, roles: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{layer}/{role}:0": array for role, array in roles.items()}


def write_weights(
    path: Path, layers: dict[str, dict[str, Any]], *, keras: int = 2, version: str | None = None
) -> Path:
    """Write the file that `save_weights` of that Keras wrote."""
    import h5py

    names = keras1_names if keras == 1 else keras2_names
    others = ("reshape_1", "activation_1", "dropout_1")  # without weights
    order = [*list(layers)[:3], others[0], *list(layers)[3:], *others[1:]]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in order]
        file.attrs["backend"] = b"theano" if keras == 1 else b"tensorflow"
        file.attrs["keras_version"] = (version or {1: "1.2.2", 2: "2.0.8"}[keras]).encode()
        for name in order:
            group = file.create_group(name)
            arrays = names(name, layers[name]) if name in layers else {}
            group.attrs["weight_names"] = [one.encode() for one in arrays]
            for one, array in arrays.items():
                group.create_dataset(one, data=array)
    return path
