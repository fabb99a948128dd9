"""A frozen backbone as a function from frames to features, as fast as this machine allows.

Under Keras's TensorFlow backend the network runs as one graph in a session of its own, whose
settings touch nothing else in the process, under JAX as one compiled function, under any other by
`predict_on_batch`, with the same values. On one kind of processor a feature depends on its own
frame alone, since every batch is computed in steps of COMPUTE_BATCH images, or of WIDE_STEP where
those give the same bits; without oneDNN (other processors than x86, TF_ENABLE_ONEDNN_OPTS=0) one by
one, and then on the number of cores too. On a GPU, whose speed needs large steps, a batch is
computed at once, and features made with different batch sizes may differ in their last bits.
Reasons and figures: infra/decisions/0002-network-precision.md.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from framebank.features.errors import UsageError
from framebank.features.network.backbones import (
    Backbone,
    feature_output,
    find_backbone,
    named_layers,
    without_values,
)
from framebank.features.network.frozen_graph import (
    Call,
    Features,
    Frozen,
    Images,
    LayerArrays,
    start,
    trace,
)
from framebank.features.network.int8 import load_int8, streams
from framebank.features.network.keras_backends import compile_function, jax_on_gpu, keras_backend
from framebank.features.network.own_files import (
    ONNX,
    OwnNetwork,
    describe,
    is_own,
    loading,
    unpack,
)
from framebank.features.network.preprocessing import preprocess
from framebank.features.network.steadiness import (
    COMPUTE_BATCH,
    WIDE_STEP,
    Apart,
    fact_key,
    graph_key,
    is_rounding,
    looked_at_once,
    looks_across,
    most_apart,
    steady_step,
)
from framebank.features.network.weight_files import layer_arrays
from framebank.features.network.weights import Weights
from framebank.features.spec import INT8, PRECISIONS
from framebank.features.stores import kept, temporary
from framebank.features.tensorflow_import import import_graphs, import_tensorflow


class Network:
    """uint8[b, h, w, c=3] RGB frames in, float32[b, d] features out, b at most `batch_size`; of a
    backbone with a `clip_length` clips, uint8[b, frames, h, w, c].

    Any thread may call it; one step at a time is computed, which keeps the whole processor busy and
    whose memory is that of one; on a GPU two (`in_flight`), in int8 one a core. Building takes a
    few seconds.
    """

    def __init__(
        self,
        backbone: str,
        layer: str,
        weights: Weights,
        *,
        precision: str = "float32",
        batch_size: int = 32,
        input_size: int | None = None,
        preprocessing: str | None = None,
    ) -> None:
        """`input_size` and `preprocessing` are for a network from a file (`own_files`), whose
        `weights` are that file; those of int8 are its quantised graph (`int8`). Raises UsageError
        for an unknown backbone, layer or precision, unfit weights, and a network from a file whose
        features look across the batch."""
        if precision not in PRECISIONS:
            raise UsageError("no such precision", got=precision, expected=" | ".join(PRECISIONS))
        if batch_size < 1:
            raise UsageError("a batch needs an image", got=batch_size, expected="1 or more")
        self.layer, self.precision, self.batch_size = layer, precision, batch_size
        self._on_gpu = precision != INT8 and _prepare_gpus()
        # On a GPU the next batch is moved there while one is computed.
        self.in_flight = streams() if precision == INT8 else 2 if self._on_gpu else 1
        self._computing = threading.Semaphore(self.in_flight)
        self._step = batch_size if self._on_gpu else steady_step(precision)
        self._wide: int | None = None
        if precision == INT8:
            size = find_backbone(backbone).input_size if input_size is None else input_size
            self.input_shape: tuple[int, ...] = (batch_size, size, size, 3)
            self._call, self._step, self.feature_dim = load_int8(weights, size=size)
        elif is_own(backbone):
            size, scales = input_size or 0, preprocessing or "none"
            self._own(backbone, weights, size=size, preprocessing=scales)
        else:
            row = find_backbone(backbone)
            self.input_shape = (batch_size, *row.input_shape)
            # A clip is as much work as frames: one is a step.
            self._step = self._step if self._on_gpu else max(1, self._step // row.clip_length)
            self._of_table(row, weights)

    @property
    def step(self) -> int:
        """Return how many images are computed at once: fewer cost more each."""
        return self._wide or self._step

    def __call__(self, images: Images) -> Features:
        """Return float32[b, d]; raises ValueError for another shape or dtype than promised."""
        most, *shape = self.input_shape
        if images.shape[1:] != tuple(shape) or images.dtype != np.uint8 or len(images) > most:
            raise ValueError(f"got {images.dtype}{images.shape}, expected uint8{self.input_shape}")
        return self.compute(images)

    def compute(self, images: Images) -> Features:
        """Return float32[n, d] of any number of images, of the shape and dtype of a batch's."""
        missing = -len(images) % self._step  # black ones fill the last step up
        filled = images
        if missing:
            filled = np.pad(images, ((0, missing), *[(0, 0)] * (images.ndim - 1)))
        wide = len(filled) // self._wide * self._wide if self._wide else 0
        steps = [filled[at : at + self.step] for at in range(0, wide, self.step)]
        steps += [filled[at : at + self._step] for at in range(wide, len(filled), self._step)]
        if len(steps) == 1:
            return self._compute_step(steps[0])[: len(images)]
        if self.in_flight == 1:
            parts = list(map(self._compute_step, steps))
        else:
            with ThreadPoolExecutor(self.in_flight) as threads:
                parts = list(threads.map(self._compute_step, steps))
        return np.concatenate(parts)[: len(images)]

    def _compute_step(self, images: Images) -> Features:
        with self._computing:
            return self._call(images)

    def _of_table(self, row: Backbone, weights: Weights) -> None:
        """Make a network of the table, or take up the graph that was kept of it."""
        if keras_backend() != "tensorflow":
            model, arrays = _load(row, self.layer, weights)
            self.feature_dim = int(model.output.shape[-1])
            self._call = call = self._compile(model, arrays, row.preprocessing)
            if self._step > 1:
                key = _kept_key(row, self.layer, weights, row.input_shape)
                self._settle(lambda step, precision: call, step=self._step, graph=key)
            return
        frozen, key = frozen_of_table(row, self.layer, weights)
        self.feature_dim = frozen.feature_dim
        if self.precision != "bfloat16" or self._on_gpu:
            self._call = start(frozen, precision=self.precision)
            return
        fact = fact_key("computes", key)
        known = kept.load(fact) is not None
        self._call = start(frozen, precision=self.precision, is_known=known)
        if not known:
            kept.keep(fact, True, {})
        if row.clip_length == 1 and self.batch_size >= WIDE_STEP and self._widens(key):
            self._wide = WIDE_STEP

    def _widens(self, graph: str) -> bool:
        """Tell whether images have the same bits in steps of WIDE_STEP as in those of COMPUTE_BATCH
        on this processor: which kernels compute a step goes by its shape, not by what it holds."""
        return looked_at_once(fact_key("wide", graph), self._agrees_in_wide_steps)

    def _agrees_in_wide_steps(self) -> bool:
        shape = (WIDE_STEP, *self.input_shape[1:])
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return self.compute(images).tobytes() == self._compute_step(images).tobytes()

    def _own(self, name: str, weights: Weights, *, size: int, preprocessing: str) -> None:
        """Load a network from its file; raises UsageError."""
        self.input_shape = (self.batch_size, size, size, 3)
        with _unpacked(name, weights) as (place, own):
            if own.kind == ONNX:
                self._load_onnx(place, own, weights, preprocessing)
            else:
                self._load_own_keras(place, own, weights, preprocessing)

    def _load_onnx(
        self, place: Path, own: OwnNetwork, weights: Weights, preprocessing: str
    ) -> None:
        from framebank.features.network.onnx_file import load_onnx

        if self.precision != "float32":
            raise UsageError(
                f"onnxruntime computes as the file says, not in {self.precision}",
                got=f"--precision {self.precision}",
                todo="use --precision float32",
            )
        run, batch = load_onnx(place, self.layer, weights.source)

        def call(images: Images) -> Features:
            pixels = images if preprocessing == "none" else images.astype(np.float32)
            pixels = preprocess(pixels, preprocessing)
            return run(np.moveaxis(pixels, 3, 1) if own.channels_first else pixels)

        self._on_gpu = False
        self._call, self._step = call, batch or COMPUTE_BATCH
        self.feature_dim = self(np.zeros(self.input_shape, np.uint8)).shape[1]
        graph = self._own_key(weights, preprocessing)
        self._settle(
            lambda step, precision: call,
            step=self._step,
            fixed=batch,
            graph=graph,
            source=weights.source,
        )

    def _load_own_keras(
        self, place: Path, own: OwnNetwork, weights: Weights, preprocessing: str
    ) -> None:
        model, arrays = _load_own(place, own, self.layer, weights, size=self.input_shape[1])
        self.feature_dim = int(model.output.shape[-1])

        def compiled(step: int, precision: str) -> Call:
            return self._compile(
                model, arrays, preprocessing, fold=False, step=step, precision=precision
            )

        fixed, graph = model.inputs[0].shape[0], self._own_key(weights, preprocessing)
        self._settle(
            compiled, step=fixed or self._step, fixed=fixed, graph=graph, source=weights.source
        )

    def _own_key(self, weights: Weights, preprocessing: str) -> str:
        """Return the key of all that the graph of a network from a file follows from."""
        parts = (self.layer, weights.sha256, self.input_shape[1:], preprocessing)
        return graph_key("own", *parts)

    def _settle(
        self,
        compiled: Callable[[int, str], Call],
        *,
        step: int,
        graph: str,
        fixed: int | None = None,
        source: str = "this network",
    ) -> None:
        """Compute in steps of `step` images where an image has the same bits at each place of one,
        else one by one (products of a transformer go by the place on some processors), which a
        network for a `fixed` number cannot. `compiled` makes the function of so many images in a
        precision. Raises UsageError for features that look across the batch."""
        if self._on_gpu:
            self._step, self._call = step, compiled(step, self.precision)
            return
        # In more than one image even where they are computed one by one: else nothing would show.
        self._step = fixed or COMPUTE_BATCH
        self._call = compiled(self._step, self.precision)
        apart = most_apart(self, f"{graph} {self.precision}")
        if apart is None and self._step == step:
            return
        if apart is not None and (fixed or not self._rounds(apart, compiled, graph)):
            raise looks_across(source, apart)
        if not fixed:
            self._step, self._call = 1, compiled(1, self.precision)

    def _rounds(self, apart: Apart, compiled: Callable[[int, str], Call], graph: str) -> bool:
        """Tell whether features are apart by rounding alone; that of bfloat16 is as coarse as what
        looks across a batch may be, so float32 tells of it."""
        if self.precision != "bfloat16":
            return is_rounding(apart)
        coarse, self._call = self._call, compiled(self._step, "float32")
        exact = most_apart(self, f"{graph} float32")
        self._call = coarse
        return exact is None or is_rounding(exact)

    def _compile(
        self,
        model: Any,
        arrays: LayerArrays,
        preprocessing: str,
        *,
        step: int = COMPUTE_BATCH,
        precision: str | None = None,
        fold: bool = True,
    ) -> Call:
        import keras

        precision, backend = precision or self.precision, keras.backend.backend()
        if backend == "tensorflow":
            shape = (step, *self.input_shape[1:])
            frozen = _trace(model, arrays, preprocessing, shape=shape, fold=fold)
            return start(frozen, precision=precision)
        if precision != "float32":
            raise UsageError(
                f"{precision} needs Keras on TensorFlow",
                got=f"KERAS_BACKEND={backend}",
                expected="KERAS_BACKEND=tensorflow, or --precision float32",
            )
        for layer in model.layers:
            if layer.weights:
                layer.load_own_variables({str(i): a for i, a in enumerate(arrays[layer.name])})
        if backend == "jax":
            return compile_function(model, preprocess=lambda rgb: preprocess(rgb, preprocessing))
        return lambda images: np.asarray(
            model.predict_on_batch(preprocess(images.astype(np.float32), preprocessing)), np.float32
        )


def frozen_of_table(row: Backbone, layer: str, weights: Weights) -> tuple[Frozen, str]:
    """Return the graph of a network of the table, for any number of images at a time, and the key
    of all that it follows from: as it was kept on this machine, or made by Keras, and kept."""
    shape = (None, *row.input_shape)
    key = _kept_key(row, layer, weights, shape)
    found = kept.load(key)
    if found is not None:
        return Frozen.from_kept(*found), key
    import_tensorflow()
    with without_values():
        model, arrays = _load(row, layer, weights)
    frozen = _trace(model, arrays, row.preprocessing, shape=shape)
    kept.keep(key, *frozen.to_kept())
    return frozen, key


def frozen_of_file(
    name: str, layer: str, weights: Weights, *, size: int, preprocessing: str
) -> Frozen | None:
    """Return the graph of a network from a file that Keras runs, for steps of COMPUTE_BATCH images
    or of the number that it is for; None for another kind of file. Raises UsageError."""
    with _unpacked(name, weights) as (place, own):
        if own.kind == ONNX or keras_backend() != "tensorflow":
            return None
        model, arrays = _load_own(place, own, layer, weights, size=size)
        shape = (model.inputs[0].shape[0] or COMPUTE_BATCH, size, size, 3)
        return _trace(model, arrays, preprocessing, shape=shape, fold=False)


@contextlib.contextmanager
def _unpacked(name: str, weights: Weights) -> Iterator[tuple[Path, OwnNetwork]]:
    """Yield where the network called `name` lies while it is read from the file of `weights`, and
    what it is; raises UsageError for another, or what is not one."""
    path = weights.unchanged("the file of the network")
    own = describe(path, weights.source)
    if own.name != name:
        raise UsageError("another network than the spec's", got=own.name, expected=name)
    with temporary.live_folder() as folder, loading(weights.source):
        yield unpack(path, folder.path), own


def _load_own(
    place: Path, own: OwnNetwork, layer: str, weights: Weights, *, size: int
) -> tuple[Any, LayerArrays]:
    """Return the `keras.Model` of a network unpacked at `place`, for RGB images of size × size and
    ending in `layer`, and its weights by the name of the layer."""
    from framebank.features.network.keras_file import load_images

    channels_first = own.channels_first
    model = load_images(place, layer, weights.source, size=size, channels_first=channels_first)
    return model, {part.name: [np.asarray(v) for v in part.variables] for part in model.layers}


def _prepare_gpus() -> bool:
    """Return whether Keras's backend has a GPU, after telling TensorFlow to take its memory only as
    it needs it. Under another backend TensorFlow is left asleep: it would take the GPU's memory."""
    backend = keras_backend()
    if backend == "jax":
        return jax_on_gpu()
    if backend != "tensorflow":
        return False
    gpus = import_graphs().config.list_physical_devices("GPU")
    for gpu in gpus:
        # Refused once a GPU is in use: then the caller has settled the matter before us.
        with contextlib.suppress(RuntimeError, ValueError):
            import tensorflow as tf

            tf.config.experimental.set_memory_growth(gpu, True)
    return bool(gpus)


def _kept_key(row: Backbone, layer: str, weights: Weights, shape: tuple[int | None, ...]) -> str:
    """Return the key of all that the graph of a network of the table follows from."""
    return graph_key("graph", row, layer, weights.sha256, shape)


def _trace(
    model: Any,
    arrays: LayerArrays,
    preprocessing: str,
    *,
    shape: tuple[int | None, ...],
    fold: bool = True,
) -> Frozen:
    return trace(
        model,
        arrays,
        preprocess=lambda images: preprocess(images, preprocessing, flip=_flip_tensor),
        shape=shape,
        fold=fold,
    )


def _flip_tensor(images: Any) -> Any:
    import tensorflow as tf

    return tf.reverse(images, axis=[-1])  # a slice with a negative step takes three times as long


def _load(backbone: Backbone, layer: str, weights: Weights) -> tuple[Any, LayerArrays]:
    """Return the `keras.Model` that ends in `layer`, and its weights by the name of the layer."""
    import_tensorflow()
    import keras

    whole = backbone.build()
    model = keras.Model(whole.inputs, feature_output(backbone, whole, layer))
    layers = named_layers(whole)
    wanted = {id(part) for part in model.layers}
    needed = {name for name, part in layers.items() if id(part) in wanted and part.weights}
    arrays = layer_arrays(weights, backbone=backbone, layers=layers, needed=needed)
    return model, {layers[name].name: values for name, values in arrays.items()}
