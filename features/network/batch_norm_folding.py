"""Folds batch norm into the layer before it: fewer operations at inference, the same features.

At inference batch norm is an affine map per channel, so after a convolution without an activation
it can be carried out on the kernel beforehand (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
Where batch norm does not directly follow such a layer it stays as it is.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDABLE = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")

LayerArrays = dict[str, list[NDArray[np.float32]]]  # by layer.name, in the order of layer.weights


@dataclasses.dataclass(frozen=True)
class Folded:
    """`arrays` of all layers, `biases` to add after some, and the layers to `skip`."""

    arrays: LayerArrays
    biases: dict[str, NDArray[np.float32]]
    skip: frozenset[str]


def fold_batch_norm(model: Any, arrays: LayerArrays) -> Folded:
    """Return the weights of a functional `model` with batch norm folded where it can be.

    A folded layer keeps its own weights' shapes; a bias that it had moves to `biases`.
    """
    producers = {id(layer.output): layer for layer in model.layers}
    uses: dict[int, int] = {id(output): 1 for output in model.outputs}
    for layer in model.layers:
        for tensor in _inputs(layer):
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    folded, biases, skip = dict(arrays), {}, set()
    for norm in model.layers:
        if type(norm).__name__ != "BatchNormalization":
            continue
        source: Any = producers.get(id(norm.input))
        if _takes_norm(source) and uses[id(norm.input)] == 1:
            folded[source.name], biases[source.name] = _fold(source, norm, arrays)
            skip.add(norm.name)
    return Folded(folded, biases, frozenset(skip))


def _fold(
    source: Any, norm: Any, arrays: LayerArrays
) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the new weights of `source`, and float32[c] to add to what it gives."""
    scale, offset = _affine(norm, arrays[norm.name])
    weights = list(arrays[source.name])
    if source.use_bias:
        offset = offset + weights[-1] * scale
        weights[-1] = np.zeros_like(weights[-1])
    last = -2 if source.use_bias else -1
    if type(source).__name__ == "DepthwiseConv2D":
        scale = scale.reshape(weights[last].shape[2:])  # [c, multiplier]
    weights[last] = (weights[last] * scale).astype(np.float32)
    return weights, offset.astype(np.float32)


def _takes_norm(layer: Any) -> bool:
    return type(layer).__name__ in FOLDABLE and layer.activation.__name__ == "linear"


def _affine(norm: Any, arrays: list[NDArray[np.float32]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return float64[c] scale and offset of batch norm at inference."""
    values = iter(np.asarray(array, np.float64) for array in arrays)
    gamma = next(values) if norm.scale else 1.0
    beta = next(values) if norm.center else 0.0
    mean, variance = next(values), next(values)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def _inputs(layer: Any) -> list[Any]:
    """Return the tensors that a layer takes, none for the network's own input."""
    if type(layer).__name__ == "InputLayer":
        return []
    return list(layer.input) if isinstance(layer.input, (list, tuple)) else [layer.input]
