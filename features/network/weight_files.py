"""Reads weights of a known network from HDF5, and nothing else from the file.

Three layouts hold Keras weights: `.weights.h5` of Keras 3 (a group per layer, named by its class),
`.keras` (a zip with such a file in it) and the older `.h5` (layers by name, in the network's
order). All are read here into plain arrays for a network that Framebank built itself. No object is
made from the file, so nothing in it can run. C3D's may also be Caffe's (`features.network.c3d`),
and those of a Keras on Theano, whose kernels are turned round. HDF5 itself can point elsewhere
(external and soft links, external storage, virtual datasets); every link and dataset is checked
before it is followed, and a dataset's shape before it is read. That HDF5's library reads the file
in bounds is known by then (`features.network.hdf5_trial`).

Weights beyond those of the network are accepted only as the dense classifier on top of it.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.network.backbones import Backbone, snake_case
from framebank.features.network.c3d import channels_last, from_theano, read_caffe
from framebank.features.network.weights import Weights, random_layers
from framebank.features.stores import json_text

MEMBER = "model.weights.h5"  # where a .keras file holds its weights
ROOTS = ("layers", "_layer_checkpoint_dependencies")  # Keras 3; Keras of TensorFlow 2.12 to 2.15
LINEAGE = "framebank_lineage"  # the attribute that holds it, as JSON
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)  # what h5py raises for odd files
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, *_MALFORMED)

Arrays = list[NDArray[np.float32]]
Stored = dict[str, list[Any]]  # layer → its HDF5 datasets, not read yet
Refused = Callable[[str, str], UsageError]  # (got, expected) → what is said of the file


def layer_arrays(
    weights: Weights, *, backbone: Backbone, layers: Mapping[str, Any], needed: set[str]
) -> dict[str, Arrays]:
    """Return float32 arrays for the `needed` layers, in the order of `layer.weights`.

    `layers` are all layers of the built network by name, in the network's own order. Raises
    UsageError when the file is not HDF5, has changed since it was resolved, points outside
    itself, or holds weights of another network (the first layer that differs is named).
    """
    wanted = {name: layer for name, layer in layers.items() if name in needed}
    if weights.seed is not None:
        return random_layers(weights.seed, backbone=backbone, layers=wanted)
    path = weights.unchanged("the weight file")
    reader = _Reader(weights.source, backbone)
    try:
        if backbone.name == "c3d" and not _is_hdf5(path):
            return _read_caffe(path, reader, wanted)
        with _open(path, reader) as file:
            return reader.read(file, layers, wanted)
    except UNREADABLE as err:
        raise reader.refused(f"not readable as HDF5 ({err})", "a Keras weight file") from err


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path) or zipfile.is_zipfile(path))


def _read_caffe(path: Path, reader: _Reader, wanted: Mapping[str, Any]) -> dict[str, Arrays]:
    shapes = {name: [tuple(v.shape) for v in layer.weights] for name, layer in wanted.items()}
    sized = {name: its for name, its in shapes.items() if its}
    try:
        found = read_caffe(path.read_bytes(), sized)
    except ValueError as err:
        raise reader.refused(str(err), "the Caffe network of C3D v1.0, or a Keras file") from err
    return {name: found.get(name, []) for name in wanted}


def write_lineage(path: Path, lineage: Mapping[str, Any]) -> None:
    """Write into a weight file how its weights came to be; raises OSError."""
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs[LINEAGE] = json.dumps(lineage, ensure_ascii=True)


def read_lineage(weights: Weights) -> dict[str, Any] | None:
    """Return what `write_lineage` wrote into a weight file, None where it did not; UsageError for
    words that cannot be read. What is no HDF5 is told where the weights are."""
    if weights.name != "file" or not str(weights.local_path).endswith(".h5"):
        return None
    import h5py

    try:
        with h5py.File(weights.local_path, "r") as file:
            text = file.attrs.get(LINEAGE)
            return None if text is None else json_text.parse_object(text)
    except OSError:
        return None
    except UNREADABLE as err:
        raise UsageError(
            "what a weight file says of itself cannot be read",
            got=f"{weights.source}: {str(err)[:200]}",
            expected="a file as `framebank finetune` or Keras writes it",
        ) from err


def _open(path: Path, reader: _Reader) -> Any:
    import h5py

    if not zipfile.is_zipfile(path):
        return h5py.File(path, "r")
    with zipfile.ZipFile(path) as archive:
        if MEMBER not in archive.namelist():
            raise reader.refused(f"a zip file without {MEMBER}", "a .keras file")
        return h5py.File(io.BytesIO(archive.read(MEMBER)), "r")


class _Reader:
    """Reads one file for one backbone; holds what its error messages need."""

    def __init__(self, source: str, backbone: Backbone) -> None:
        self.source, self.backbone = source, backbone
        self.theano = False

    def refused(self, got: str, expected: str) -> UsageError:
        return UsageError(
            f"the weights do not fit {self.backbone.name}",
            got=f"{self.source}: {got}",
            expected=expected,
            todo="give weights saved from keras.applications."
            f"{self.backbone.application}(include_top={self.backbone.include_top})"
            if self.backbone.application
            else "give the published Sports-1M file",
        )

    def read(
        self, file: Any, layers: Mapping[str, Any], wanted: Mapping[str, Any]
    ) -> dict[str, Arrays]:
        """Return the arrays of the wanted layers, whichever layout the file has."""
        group = file
        if "layer_names" not in file.attrs and "model_weights" in file:
            group = self._child(file, "model_weights")
        if "layer_names" in group.attrs:
            found, extra = self._by_order(group, layers)
        else:
            root = next((name for name in ROOTS if name in file), None)
            if root is None:
                raise self.refused(f"HDF5 with {sorted(file)[:5]} in it", "a Keras weight file")
            found, extra = self._by_class(self._child(file, root), layers)
        # Kernels of 3 x 3 x 3 that end so are those of a Keras on Theano.
        first = getattr(next(iter(found.get("conv1", ())), None), "shape", ())
        self.theano = self.backbone.name == "c3d" and tuple(first[2:]) == (3, 3, 3)
        for name, layer in wanted.items():
            expected = [tuple(variable.shape) for variable in layer.weights]
            if self.theano and len(expected[:1] and expected[0]) == 5:
                expected = [(*expected[0][:-3:-1], *expected[0][:3]), *expected[1:]]
            got = [getattr(variable, "shape", "a group") for variable in found[name]]
            if got != expected:
                raise self.refused(
                    f"layer {name} with shapes {got or 'missing'}", f"layer {name} with {expected}"
                )
        for name, variables in extra.items():
            ranks = [len(getattr(variable, "shape", ())) for variable in variables]
            if ranks not in ([2], [2, 1]):  # no dense layer
                raise self.refused(
                    f"a further layer {name} of shape {getattr(variables[0], 'shape', ())}",
                    f"the {len(layers)} layers of {self.backbone.name}",
                )
        arrays = {name: [self._array(name, part) for part in found[name]] for name in wanted}
        if self.theano:
            for name, (kernel, *_) in [(n, its) for n, its in arrays.items() if its]:
                if kernel.ndim == 5:
                    arrays[name][0] = from_theano(kernel)
                elif name == "fc6":
                    arrays[name][0] = channels_last(kernel)
        return arrays

    def _by_class(self, root: Any, layers: Mapping[str, Any]) -> tuple[Stored, Stored]:
        """Return what is stored for each layer, and beside them, in the layout of Keras 3: the n-th
        layer of a class is `class_n/vars/0`, `1`, …"""
        counts: Counter[str] = Counter()
        found, used = {}, set()
        for name, layer in layers.items():
            base = snake_case(type(layer).__name__)
            path = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1
            used.add(path)
            found[name] = self._variables(root, path) if path in root else []
        extra = {path: self._variables(root, path) for path in sorted(set(root) - used)}
        return found, {path: variables for path, variables in extra.items() if variables}

    def _by_order(self, group: Any, layers: Mapping[str, Any]) -> tuple[Stored, Stored]:
        """Return what is stored for each layer, and after them, in the layout of Keras 1 and 2:
        layers with weights, in the network's order."""
        saved = [(name, list(its.values())) for name, its in saved_layers(group, self.refused)]
        found: Stored = {name: [] for name in layers}
        with_weights = [name for name, layer in layers.items() if layer.weights]
        for name, (_, variables) in zip(with_weights, saved, strict=False):
            found[name] = variables
        return found, dict(saved[len(with_weights) :])

    def _variables(self, root: Any, path: str) -> list[Any]:
        layer = self._child(root, path)
        if "vars" not in layer:
            return []
        stored = self._child(layer, "vars")
        return [self._child(stored, str(index)) for index in range(len(stored))]

    def _array(self, name: str, variable: Any) -> NDArray[np.float32]:
        return read_array(name, variable, self.refused)

    def _child(self, group: Any, path: str) -> Any:
        return child_of(group, path, self.refused)


def saved_layers(group: Any, refused: Refused) -> list[tuple[str, dict[str, Any]]]:
    """Return the layers with weights of the layout of Keras 1 and 2, in the network's order: each
    one's name, and its datasets (not read yet) by theirs."""
    saved = []
    for name in _texts(group.attrs["layer_names"]):
        child = child_of(group, name, refused)
        paths = _texts(child.attrs.get("weight_names", ()))
        if paths:
            saved.append((name, {path: child_of(child, path, refused) for path in paths}))
    return saved


def read_array(name: str, variable: Any, refused: Refused) -> NDArray[np.float32]:
    """Return the numbers of a dataset that lie in this very file, as float32 of its shape."""
    if variable.is_virtual or variable.external:
        raise refused(f"layer {name} whose numbers lie in another file", "plain data")
    if variable.dtype.kind not in "fiu":
        raise refused(f"layer {name} of type {variable.dtype}", "numbers")
    return np.asarray(variable[()], dtype=np.float32)


def child_of(group: Any, path: str, refused: Refused) -> Any:
    """Return what lies at `path`, following nothing but hard links inside the file."""
    import h5py

    current = group
    for part in path.split("/"):
        link = current.get(part, getlink=True) if part and part in current else None
        if not isinstance(link, h5py.HardLink):
            kind = type(link).__name__ if link is not None else "nothing"
            raise refused(f"{kind} at {path}", "data inside the file")
        current = current[part]
    return current


def _texts(names: Any) -> list[str]:
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names]
