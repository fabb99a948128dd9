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
import importlib.metadata
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from framebank.features.errors import UsageError
from framebank.features.machine import processor, usable_cores
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
from framebank.features.network.keras_choice import keras_backend
from framebank.features.network.own_files import (
    ONNX,
    OwnNetwork,
    describe,
    is_own,
    loading,
    unpack,
)
from framebank.features.network.preprocessing import preprocess
from framebank.features.network.weight_files import layer_arrays
from framebank.features.network.weights import Weights
from framebank.features.spec import INT8, PRECISIONS
from framebank.features.stores import disk, kept, temporary
from framebank.features.tensorflow_import import (
    computes_by_onednn,
    import_graphs,
    import_tensorflow,
    tensorflow_version,
)

COMPUTE_BATCH = 8  # images per step on a processor; another number may change features' last bits
_ROUNDING = 1e-4  # of the largest value; a network that looks across its batch differs by more
WIDE_STEP = 32  # in bfloat16, where each step begins with turning all weights into it


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
        for an unknown backbone, layer or precision, or unfit weights."""
        if precision not in PRECISIONS:
            raise UsageError("no such precision", got=precision, expected=" | ".join(PRECISIONS))
        if batch_size < 1:
            raise UsageError("a batch needs an image", got=batch_size, expected="1 or more")
        self.layer, self.precision, self.batch_size = layer, precision, batch_size
        self._on_gpu = precision != INT8 and _prepare_gpus()
        # On a GPU the next batch is moved there while one is computed.
        self.in_flight = streams() if precision == INT8 else 2 if self._on_gpu else 1
        self._computing = threading.Semaphore(self.in_flight)
        self._step = batch_size if self._on_gpu else _steady_step(precision)
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
            self._call = self._compile(model, arrays, row.preprocessing)
            return
        frozen, key = frozen_of_table(row, self.layer, weights)
        self.feature_dim = frozen.feature_dim
        if self.precision != "bfloat16" or self._on_gpu:
            self._call = start(frozen, precision=self.precision)
            return
        known = kept.load(_fact_key("computes", key)) is not None
        self._call = start(frozen, precision=self.precision, is_known=known)
        if not known:
            kept.keep(_fact_key("computes", key), True, {})
        if row.clip_length == 1 and self.batch_size >= WIDE_STEP and self._widens(key):
            self._wide = WIDE_STEP

    def _widens(self, graph: str) -> bool:
        """Tell whether images have the same bits in steps of WIDE_STEP as in those of COMPUTE_BATCH
        on this processor: which kernels compute a step goes by its shape, not by what it holds."""
        return _looked_at_once(_fact_key("wide", graph), self._agrees_in_wide_steps)

    def _agrees_in_wide_steps(self) -> bool:
        shape = (WIDE_STEP, *self.input_shape[1:])
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return self.compute(images).tobytes() == self._compute_step(images).tobytes()

    def _own(self, name: str, weights: Weights, *, size: int, preprocessing: str) -> None:
        """Load a network from its file; raises UsageError."""
        self.input_shape = (self.batch_size, size, size, 3)
        with _unpacked(name, weights) as (place, own):
            if own.kind == ONNX:
                self._load_onnx(place, own, weights.source, preprocessing)
            else:
                self._load_own_keras(place, own, weights, preprocessing)

    def _load_onnx(self, place: Path, own: OwnNetwork, source: str, preprocessing: str) -> None:
        from framebank.features.network.onnx_file import load_onnx

        if self.precision != "float32":
            raise UsageError(
                f"onnxruntime computes as the file says, not in {self.precision}",
                got=f"--precision {self.precision}",
                todo="use --precision float32",
            )
        run, batch = load_onnx(place, self.layer, source)
        self._step = batch or COMPUTE_BATCH

        def call(images: Images) -> Features:
            pixels = images if preprocessing == "none" else images.astype(np.float32)
            pixels = preprocess(pixels, preprocessing)
            return run(np.moveaxis(pixels, 3, 1) if own.channels_first else pixels)

        self._call = call
        self.feature_dim = self(np.zeros(self.input_shape, np.uint8)).shape[1]

    def _load_own_keras(
        self, place: Path, own: OwnNetwork, weights: Weights, preprocessing: str
    ) -> None:
        model, arrays = _load_own(place, own, self.layer, weights, size=self.input_shape[1])
        fixed = model.inputs[0].shape[0]
        self._step = fixed or self._step
        self.feature_dim = int(model.output.shape[-1])
        self._call = self._compile(model, arrays, preprocessing, fold=False)
        if fixed or self._on_gpu or self._step == 1:
            return
        made = (self.layer, self.input_shape[1:], preprocessing, self.precision)
        if self._rounds_by_place(f"{weights.sha256} {made} {usable_cores()}"):
            self._step = 1
            self._call = self._compile(model, arrays, preprocessing, fold=False)

    def _rounds_by_place(self, graph: str) -> bool:
        """Tell whether on this processor the last bits of a feature go by what is computed with its
        frame, which steps of one image mend (products of a transformer do so on some)."""

        def rounds() -> bool:
            apart = list(_apart(self))
            return bool(apart) and all(worst <= _ROUNDING * most for worst, most, _ in apart)

        return _looked_at_once(_fact_key("rounds", graph), rounds)

    def _compile(
        self, model: Any, arrays: LayerArrays, preprocessing: str, *, fold: bool = True
    ) -> Call:
        import keras

        backend = keras.backend.backend()
        if backend == "tensorflow":
            shape = (self._step, *self.input_shape[1:])
            frozen = _trace(model, arrays, preprocessing, shape=shape, fold=fold)
            return start(frozen, precision=self.precision)
        if self.precision != "float32":
            raise UsageError(
                f"{self.precision} needs Keras on TensorFlow",
                got=f"KERAS_BACKEND={backend}",
                expected="KERAS_BACKEND=tensorflow, or --precision float32",
            )
        for layer in model.layers:
            if layer.weights:
                layer.load_own_variables({str(i): a for i, a in enumerate(arrays[layer.name])})
        if backend == "jax":
            from framebank.features.network.jax_function import compile_function

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
    path = Path(weights.local_path or "")
    if disk.file_hash(path) != weights.sha256:
        raise UsageError(
            "the file of the network changed while it was in use",
            got=f"{path} with another SHA-256",
            expected=weights.sha256,
        )
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
    import_tensorflow()
    import keras

    from framebank.features.network.keras_file import load_keras, load_preset, with_output

    source = weights.source
    whole = load_preset(place, source) if place.is_dir() else load_keras(place)
    model = with_output(whole, layer, source)
    if own.channels_first:
        images = keras.Input((size, size, 3), dtype=model.inputs[0].dtype)
        model = keras.Model(images, model(keras.ops.transpose(images, (0, 3, 1, 2))))
    return model, {part.name: [np.asarray(v) for v in part.variables] for part in model.layers}


def _steady_step(precision: str) -> int:
    """Return in what steps a processor gives an image the same bits at each place."""
    if precision == INT8 or keras_backend() != "tensorflow" or computes_by_onednn():
        return COMPUTE_BATCH
    return 1  # Eigen cuts a step into blocks, and adds up otherwise at the edge of one


def _prepare_gpus() -> bool:
    """Return whether Keras's backend has a GPU, after telling TensorFlow to take its memory only as
    it needs it. Under another backend TensorFlow is left asleep: it would take the GPU's memory."""
    backend = keras_backend()
    if backend == "jax":
        from framebank.features.network.jax_function import on_gpu

        return on_gpu()
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
    made_by = (tensorflow_version(), importlib.metadata.version("keras"), np.__version__)
    parts = ("graph", row, layer, weights.sha256, shape, *made_by)
    return kept.key_of(*parts, sources=sorted(Path(__file__).parent.glob("*.py")))


def _fact_key(fact: str, graph: str) -> str:
    """Return the key of what is looked at once of the graph with that key: it goes by the
    processor, by which TensorFlow there is, and by what it is told."""
    place = importlib.util.find_spec("tensorflow")
    installed = Path(place.origin).stat() if place is not None and place.origin else None
    build = () if installed is None else (installed.st_mtime_ns, installed.st_ino)
    told = sorted(os.environ.items())
    settings = [f"{k}={v}" for k, v in told if "DNN" in k or k.startswith("TF_AUTO_MIXED")]
    return kept.key_of(fact, graph, WIDE_STEP, COMPUTE_BATCH, processor(), *build, *settings)


def _looked_at_once(key: str, look: Callable[[], bool]) -> bool:
    """Return what `look` said on this machine when it was first called for `key`."""
    if (found := kept.load(key)) is not None:
        return bool(found[0])
    said = look()
    kept.keep(key, said, {})
    return said


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


def check_alone(network: Network, source: str) -> None:
    """Raise UsageError, which names `source`, unless a frame's feature has the same bytes whatever
    else is in its batch, wherever in it the frame is, and again."""
    for worst, most, what in _apart(network):
        raise UsageError(
            f"the features that {source} gives of a frame change {what}",
            got=f"differences of up to {worst:.2g} in features of up to {most:.2g}",
            expected="features that depend on their own frame alone, to the last bit",
            todo="take out what looks across the batch (batch norm in training mode, noise), "
            "or export the network with a fixed batch of 1",
        )


def _apart(network: Network) -> Iterator[tuple[float, float, str]]:
    """Yield in what, in features of how much, and with what the features of a frame change."""
    count = max(COMPUTE_BATCH, network._step)
    # Of each picture another darkest and brightest pixel and another contrast, none of them as
    # black as what fills a batch: a scale taken from the whole batch shows.
    rank = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) % COMPUTE_BATCH
    noise = np.random.default_rng(0).integers(
        0, 256, (count, *network.input_shape[1:]), dtype=np.uint8
    )
    images = (8 + rank + noise * ((rank + 4) / 12)).astype(np.uint8)
    first = network.compute(images)

    def told() -> Iterator[tuple[Features, str]]:
        yield network.compute(images), "from one time to the next"
        others = "with what else is in the batch"
        yield np.roll(network.compute(np.roll(images, 1, axis=0)), -1, axis=0), others
        for place in range(min(2, count)):
            alone, again = np.zeros_like(images), first.copy()
            alone[place] = images[place]
            again[place] = network.compute(alone)[place]
            yield again, others

    for again, what in told():
        if again.tobytes() != first.tobytes():
            with np.errstate(invalid="ignore"):
                worst = float(np.nanmax(np.abs(again - first)))
            yield worst, float(np.nanmax(np.abs(first))), what
