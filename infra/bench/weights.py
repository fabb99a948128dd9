"""The weights that all programs of a comparison run with, in a file that any of them reads."""

from __future__ import annotations

from pathlib import Path

import common  # finds the project
from peers import NETWORKS


def write_random(path: str, backbone: str) -> None:
    """Write the project's `random:0` of `backbone` as weights of `keras.applications`."""
    from framebank.features.network.backbones import find_backbone, named_layers
    from framebank.features.network.weight_files import layer_arrays
    from framebank.features.network.weights import resolve_weights
    from framebank.features.tensorflow_import import import_tensorflow

    import_tensorflow()
    import keras

    row, (_, name, size) = find_backbone(backbone), NETWORKS[backbone]
    layers = named_layers(row.build())
    needed = {one for one, layer in layers.items() if layer.weights}
    arrays = layer_arrays(
        resolve_weights("random:0", backbone=backbone), backbone=row, layers=layers, needed=needed
    )
    make = getattr(keras.applications, name)
    model = make(include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3))
    holders = [layer for layer in model.layers if layer.weights]
    for layer, one in zip(holders, (one for one in layers if one in needed), strict=False):
        layer.set_weights(arrays[one])
    model.save_weights(path)


def weights_file(folder: Path, backbone: str) -> str:
    """Return the file of random weights of `backbone` in `folder`, made if it is not there."""
    path = folder / f"{backbone}.weights.h5"
    if not path.exists():
        common.make_apart(write_random, str(path), backbone)
    return str(path)
