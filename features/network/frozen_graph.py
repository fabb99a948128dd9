"""A Keras model as one frozen graph of TensorFlow: batch norm folded, weights as variables, and a
session of its own, whose settings touch nothing else in the process.

Reasons and figures: infra/decisions/0002-network-precision.md.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.machine import computes_bfloat16
from framebank.features.tensorflow_import import graph_message, import_graphs

ASSIGN = "AssignVariableOp"
FOLDABLE = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")

Images = NDArray[np.uint8]  # [b, h, w, c=3] RGB, or [b, frames, h, w, c=3]
Features = NDArray[np.float32]  # [b, d]
Call = Callable[[Images], Features]
LayerArrays = dict[str, list[NDArray[np.float32]]]  # by layer.name, in the order of layer.weights


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A graph uint8[b, h, w, c=3] → float32[b, d], the values of its weights, and what its nodes
    are called: where values go in, what takes them up."""

    definition: Any  # GraphDef
    images: str
    features: str
    feature_dim: int
    values: list[str]
    assignments: list[str]
    arrays: list[NDArray[np.float32]]

    @functools.cached_property
    def graph(self) -> Any:
        """Return it as a `tf.Graph`."""
        graphs = import_graphs()
        with graphs.Graph().as_default() as graph:
            graphs.import_graph_def(self.definition, name="")
        return graph

    def to_kept(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return it as a JSON value and arrays."""
        names = ("images", "features", "feature_dim", "values", "assignments")
        definition = np.frombuffer(self.definition.SerializeToString(), np.uint8)
        weights = {str(number): array for number, array in enumerate(self.arrays)}
        return {name: getattr(self, name) for name in names}, {"graph": definition, **weights}

    @classmethod
    def from_kept(cls, about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Frozen:
        """Return what `to_kept` was called of; of TensorFlow nothing runs for that."""
        definition = graph_message().FromString(arrays["graph"].tobytes())
        weights = [arrays[str(number)] for number in range(len(arrays) - 1)]
        return cls(definition, arrays=weights, **about)


def trace(
    model: Any,
    arrays: LayerArrays,
    *,
    preprocess: Callable[[Any], Any],
    shape: tuple[int | None, ...],
    fold: bool = True,
) -> Frozen:
    """Return `model` with `arrays` as a graph for images uint8[shape], the first None for any
    number.

    `preprocess` maps the graph's images to the input of the network, both float32. `fold` is for
    networks whose operations take nothing but tensors, as those of the table.
    """
    import tensorflow as tf

    forward: Callable[[Any, _Variables], Any]
    if fold:
        forward = functools.partial(_forward, model, fold_batch_norm(model, arrays))
    else:
        forward = _traced(model, arrays, shape)
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.uint8, shape)
        store = _Variables()
        pixels = preprocess(tf.cast(images, tf.float32))
        features = tf.cast(forward(pixels, store), tf.float32)
    return Frozen(
        graph.as_graph_def(),
        images=images.name,
        features=features.name,
        feature_dim=int(features.shape[-1]),
        values=[value.name for value in store.values],
        assignments=[operation.name for operation in store.assignments],
        arrays=list(store.values.values()),
    )


def start(frozen: Frozen, *, precision: str, is_known: bool = False) -> Call:
    """Return a graph as a function, in a session of its own; raises UsageError when this machine's
    TensorFlow does not compute in the `precision` asked for, unless it `is_known` to."""
    if precision == "bfloat16" and not computes_bfloat16():
        raise _not_in(precision)
    session = import_graphs().Session(graph=frozen.graph, config=_config(precision))
    session.run(frozen.assignments, dict(zip(frozen.values, frozen.arrays, strict=True)))
    images = frozen.graph.get_tensor_by_name(frozen.images)
    features = frozen.graph.get_tensor_by_name(frozen.features)
    if precision != "float32" and not is_known:
        feed = {images: np.zeros([size or 1 for size in images.shape], np.uint8)}
        _check_computes_in(precision, session, features, feed)
    call: Call = session.make_callable(features, [images])
    return call


def with_constants(frozen: Frozen) -> Iterator[bytes]:
    """Yield the parts of a file of a GraphDef of images and features alone, the weights in it, for
    whoever runs it elsewhere."""
    definition = frozen.definition
    handles = {node.name: node.input[0] for node in definition.node if node.op == ASSIGN}
    held = {
        handles[name.partition(":")[0]]: array
        for name, array in zip(frozen.assignments, frozen.arrays, strict=True)
    }
    # Without the inputs that nothing reads, which a traced network leaves.
    needed = _needed(definition, frozen.features.partition(":")[0])
    graph = type(definition)
    yield graph(versions=definition.versions, library=definition.library).SerializeToString()
    for node in definition.node:
        if node.name not in needed or node.name in held:
            continue
        part = graph()  # messages one behind the other are one: no two copies of all weights
        new = part.node.add()
        if node.op != "ReadVariableOp":
            new.CopyFrom(node)
        else:
            new.name, new.op = node.name, "Const"
            new.attr["dtype"].CopyFrom(node.attr["dtype"])
            put_array(new.attr["value"].tensor, held[node.input[0]], node.attr["dtype"].type)
        yield part.SerializeToString()


def put_array(tensor: Any, array: NDArray[Any], dtype: int) -> None:
    """Make a TensorProto that of `array`, whose type TensorFlow numbers `dtype`."""
    tensor.dtype, tensor.tensor_content = dtype, array.tobytes()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)


def _needed(definition: Any, name: str) -> set[str]:
    """Return the names of the nodes that the one called `name` follows from, and its own."""
    nodes = {node.name: node for node in definition.node}
    found, left = set(), [name]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [one.lstrip("^").partition(":")[0] for one in nodes[name].input]
    return found


class _Variables:
    """Weights as TensorFlow variables: fed once, read by the graph."""

    def __init__(self) -> None:
        self.assignments: list[Any] = []
        self.values: dict[Any, NDArray[np.float32]] = {}

    def add(self, array: NDArray[np.float32]) -> Any:
        """Return a float32 tensor that reads a new variable holding `array`."""
        import tensorflow as tf

        raw, shape = tf.raw_ops, array.shape
        handle = raw.VarHandleOp(
            dtype=tf.float32, shape=shape, shared_name=f"weight_{len(self.values)}"
        )
        value = tf.compat.v1.placeholder(tf.float32, shape)
        self.assignments.append(raw.AssignVariableOp(resource=handle, value=value))
        self.values[value] = array
        tensor = raw.ReadVariableOp(resource=handle, dtype=tf.float32)
        tensor.set_shape(shape)
        return tensor


def _forward(model: Any, folded: Folded, images: Any, store: _Variables) -> Any:
    """Return the output tensor of `model`, its operations applied in order to `images`."""
    import keras
    import tensorflow as tf

    mapping = [
        (variable, store.add(array))
        for layer in model.layers
        if layer.name not in folded.skip
        for variable, array in zip(layer.weights, folded.arrays.get(layer.name, []), strict=True)
    ]
    tensors = {id(model.inputs[0]): images}
    with keras.StatelessScope(state_mapping=mapping):
        for operation in model.operations:
            if id(operation.output) in tensors:
                continue  # the input itself
            taken = keras.tree.map_structure(lambda part: tensors[id(part)], operation.input)
            output = taken if operation.name in folded.skip else operation(taken)
            if operation.name in folded.biases:
                # BiasAdd, not +: TensorFlow merges it and the ReLU after it into the convolution.
                output = tf.nn.bias_add(output, store.add(folded.biases[operation.name]))
            tensors[id(operation.output)] = output
    return tensors[id(model.outputs[0])]


def _traced(
    model: Any, arrays: LayerArrays, shape: tuple[int | None, ...]
) -> Callable[[Any, _Variables], Any]:
    """Return what puts `model`, as Keras itself calls it on images of `shape`, into a graph.

    It is traced as a function first: in a graph of TensorFlow 1 tensors that layers compare by `==`
    would be compared as objects, and what they made before, eagerly, could not be used.
    """
    import keras
    import tensorflow as tf

    pairs = [
        (variable, np.asarray(array, np.float32))
        for layer in model.layers
        for variable, array in zip(layer.variables, arrays[layer.name], strict=True)
    ]

    def call(images: Any, *values: Any) -> Any:
        given = zip(pairs, values, strict=True)
        mapping = [(variable, tf.cast(value, variable.dtype)) for (variable, _), value in given]
        with keras.StatelessScope(state_mapping=mapping):
            return model(tf.cast(images, model.inputs[0].dtype), training=False)

    taken = (shape, *(array.shape for _, array in pairs))
    specs = [tf.TensorSpec(one, tf.float32) for one in taken]
    function = tf.function(call, autograph=False).get_concrete_function(*specs)
    made_before = [tensor.numpy() for tensor in function.captured_inputs]

    def forward(images: Any, store: _Variables) -> Any:
        values = [images, *(store.add(array) for _, array in pairs)]
        values += [tf.constant(one) for one in made_before]
        names = [tensor.name for tensor in function.inputs]
        (output,) = tf.graph_util.import_graph_def(
            function.graph.as_graph_def(),
            input_map=dict(zip(names, values, strict=True)),
            return_elements=[function.outputs[0].name],
            name="",
        )
        return output

    return forward


def _config(precision: str) -> Any:
    config = import_graphs().ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True  # several workers may share one GPU
    if precision == "bfloat16":
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
    return config


def _check_computes_in(precision: str, session: Any, features: Any, feed: dict[Any, Any]) -> None:
    """Raise UsageError unless the optimised graph holds convolutions in `precision`.

    TensorFlow leaves the graph as it is, without a word, on processors that lack the type and on
    GPUs; the features would then not be what their spec says.
    """
    graphs = import_graphs()
    wanted = getattr(graphs, precision).as_datatype_enum
    options = graphs.RunOptions(output_partition_graphs=True)
    metadata = graphs.RunMetadata()
    session.run(features, feed, options=options, run_metadata=metadata)
    kernels = [
        node.attr["T"].type
        for graph in metadata.partition_graphs
        for node in graph.node
        if "Conv2D" in node.op or "Conv3D" in node.op or "MatMul" in node.op
    ]
    if wanted not in kernels:
        raise _not_in(precision)


def _not_in(precision: str) -> UsageError:
    return UsageError(
        f"TensorFlow does not compute in {precision} on this machine",
        got="a graph that stays in float32 (bfloat16 needs AVX-512 or AMX, and no GPU)",
        expected=f"convolutions in {precision}",
        todo="use --precision float32, in another cache where this one is in bfloat16",
    )


@dataclasses.dataclass(frozen=True)
class Folded:
    """`arrays` of all layers, `biases` to add after some, and the layers to `skip`."""

    arrays: LayerArrays
    biases: dict[str, NDArray[np.float32]]
    skip: frozenset[str]


def fold_batch_norm(model: Any, arrays: LayerArrays) -> Folded:
    """Return the weights of a functional `model` with batch norm folded where it can be.

    At inference batch norm is an affine map per channel, so after a convolution without an
    activation it can be carried out on the kernel beforehand (Jacob et al. 2018, arXiv:1712.05877,
    section 3.2): fewer operations, the same features. Where it does not directly follow such a
    layer it stays as it is. A folded layer keeps its own weights' shapes; a bias that it had moves
    to `biases`.
    """
    import keras

    producers = {id(layer.output): layer for layer in model.layers}
    taken = (tensor for layer in model.layers for tensor in keras.tree.flatten(layer.input))
    uses = collections.Counter(map(id, taken))
    uses.update(id(output) for output in model.outputs)
    folded, biases, skip = dict(arrays), {}, set()
    for norm in model.layers:
        if type(norm).__name__ != "BatchNormalization":
            continue
        source: Any = producers.get(id(norm.input))
        takes_norm = type(source).__name__ in FOLDABLE and source.activation.__name__ == "linear"
        if takes_norm and uses[id(norm.input)] == 1:
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


def _affine(norm: Any, arrays: list[NDArray[np.float32]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return float64[c] scale and offset of batch norm at inference."""
    values = iter(np.asarray(array, np.float64) for array in arrays)
    gamma = next(values) if norm.scale else 1.0
    beta = next(values) if norm.center else 0.0
    mean, variance = next(values), next(values)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale
