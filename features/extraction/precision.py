"""What a precision "auto" becomes: the fastest in which features stay as near to float32 as said.

Measured where a job is submitted, on frames of the first clips of its input, with the networks that
would run. A cache is of one spec, so it is settled once in its life; int8 is never chosen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import UsageError
from framebank.features.extraction.engine import Engine
from framebank.features.extraction.one_clip import build_network, keep_network
from framebank.features.machine import check_address_space, has_bfloat16
from framebank.features.network.frozen_graph import put_array
from framebank.features.network.keras_backends import keras_backend
from framebank.features.network.weights import Weights
from framebank.features.spec import FeatureSpec
from framebank.features.tensorflow_import import import_graphs
from framebank.features.video import VideoRef

if TYPE_CHECKING:
    from framebank.features.network.frozen_network import Network

LEAST_COSINE = 0.999  # of a frame's feature to that in float32
_LEAST_SPEEDUP = 1.1  # less than that is not worth another value
_FRAMES = 16
_FIRST_CLIPS = 64  # of which frames are taken until there are enough
_PATIENCE_S = 20.0  # for clips that give no frame


@dataclasses.dataclass(frozen=True)
class Settled:
    """What was settled on and why; `cosine` is the least one to float32 over `frames`,
    `speedup` the processor time in float32 by that in bfloat16, `probe` the accuracies of a probe
    in float32 and int8. None: not measured."""

    precision: str
    why: str
    cosine: float | None = None
    speedup: float | None = None
    frames: int = 0
    probe: Mapping[str, float] | None = None


Measure = Callable[[FeatureSpec, Weights, NDArray[np.uint8]], Settled]


def settle(
    spec: FeatureSpec,
    weights: Weights,
    refs: Sequence[VideoRef],
    policy: DecoderPolicy,
    *,
    measure: Measure,
) -> Settled:
    """Return which precision serves `spec`, which is in float32, best on this machine; seconds of
    work where the processor has bfloat16. `measure` is `measured`, here or in another process."""
    if not has_bfloat16():
        return Settled("float32", "this processor does not multiply in bfloat16")
    images = first_images(spec, refs, policy)
    if not len(images):
        return Settled("float32", "no frame of the first clips could be decoded to measure with")
    return measure(spec, weights, images)


def measured(
    spec: FeatureSpec,
    weights: Weights,
    images: NDArray[np.uint8],
    *,
    batch_size: int,
    keep: bool = False,
) -> Settled:
    """Return what is settled on by the images of `first_images`. With `keep` this process's next
    `build_network` of the spec so settled gets the network that was measured."""
    check_address_space()  # before TensorFlow is imported, here for the first time
    if (gain := multiplying_gain()) < _LEAST_SPEEDUP:  # known in no time, before networks are built
        why = f"bfloat16: this machine multiplies in it at {gain:.2f} × the speed of float32"
        return Settled("float32", why, speedup=round(gain, 3))
    rough = dataclasses.replace(spec, precision="bfloat16")
    try:
        fast = _build(rough, weights, batch_size)
    except UsageError as err:  # of weights that fit nothing whoever runs in float32 hears too
        return Settled("float32", err.what)
    exact = _build(spec, weights, batch_size)
    expected, got, exact_s, fast_s = [], [], 0.0, 0.0
    for part in np.array_split(images, 2)[: len(images)]:  # the first is a warm-up too
        start_s = time.process_time()
        expected.append(exact.compute(part))
        middle_s = time.process_time()
        got.append(fast.compute(part))
        exact_s, fast_s = middle_s - start_s, time.process_time() - middle_s
    cosine = least_cosine(np.concatenate(expected), np.concatenate(got))
    found = _judge(cosine, exact_s / max(fast_s, 1e-9), len(images) * spec.clip_stride)
    if keep and found.precision == "bfloat16":
        keep_network(rough, fast)
    elif keep:
        keep_network(spec, exact)
    del exact, fast
    gc.collect()  # the other one's memory
    return found


def _build(spec: FeatureSpec, weights: Weights, batch_size: int) -> Network:
    from framebank.features.network.frozen_network import Network

    network = build_network(spec, weights, batch_size=batch_size)
    assert isinstance(network, Network)
    return network


def _judge(cosine: float, speedup: float, frames: int) -> Settled:
    distance = f"cosine {cosine:.5f} to float32 at least, {speedup:.2f} × its speed"
    told = f"bfloat16: {distance}, on {frames} frames of the first clips"
    if not cosine >= LEAST_COSINE:  # also of what is not finite
        precision, why = "float32", f"{told}; {LEAST_COSINE} is needed"
    elif speedup < _LEAST_SPEEDUP:
        precision, why = "float32", f"{told}, which is no gain"
    else:
        precision, why = "bfloat16", told
    return Settled(precision, why, round(cosine, 6), round(speedup, 3), frames)


def least_cosine(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Return the least cosine between float32[n, d] rows of both, 1 of equal ones; NaN where a
    value is not finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        one, other = expected.astype(np.float64), got.astype(np.float64)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = np.einsum("nd,nd->n", one, other) / lengths
    return float(np.where((expected == got).all(axis=1), 1.0, cosines).min())


@functools.cache  # of this machine, whatever network asks
def multiplying_gain() -> float:
    """Return the processor time of a product of matrices in float32 by that in bfloat16, 0 where
    TensorFlow computes no network; a tenth of a second."""
    if keras_backend() != "tensorflow":
        return 0.0
    graphs = import_graphs()

    def least_s(dtype: Any) -> float:
        graph = _product(graphs, dtype)
        config = graphs.ConfigProto(allow_soft_placement=True)
        config.graph_options.rewrite_options.disable_meta_optimizer = True  # it knows constants
        config.graph_options.optimizer_options.opt_level = -1
        took = []
        with graphs.Session(graph=graph, config=config) as session:
            for _ in range(3):
                start_s = time.process_time()
                session.run(graph.get_operation_by_name("product"))
                took.append(time.process_time() - start_s)
        return min(took)

    return least_s(graphs.float32) / max(1e-9, least_s(graphs.bfloat16))


def _product(graphs: Any, dtype: Any, size: int = 1024) -> Any:
    """Return a graph, of processors, that multiplies a matrix [size, size] with itself."""
    definition, kind = graphs.GraphDef(), dtype.as_datatype_enum
    matrix = definition.node.add(name="matrix", op="Const", device="/device:CPU:0")
    matrix.attr["dtype"].type = kind
    values = np.full((size, size), 0.5, dtype.as_numpy_dtype)
    put_array(matrix.attr["value"].tensor, values, kind)
    product = definition.node.add(
        name="product", op="MatMul", device="/device:CPU:0", input=["matrix", "matrix"]
    )
    product.attr["T"].type = kind
    with graphs.Graph().as_default() as graph:
        graphs.import_graph_def(definition, name="")
    return graph


class _Enough(Exception):
    """There are as many frames as were wanted."""


class _Images:
    """Stands where a network does and keeps what it is given."""

    feature_dim, in_flight = 1, 1

    def __init__(self, batch_size: int) -> None:
        self.batch_size = self.step = batch_size
        self.taken: list[NDArray[np.uint8]] = []

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.taken.append(images.copy())
        return np.zeros((len(images), self.feature_dim), np.float32)


def first_images(
    spec: FeatureSpec, refs: Sequence[VideoRef], policy: DecoderPolicy, *, frames: int = _FRAMES
) -> NDArray[np.uint8]:
    """Return what the network of `spec` would be given first, `frames` images or fewer,
    uint8[n, h, w, c=3] (clips: about as many frames, uint8[n, frames, h, w, c]); of clips that
    cannot be used nothing."""
    network = _Images(max(2, frames // spec.clip_length))

    def note(done: int) -> None:
        if sum(map(len, network.taken)) >= network.batch_size:
            raise _Enough

    engine = Engine(network, spec, policy)
    # A clip from which no frame comes for long does not let the engine look at the clock.
    watch = threading.Timer(_PATIENCE_S, engine.close)
    watch.start()
    try:
        with contextlib.suppress(_Enough):
            for _ in engine.run(refs[:_FIRST_CLIPS], on_frames=note):
                pass
    finally:
        watch.cancel()
        engine.close()
    if not network.taken:
        return np.zeros((0, spec.input_size, spec.input_size, 3), np.uint8)
    return np.concatenate(network.taken)[: network.batch_size]
