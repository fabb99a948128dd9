"""Weights of image question answering in a file that Keras 1 or 2 saved.

The file holds the network of `train.model.image_qa`: three LSTMs, three dense layers and the
softmax, of the sizes that it has, as `save_weights` or `save` wrote them. Layers are found by name
and shape, and no object is made of what a file holds. HDF5's library runs in circles over some
damaged files, or dies of them, so a file is read in a process of its own before it is here.

Gates of an LSTM were `hard_sigmoid` up to Keras 2.2, clip(0.2 x + 0.5, 0, 1), and have been
`sigmoid` since 2.3 and in TensorFlow 2. Keras 3 knows the former as clip(x / 6 + 0.5, 0, 1), so the
weights that lead to gates are taken times 1.2.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.network.hdf5_trial import find_fault
from framebank.features.network.weight_files import (
    UNREADABLE,
    Refused,
    child_of,
    read_array,
    saved_layers,
)
from framebank.features.stores import json_text
from framebank.train.model.config import DENSE_LAYERS, GATES, READERS

Arrays = list[NDArray[np.float32]]

_LARGEST = 1e30
_MOST_VALUES = 2**26  # five times those of the network as published
_GATE_ORDER = "ifco"  # of a kernel's columns; Keras 1 kept an array for each
_SLOPE = 1.2  # of the old hard_sigmoid, by that of Keras 3
_ROLE = re.compile(
    r"^(?:(?P<layer>.*?)[/_])?(?P<role>recurrent_kernel|kernel|bias|[WUb](?:_[ifco])?)(?::\d+)?$"
)
_ROLES = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}
_LAYOUT = (
    f"{READERS} LSTMs and {DENSE_LAYERS + 1} dense layers, as Keras 1 or 2 saved image question "
    "answering"
)


@dataclasses.dataclass(frozen=True)
class OldWeights:
    """The arrays of each layer of the network, by its name, and what they say of its sizes;
    `saved_by` is the version of Keras, "" where it is not known."""

    arrays: Mapping[str, Arrays]
    word_size: int
    question_units: int
    width: int
    dense_units: int
    answers: int
    gates: str
    saved_by: str


def read_old_weights(
    data: bytes, source: str, *, gates: str | None = None, trusted: bool = False
) -> OldWeights:
    """Return the weights in the bytes of an .hdf5 file; raises UsageError for any other file.

    One that is not `trusted` is read by a process of its own first.
    """
    import h5py

    def refused(got: str, expected: str) -> UsageError:
        return UsageError(
            "the weights are not those of image question answering",
            got=f"{source}: {got}",
            expected=expected,
            todo="give the .hdf5 file that save_weights wrote",
        )

    if not trusted and (fault := find_fault(data)):
        raise refused(f"a damaged file, {fault}", _LAYOUT)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            group = file
            if "layer_names" not in file.attrs and "model_weights" in file:
                group = child_of(file, "model_weights", refused)
            if "layer_names" not in group.attrs:
                raise refused(f"HDF5 without layer_names, with {sorted(file)[:5]} in it", _LAYOUT)
            lstms, dense = _by_kind(saved_layers(group, refused), refused)
            shapes = _sizes(lstms, dense, refused)
            found = gates or _gates(file, group)
            arrays: dict[str, Arrays] = {}
            for number, part in enumerate(lstms):
                name = f"question{number}"
                arrays[name] = _lstm(name, part, found, refused)
            names = [*(f"dense{n}" for n in range(DENSE_LAYERS)), "answers"]
            for name, part in zip(names, dense, strict=True):
                arrays[name] = [_read(name, part[role], refused) for role in ("kernel", "bias")]
            version = _text(group.attrs.get("keras_version", ""))
    except UNREADABLE as err:
        raise refused(f"not readable as HDF5 ({str(err)[:200]})", _LAYOUT) from err
    return OldWeights(arrays, *shapes, found, version)


def _by_kind(
    layers: list[tuple[str, dict[str, Any]]], refused: Refused
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the LSTMs and the dense layers, each in the network's order, their datasets by role;
    a Sequential within the network is a layer with the weights of several."""
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    for name, datasets in layers:
        for path, dataset in datasets.items():
            match = _ROLE.match(path)
            if match is None or getattr(dataset, "shape", None) is None:
                raise refused(f"layer {name} with a weight {path}", _LAYOUT)
            first, _, gate = match["role"].partition("_")
            role = f"{_ROLES[first]}_{gate}".rstrip("_") if first in _ROLES else match["role"]
            parts.setdefault((name, match["layer"] or ""), {})[role] = dataset
    lstms = [its for its in parts.values() if any(role.startswith("rec") for role in its)]
    dense = [its for its in parts.values() if set(its) == {"kernel", "bias"}]
    if (len(lstms), len(dense)) != (READERS, DENSE_LAYERS + 1) or len(parts) > 2 * DENSE_LAYERS + 1:
        named = ", ".join(name for name, _ in layers)[:200]
        raise refused(f"{len(lstms)} LSTMs and {len(dense)} dense layers ({named})", _LAYOUT)
    return lstms, dense


def _sizes(
    lstms: list[dict[str, Any]],
    dense: list[dict[str, Any]],
    refused: Refused,
) -> tuple[int, int, int, int, int]:
    """Return (word_size, question_units, width, dense_units, answers) that all shapes agree on;
    nothing is read before."""
    shapes = [its.shape for layer in (*lstms, *dense) for its in layer.values()]
    if sum(math.prod(shape) for shape in shapes) > _MOST_VALUES:
        biggest = max(shapes, key=math.prod)
        raise refused(f"an array of {biggest}", f"at most {_MOST_VALUES} numbers in all")
    first = [layer["kernel"].shape for layer in dense]
    one = lstms[0].get("kernel_i", lstms[0].get("kernel"))
    if any(len(shape) != 2 for shape in first) or one is None or len(one.shape) != 2:
        raise refused(f"layers of shapes {', '.join(map(str, shapes))[:200]}", _LAYOUT)
    split = "kernel_i" in lstms[0]
    word_size, units = one.shape[0], one.shape[1] // (1 if split else 4)
    rows, dense_units, answers = first[0][0], first[0][1], first[-1][1]
    width = rows - units
    if min(word_size, units, width, dense_units, answers) < 1:
        raise refused(f"layers of shapes {', '.join(map(str, shapes))[:200]}", _LAYOUT)
    inputs = (word_size, *[units] * (READERS - 1))
    wanted = [_lstm_shapes(size, units, split=split) for size in inputs]
    sides = [(rows, dense_units), *[(dense_units, dense_units)] * (DENSE_LAYERS - 1)]
    wanted += [{"kernel": side, "bias": side[1:]} for side in (*sides, (dense_units, answers))]
    for layer, shapes_of in zip((*lstms, *dense), wanted, strict=True):
        got = {role: its.shape for role, its in layer.items()}
        if got != shapes_of:
            name = next(iter(layer.values())).name.strip("/")
            raise refused(f"{name} and its like of {got}", f"{shapes_of}")
    return word_size, units, width, dense_units, answers


def _lstm_shapes(size: int, units: int, *, split: bool) -> dict[str, tuple[int, ...]]:
    shapes = {"kernel": (size, units), "recurrent_kernel": (units, units), "bias": (units,)}
    if split:
        return {f"{role}_{gate}": shape for role, shape in shapes.items() for gate in _GATE_ORDER}
    return {role: (*shape[:-1], 4 * units) for role, shape in shapes.items()}


def _lstm(name: str, datasets: dict[str, Any], gates: str, refused: Refused) -> Arrays:
    """Return kernel, recurrent kernel and bias, with columns in the order of Keras 2 and 3."""
    arrays = []
    for role in _ROLES.values():
        names = [f"{role}_{gate}" for gate in _GATE_ORDER] if f"{role}_i" in datasets else [role]
        read = [_read(name, datasets[one], refused) for one in names]
        array = np.concatenate(read, axis=-1)
        if gates == "hard_sigmoid":
            by_gate = array.reshape(*array.shape[:-1], len(_GATE_ORDER), -1)
            by_gate[..., [_GATE_ORDER.index(gate) for gate in "ifo"], :] *= np.float32(_SLOPE)
        arrays.append(array)
    return arrays


def _read(name: str, dataset: Any, refused: Refused) -> NDArray[np.float32]:
    array = read_array(name, dataset, refused)
    if not (np.abs(array) <= _LARGEST).all():  # nor is NaN
        raise refused(f"layer {name} with NaN, or more than {_LARGEST:g}, in it", "finite numbers")
    return array


def _gates(file: Any, group: Any) -> str:
    """Return the activation of the gates: as the file's own config states it, else as the version
    of Keras had it that saved the file."""
    if config := _text(file.attrs.get("model_config", "")):
        try:
            stated = set(_activations(json_text.parse(config)))
        except ValueError:
            stated = set()
        if len(stated) == 1 and stated <= set(GATES):
            return stated.pop()
    version = _text(group.attrs.get("keras_version", ""))
    numbers = tuple(int(number) for number in re.findall(r"\d{1,4}", version)[:3])
    since = (2, 2, 4) if version.endswith("-tf") else (2, 3)
    return "sigmoid" if numbers >= since else "hard_sigmoid"


def _activations(config: Any) -> Iterator[str]:
    """Yield what the layers in a config have for their gates, by the names of Keras 2 and 1."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name in ("recurrent_activation", "inner_activation") and isinstance(value, str):
                yield value
            yield from _activations(value)
    elif isinstance(config, list):
        for value in config:
            yield from _activations(value)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
