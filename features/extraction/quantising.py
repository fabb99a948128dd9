"""Post-training quantisation of an OpenVINO graph to int8, from one run of it over some frames.

In int8 are convolutions and products with weights, and beside them largest values (pooling) and
sums of maps. Each tensor that one of them takes gets a range, from what was seen of it; tensors
that are concatenated share one. Weights have a scale for each output channel, symmetric around
zero (Krishnamoorthi 2018, arXiv:1806.08342), and what rounding them adds to a channel on average,
by the mean input, is taken off again (Nagel et al. 2019, arXiv:1906.04721, section 4.2).
Why not a library: infra/decisions/0018-precision.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.network import int8

_LEVELS = 256  # of a tensor's values
_MOST = 127  # steps of a weight's scale on either side of zero
# Of the first weights, whose input fills its range: sums of two products stay within 16 bits, which
# processors without VNNI cut off there.
_MOST_OF_FIRST = 63
_GROUP = 8  # frames; a range ends at the mean of their extremes: one bright frame does not set it
_HAND_ON = {"Concat", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_SMALLEST = 1e-12  # of a scale


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a graph's run over n frames gave: `features` float32[n, d], and by kind and name "min"
    and "max" of each frame, float32[n], of each tensor that needs a range, and the "mean" input of
    each operation with weights, float32[n, channels]; more than n where a tensor has parts of
    frames."""

    features: NDArray[np.float32]
    values: Mapping[tuple[str, str], NDArray[np.float32]]


class _Watched(NamedTuple):
    """A `kind` of value of a tensor: of a frame, or of each place on the axis `kept` in it."""

    kind: str
    name: str
    tensor: Any
    kept: int | None = None

    def output(self) -> Any:
        reduce = getattr(int8.import_openvino("openvino.opset13"), f"reduce_{self.kind}")
        rank = len(self.tensor.get_partial_shape())
        axes = [axis for axis in range(1, rank) if axis != self.kept]
        return (
            reduce(self.tensor, np.array(axes, np.int64), False).output(0) if axes else self.tensor
        )


class Quantiser:
    """Turns a model of float32 into one of int8."""

    def __init__(self, model: Any) -> None:
        """`model` is an `openvino.Model` with weights as constants and one input, uint8[step, h, w,
        c], which `quantise` changes. Raises ValueError where it holds nothing to quantise."""
        self._model = model
        operations = model.get_ordered_ops()
        self._weighted = [one for one in operations if _has_weights(one)]
        if not self._weighted:
            raise ValueError("no convolution or product with weights of float32")
        inputs = [one.input_value(0) for one in self._weighted]
        inputs += [value for one in operations for value in _beside_weights(one)]
        taken = [{_name(source): source for source in _sources(value)} for value in inputs]
        self._tensors = {name: source for sources in taken for name, source in sources.items()}
        self._shared = _joined(map(set, taken))

    def run(self, images: NDArray[np.uint8]) -> Seen:
        """Compute uint8[n, h, w, c] in bfloat16 where the processor has it, which is near enough,
        else in float32, and return what was seen of it."""
        openvino, model = int8.import_openvino(), self._model
        watched = [
            _Watched(kind, *named) for named in self._tensors.items() for kind in ("min", "max")
        ]
        watched += [
            _Watched("mean", one.get_name(), one.input_value(0), _channels(one))
            for one in self._weighted
        ]
        # As they are computed, so that no tensor has to be held until all of them are.
        computed = {one.get_name(): at for at, one in enumerate(model.get_ordered_ops())}
        watched.sort(key=lambda one: computed[one.tensor.get_node().get_name()])
        outputs = [one.output() for one in watched]
        outputs.append(model.output(0).get_node().input_value(0))
        watching = openvino.Model(outputs, model.get_parameters(), "watching")
        can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bf16" if "BF16" in can else "f32"
        *found, features = int8.outputs_of(watching, images, precision=precision)
        pairs = zip(watched, found, strict=True)
        return Seen(features, {(one.kind, one.name): rows for one, rows in pairs})

    def quantise(self, seen: Seen) -> Any:
        """Return the model in int8, its ranges from what was `seen`; raises ValueError for values
        that have none."""
        if not np.isfinite(seen.features).all():
            raise ValueError("features that are not finite")
        self._quantise_tensors(seen, max(1, len(seen.features) // _GROUP))
        for number, one in enumerate(self._weighted):
            means = seen.values["mean", one.get_name()].mean(axis=0)
            _quantise_weights(one, means, most=_MOST if number else _MOST_OF_FIRST)
        # Names that say nothing of what else this process did, so that the same has the same bytes.
        for number, one in enumerate(self._model.get_ordered_ops()):
            one.set_friendly_name(f"{one.get_type_name()}_{number}")
        return self._model

    def _quantise_tensors(self, seen: Seen, groups: int) -> None:
        operations = int8.import_openvino("openvino.opset13")
        extremes = {}
        for name in self._tensors:
            least, largest = seen.values["min", name], seen.values["max", name]
            extremes[name] = _mean_of_largest(-least, groups), _mean_of_largest(largest, groups)
        if not np.all(np.isfinite(list(extremes.values()))):
            raise ValueError("values that are not finite")
        for names in self._shared:
            below = max(extremes[name][0] for name in names)
            above = max(extremes[name][1] for name in names)
            low, high = _range(below, above)
            for name in sorted(names):
                tensor = self._tensors[name]
                takers = list(tensor.get_target_inputs())
                ends = [np.float32(end) for end in (low, high, low, high)]
                quantised = operations.fake_quantize(tensor, *ends, _LEVELS).output(0)
                for taker in takers:
                    taker.replace_source_output(quantised)


def _name(output: Any) -> str:
    return f"{output.get_node().get_name()}:{output.get_index()}"


def _constant(value: Any) -> Any | None:
    node = value.get_node()
    return node if node.get_type_name() == "Constant" else None


def _is_float(value: Any) -> bool:
    return bool(value.get_element_type().get_type_name() == "f32")


def _has_weights(operation: Any) -> bool:
    """Tell whether it is one whose weights are constants, and whose channels `_channels` knows."""
    kind = operation.get_type_name()
    if kind not in ("Convolution", "GroupConvolution", "MatMul"):
        return False
    weights = _constant(operation.input_value(1))
    if weights is None or not _is_float(operation.input_value(1)):
        return False
    is_plain = len(weights.shape) == 2 and not operation.get_attributes().get("transpose_a")
    return kind != "MatMul" or is_plain


def _beside_weights(operation: Any) -> list[Any]:
    """Return what a sum of maps or a pool takes, which are computed in int8 as well; [] of any
    other operation."""
    count = {"Add": 2, "MaxPool": 1}.get(operation.get_type_name(), 0)
    values = [operation.input_value(number) for number in range(count)]
    is_map = [len(one.get_partial_shape()) == 4 and _is_float(one) for one in values]
    return values if all(is_map) and not any(map(_constant, values)) else []


def _channels(operation: Any) -> int:
    """Return the axis of the input of an operation with weights that those sum over."""
    is_product = operation.get_type_name() == "MatMul"
    return len(operation.input_value(0).get_partial_shape()) - 1 if is_product else 1


def _sources(value: Any) -> list[Any]:
    """Return where the values of a tensor were computed, which some operations only hand on."""
    node = value.get_node()
    kind = node.get_type_name()
    if kind == "Concat":
        count = node.get_input_size()
    elif kind in _HAND_ON or (kind == "Pad" and _pads_zeros(node)):
        count = 1
    else:
        return [value]
    return [one for number in range(count) for one in _sources(node.input_value(number))]


def _pads_zeros(pad: Any) -> bool:
    """Tell whether what it adds lies in every range, as zero does, exactly."""
    if pad.get_input_size() < 4:
        return True  # zeros, or what is there at the edge
    value = _constant(pad.input_value(3))
    return value is not None and not np.any(value.data)


def _joined(sets: Iterable[set[str]]) -> Sequence[set[str]]:
    """Return the sets, those that share something as one."""
    found: list[set[str]] = []
    for one in sets:
        apart = [other for other in found if not other & one]
        found = [*apart, one.union(*(other for other in found if other & one))]
    return found


def _mean_of_largest(values: NDArray[np.float32], groups: int) -> float:
    """Return the mean over groups of their largest values. A group has frames from everywhere:
    those that come one after the other are of one clip."""
    groups = min(groups, len(values))
    return float(np.mean([values[first::groups].max() for first in range(groups)]))


def _range(below: float, above: float) -> tuple[float, float]:
    """Return the ends of a range that holds zero exactly, down to -`below` and up to `above`."""
    if below <= 0:
        return 0.0, max(above, _SMALLEST)
    scale = max(below / (_LEVELS // 2), above / (_LEVELS // 2 - 1))
    return -scale * (_LEVELS // 2), scale * (_LEVELS // 2 - 1)


def _quantise_weights(operation: Any, means: NDArray[np.float32], *, most: int) -> None:
    """Round the weights of an operation to `most` steps each way, and take off what that adds on
    average to what it gives, of inputs whose channels have these `means`."""
    operations = int8.import_openvino("openvino.opset13")
    kind, weights = operation.get_type_name(), operation.input_value(1).get_node().data
    if kind == "MatMul":
        outputs = 0 if operation.get_attributes()["transpose_b"] else 1
        summed: tuple[int, ...] = (1 - outputs,)
    else:
        summed = tuple(range(2 if kind == "GroupConvolution" else 1, weights.ndim))
    largest = np.maximum(
        weights.max(axis=summed, keepdims=True), -weights.min(axis=summed, keepdims=True)
    )
    if not (np.isfinite(largest).all() and np.isfinite(means).all()):
        raise ValueError("weights or values that are not finite")
    scale = np.maximum(largest / most, _SMALLEST)
    rounded = weights / scale
    np.rint(rounded, out=rounded)
    steps = operations.convert(operations.constant(rounded.astype(np.int8)), "f32")
    rounded *= scale
    rounded -= weights
    if kind == "MatMul":
        error = (rounded if outputs == 0 else rounded.T)[np.newaxis]
    else:  # of [groups, to, from]
        shape = weights.shape[: len(weights.shape) - len(_positions(operation))]
        error = rounded.reshape(*((1,) * (3 - len(shape))), *shape, -1).sum(axis=-1)
    added = np.einsum("goi,gi->go", error, means.reshape(len(error), -1)).astype(np.float32)
    takers = list(operation.output(0).get_target_inputs())
    operation.input(1).replace_source_output(operations.multiply(steps, scale).output(0))
    shape = (-1,) if kind == "MatMul" else (1, -1, *(1 for _ in _positions(operation)))
    corrected = operations.subtract(operation, added.reshape(shape)).output(0)
    for taker in takers:
        taker.replace_source_output(corrected)


def _positions(operation: Any) -> range:
    """Return the axes of the input of a convolution along which its kernel moves."""
    return range(2, len(operation.input_value(0).get_partial_shape()))
