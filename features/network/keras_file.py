"""A Keras network from a file or a KerasHub preset, in which nothing of the file's runs.

Keras's own safe mode is the second lock. The first is here, and does not depend on Keras's version:
every object that a description names must be a class of Keras itself (or of KerasHub, for its
presets) of the few kinds that networks are made of, and none of those that load code, other models
or files; functions by name, custom and registered objects are refused. The weights must be plain
numbers inside the file: HDF5 can point elsewhere.
"""

from __future__ import annotations

import importlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from framebank.features.errors import needing
from framebank.features.network.backbones import named_layers, near_matches, plain_keras
from framebank.features.network.own_files import (
    OUTPUT,
    PRESET_CONFIG,
    loading,
    map_axes,
    read_json,
    refused,
)
from framebank.features.tensorflow_import import import_tensorflow

_WEIGHTS = "model.weights.h5"
_MEMBERS = {"config.json", "metadata.json", _WEIGHTS}
_PLAIN = {  # what descriptions hold besides objects: numbers, slices, places in the graph
    "__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__", "__bytes__",
}  # fmt: skip
# Layers that run code of the file, wrap other frameworks' models, or read files.
_BARRED = {
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "TextVectorization",
    "StringLookup", "IntegerLookup", "IndexLookup",
}  # fmt: skip
_MODULES = (
    "keras", "keras.layers", "keras.models", "keras.initializers", "keras.regularizers",
    "keras.constraints", "keras.dtype_policies", "keras.quantizers", "keras.optimizers",
    "keras.losses", "keras.metrics",  # of a network within, that was trained by itself
    "keras.src.models.functional", "keras.src.models.sequential", "keras.src.models.model",
)  # fmt: skip
_PREFIXES = ("keras.src.ops.", "keras.src.layers.", "keras.src.applications.")
_HUB = "keras_hub.src.models."


def check_description(path: object, config: Any, *, hub: bool = False) -> None:
    """Raise UsageError unless all that a description of a network names is harmless."""
    todo = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            if "class_name" in value and value["class_name"] not in _PLAIN:
                _check_class(path, value, hub=hub)
            todo += value.values()


def _check_class(path: object, value: dict[str, Any], *, hub: bool) -> None:
    name, module = value["class_name"], value.get("module")
    told = f"{module}.{name}" if module else str(name)
    expected = "layers of Keras itself, and none that holds code or reads files"
    own = isinstance(module, str) and (module in _MODULES or module.startswith(_PREFIXES))
    of_hub = hub and isinstance(module, str) and module.startswith(_HUB)
    own = own or of_hub
    if not own or not isinstance(name, str) or name in _BARRED or name.startswith("_"):
        raise refused(path, f"{told[:200]} in it", expected)
    try:
        found = getattr(importlib.import_module(str(module)), name)
    except (ImportError, AttributeError) as err:
        got = f"{told[:200]}, which this Keras does not have"
        raise refused(path, got, expected, todo="save it with this version of Keras") from err
    kind = isinstance(found, type) and issubclass(found, _kinds(hub=of_hub))
    if not kind or found.__name__ in _BARRED:  # by another name too
        raise refused(path, f"{told[:200]} in it", expected)
    # A registered object would take the place of the class that is named.
    if value.get("registered_name") not in (None, name, f"keras_hub>{name}"):
        raise refused(path, f"the registered object {value['registered_name']!r:.100}", expected)


def _kinds(*, hub: bool) -> tuple[type, ...]:
    """Return what a description may name, of KerasHub alone: its tokenizers read files."""
    import keras

    if hub:
        import keras_hub

        return (keras_hub.models.Backbone,)
    return (
        keras.Operation, keras.initializers.Initializer, keras.regularizers.Regularizer,
        keras.constraints.Constraint, keras.DTypePolicy, keras.quantizers.Quantizer,
        keras.optimizers.Optimizer, keras.losses.Loss, keras.metrics.Metric,
    )  # fmt: skip


def check_numbers(path: object, file: Any) -> None:
    """Raise UsageError unless an open HDF5 file holds plain numbers, in itself, and no more. That
    they can be read, and are not too many, is known by then (`features.network.hdf5_trial`)."""
    import h5py

    groups, seen = [file], set()
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise refused(path, f"a link in its weights at {name!r:.80}", "plain numbers")
            item = group[name]
            place = h5py.h5o.get_info(item.id).addr
            if place in seen:  # a second name of the same, maybe a circle
                continue
            seen.add(place)
            if isinstance(item, h5py.Group):
                groups.append(item)
                continue
            if item.is_virtual or item.external or item.dtype.kind not in "fiub":
                raise refused(path, f"weights at {name!r:.80} that lie elsewhere", "plain numbers")


def load_images(place: Path, layer: str, source: str, *, size: int, channels_first: bool) -> Any:
    """Return the network that `unpack` laid at `place`, as a `keras.Model` from RGB images
    [b, size, size, 3], or as many as it is for, to features of `layer`; `channels_first` where the
    network takes [b, 3, size, size]. Raises UsageError, which names `source`."""
    import_tensorflow()
    import keras

    whole = load_preset(place, source) if place.is_dir() else load_keras(place)
    model = with_output(whole, layer, source)
    if not channels_first:
        return model
    taken = model.inputs[0]
    images = keras.Input(batch_shape=(taken.shape[0], size, size, 3), dtype=taken.dtype)
    return keras.Model(images, model(keras.ops.transpose(images, (0, 3, 1, 2))))


def load_keras(path: Path) -> Any:
    """Return the `keras.Model` in a .keras file; raises UsageError for any other file."""
    import_tensorflow()
    import keras

    with loading(path):
        with zipfile.ZipFile(path) as archive:
            strange = sorted(set(archive.namelist()) - _MEMBERS)
            if strange:
                raise refused(path, f"{strange[0]!r:.80} in it", ", ".join(sorted(_MEMBERS)))
            described = read_json(path, archive, "config.json")
            described.pop("compile_config", None)  # which is not looked at when it loads
            check_description(path, described)
            import h5py

            with h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
                check_numbers(path, file)
        with plain_keras(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the state of an optimizer, which nobody wants
            return keras.saving.load_model(path, compile=False, safe_mode=True)


def load_preset(folder: Path, source: str) -> Any:
    """Return the backbone of a KerasHub preset that `unpack` laid into `folder`, as a model from
    images to its features; of texts and images, the image tower.

    Raises UsageError, which names `source`, for what is no image network of KerasHub.
    """
    import_tensorflow()
    with needing("a KerasHub backbone", extra="kerashub"):
        import keras_hub  # noqa: F401
    import h5py
    import keras

    from framebank.features.stores import json_text

    with loading(source):
        config = json_text.parse_object((folder / PRESET_CONFIG).read_bytes())
        check_description(source, config, hub=True)
        for file in folder.glob("*.h5"):
            with h5py.File(file, "r") as opened:
                check_numbers(source, opened)
        _check_shards(folder, source)
        with plain_keras():
            backbone = keras.saving.deserialize_keras_object(_in_float32(config), safe_mode=True)
            sharded = folder / "model.weights.json"
            backbone.load_weights(str(sharded if sharded.exists() else folder / _WEIGHTS))
            return _tower(backbone, source)


def _check_shards(folder: Path, source: str) -> None:
    """Raise UsageError where a preset's list of weight files names others than lie there."""
    from framebank.features.stores import json_text

    listed = folder / "model.weights.json"
    if listed.exists():
        named = json_text.parse_object(listed.read_bytes()).get("weight_map", {})
        files = {name for value in named.values() for name in np.atleast_1d(value).tolist()}
        if strange := sorted(files - {file.name for file in folder.glob("*.h5")}):
            raise refused(source, f"weights in {strange[0]!r:.80}", "files of the folder")


def _in_float32(config: Any) -> Any:
    """Return a description whose networks compute in float32, whatever they were saved in."""
    if isinstance(config, list):
        return [_in_float32(one) for one in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config | {"config": {"name": "float32"}}
    return {name: _in_float32(one) for name, one in config.items()}


def _tower(backbone: Any, source: str) -> Any:
    """Return the model from images to features of a backbone of KerasHub."""
    import keras

    if hasattr(backbone, "get_vision_embeddings"):  # CLIP, SigLIP
        images = keras.Input(backbone.vision_encoder.image_shape, name="images")
        return keras.Model(images, backbone.get_vision_embeddings(images))
    if len(backbone.inputs) != 1 or len(backbone.outputs) != 1:
        got = f"{type(backbone).__name__} with {len(backbone.inputs)} inputs"
        raise refused(source, got, "an image network")
    output = backbone.outputs[0]
    if len(output.shape) == 3 and type(backbone).__name__.startswith(("DINO", "ViT", "DeiT")):
        output = output[:, 0]  # the class token
    return keras.Model(backbone.inputs[0], output)


def with_output(model: Any, layer: str, source: str) -> Any:
    """Return the model that ends in `layer`, pooled to float32[b, d]: mean over tokens [b, n, d],
    over h and w of a map. Raises UsageError for no such layer and another shape."""
    import keras

    if len(model.outputs) != 1 and layer == OUTPUT:
        raise refused(source, f"a network with {len(model.outputs)} outputs", "--layer NAME")
    output = model.outputs[0]
    if layer != OUTPUT:
        layers = named_layers(model)
        if layer not in layers:
            got, todo = f"no layer {layer!r}", near_matches(layer, list(layers))
            raise refused(source, got, f"one of its {len(layers)} layers", todo=todo)
        output = layers[layer].output
    shape = getattr(output, "shape", ())
    first = model.inputs[0].shape[1] == 3 and model.inputs[0].shape[3] != 3
    axes = {2: (), 3: (1,), 4: map_axes(shape, first=first) if len(shape) == 4 else ()}.get(
        len(shape)
    )
    if axes:
        output = keras.ops.mean(output, axis=axes)
    if axes is None or output.shape[-1] is None:
        got = f"an output of shape {tuple(shape)} of layer {layer!r}"
        raise refused(source, got, "float[b, d], [b, n, d] or [b, h, w, d]")
    return keras.Model(model.inputs[0], output)
