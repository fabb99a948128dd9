"""The network: the values of Keras by hand, whatever the batch, the place in it, the process."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.features.network import frozen_network
from framebank.features.network.backbones import BACKBONES
from framebank.features.network.frozen_graph import fold_batch_norm, start, trace, with_constants
from framebank.features.network.frozen_network import Network, _load, preprocess
from framebank.features.network.steadiness import COMPUTE_BATCH, WIDE_STEP
from framebank.features.network.weights import resolve_weights
from framebank.features.stores import kept
from tests import ROOT

DATA = ROOT / ".." / "shared" / "data"
NAME = "mobilenet_v2"
DIGEST_CODE = """
import hashlib, sys
import numpy as np
from framebank.features.network.frozen_network import Network
from framebank.features.network.weights import resolve_weights
from framebank.features.tensorflow_import import only_graphs
if sys.argv[2:]:
    only_graphs()
weights = resolve_weights("random:0", backbone="mobilenet_v2")
network = Network("mobilenet_v2", "avg_pool", weights, batch_size=int(sys.argv[1]))
images = np.random.default_rng(0).integers(0, 256, (8, *network.input_shape[1:]), np.uint8)
rows = [network(images[at : at + network.batch_size]) for at in range(0, 8, network.batch_size)]
print(network.step, hashlib.sha256(np.concatenate(rows).tobytes()).hexdigest())
"""


def make(layer: str = "avg_pool", weights: str = "random:0", **options: Any) -> Network:
    return Network(NAME, layer, resolve_weights(weights, backbone=NAME), **options)


def pictures(count: int, size: int = 224) -> np.ndarray:
    """uint8[count, size, size, 3]: coloured gradients and noise, each one different."""
    rng = np.random.default_rng(7)
    ramp = np.linspace(0, 1, size)
    images = np.empty((count, size, size, 3), np.uint8)
    for image in images:
        low, high = rng.uniform(0, 128, 3), rng.uniform(128, 240, 3)
        slope = np.outer(ramp ** rng.uniform(0.3, 3), ramp ** rng.uniform(0.3, 3))[..., None]
        image[:] = low + (high - low) * slope + rng.uniform(0, 15, (size, size, 3))
    return images


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def network() -> Network:
    return make(batch_size=20)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50_v2", "xception"])
def test_features_are_those_of_keras(name: str) -> None:
    row = BACKBONES[name]
    weights = resolve_weights("random:3", backbone=name)
    images = pictures(3, row.input_size)
    network = Network(name, row.layer, weights, batch_size=3)
    model, arrays = _load(row, row.layer, weights)
    for layer in model.layers:
        layer.set_weights(arrays.get(layer.name, []))
    expected = model.predict_on_batch(preprocess(images.astype(np.float32), row.preprocessing))
    features = network(images)
    assert features.shape == (3, row.feature_dim) and features.dtype == np.float32
    assert network.feature_dim == row.feature_dim
    assert cosines(features, expected).min() > 0.99999
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
    assert 1e-3 < np.abs(features).max() < 1e4  # random features fit float16


def test_batch_norm_folds_without_changing_the_function() -> None:
    import keras
    from keras import layers

    given = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, use_bias=False)(given)
    x = layers.Activation("relu")(layers.BatchNormalization(scale=False)(x))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3)(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(center=False)(x))
    x = layers.BatchNormalization()(layers.SeparableConv2D(8, 3)(x))
    x = layers.BatchNormalization()(x)  # stays: follows no convolution
    x = layers.BatchNormalization()(layers.Conv2D(8, 1, activation="relu")(x))  # stays: after ReLU
    shared = layers.Conv2D(8, 1)(x)
    x = layers.Add()([shared, layers.BatchNormalization()(shared)])  # stays: used twice
    model = keras.Model(given, layers.GlobalAveragePooling2D()(x))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        low = -0.5 if "kernel" in variable.name else 0.5
        variable.assign(rng.uniform(low, low + 1, variable.shape))
    arrays = {part.name: part.get_weights() for part in model.layers if part.weights}
    assert len(fold_batch_norm(model, arrays).skip) == 4
    images = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    frozen = trace(
        model,
        arrays,
        preprocess=lambda pixels: keras.ops.cast(pixels, "float32") / 255.0,
        shape=images.shape,
    )
    call = start(frozen, precision="float32")
    expected = model.predict_on_batch(images.astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(call(images), expected, atol=2e-5)


@pytest.mark.parametrize("fold", [True, False])
def test_a_graph_with_its_weights_in_it_has_one_input_and_gives_as_much(fold: bool) -> None:
    import keras
    import tensorflow as tf
    from keras import layers

    given = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(given)))
    model = keras.Model(given, layers.GlobalAveragePooling2D()(x))
    arrays = {part.name: [np.asarray(v) for v in part.variables] for part in model.layers}
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    frozen = trace(
        model, arrays, preprocess=lambda pixels: pixels / 255.0, shape=images.shape, fold=fold
    )
    definition = tf.compat.v1.GraphDef.FromString(b"".join(with_constants(frozen)))
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    inputs = [one.name for one in graph.get_operations() if one.type == "Placeholder"]
    assert [f"{name}:0" for name in inputs] == [frozen.images]
    with tf.compat.v1.Session(graph=graph) as session:
        found = session.run(frozen.features, {frozen.images: images})
    np.testing.assert_allclose(found, start(frozen, precision="float32")(images), rtol=1e-5)


def test_no_values_are_made_that_those_of_the_weights_replace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import keras

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no graph was kept
    made: list[tuple[int, ...]] = []
    kind, original = keras.initializers.GlorotUniform, keras.initializers.GlorotUniform.__call__

    def call(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        made.append(tuple(shape))
        return original(self, shape, dtype)

    monkeypatch.setattr(kind, "__call__", call)
    make(layer="block_5_add")  # with a pool after it, which Keras tries in a scope of its own
    assert made == []
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert made == [(3, 2)]  # and not those of the network, later


def test_preprocessing_is_that_of_keras() -> None:
    import keras

    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    for module, name in (
        ("inception_v3", "inception_v3"),
        ("xception", "xception"),
        ("resnet_v2", "resnet50_v2"),
        ("mobilenet_v2", "mobilenet_v2"),
        ("resnet", "resnet50"),
        ("vgg16", "vgg16"),
        ("vgg19", "vgg19"),
    ):
        expected = getattr(keras.applications, module).preprocess_input(images.astype(np.float32))
        got = preprocess(images.astype(np.float32), BACKBONES[name].preprocessing)
        np.testing.assert_array_equal(got, expected)


def test_a_feature_depends_on_its_own_frame_alone(network: Network) -> None:
    frame, others = pictures(1)[0], pictures(21)[1:]
    # 20 is no multiple of COMPUTE_BATCH: the last step is filled up.
    rests = (others, np.zeros_like(others), np.full_like(others, 255))
    tried = [(rest, place) for place in (0, 1, 9, 19) for rest in rests]
    tried += [(others[:COMPUTE_BATCH], place) for place in range(COMPUTE_BATCH)]
    expected = None
    for rest, place in tried:
        batch = rest.copy()
        batch[place] = frame
        feature = network(batch)[place].tobytes()
        expected = expected or feature
        assert feature == expected, place


def test_a_feature_does_not_depend_on_the_batch_size(network: Network) -> None:
    images = pictures(20)
    expected = network(images)
    for batch_size in (1, COMPUTE_BATCH):
        other = make(batch_size=batch_size)
        np.testing.assert_array_equal(other(images[:batch_size]), expected[:batch_size])


@pytest.mark.parametrize(
    ("onednn", "threads", "step"), [({}, "13", 8), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "22", 1)]
)
def test_processes_and_threads_agree(onednn: dict[str, str], threads: str, step: int) -> None:
    """On every x86 oneDNN computes unless it is told not to; without, steps are of one image."""
    if platform.machine() != "x86_64":
        pytest.skip("oneDNN is asked for on x86 only")
    bare = {name: value for name, value in os.environ.items() if "ONEDNN" not in name}
    said = set()
    for words, count in zip((["1"], ["9", "graphs"]), threads, strict=True):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST_CODE, *words],
            env=bare | onednn | {"TF_NUM_INTRAOP_THREADS": count, "OMP_NUM_THREADS": count},
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout.strip())
    (one,) = said
    assert one.startswith(f"{step} ") and len(one) == 66


def test_networks_in_one_process_keep_their_own_weights(network: Network) -> None:
    images = pictures(20)
    before = network(images)
    other = make(weights="random:1", batch_size=20)(images)
    np.testing.assert_array_equal(network(images), before)
    assert cosines(before, other).max() < 0.999


def test_a_named_layer_is_pooled() -> None:
    network = make("block_5_add", batch_size=2)
    assert network(pictures(2)).shape == (2, network.feature_dim) == (2, 32)


def test_bfloat16_is_near_and_leaves_the_process_alone(network: Network) -> None:
    images = pictures(20)
    before = network(images)
    try:
        rough = make(precision="bfloat16", batch_size=20)
    except UsageError as err:
        pytest.skip(f"this processor cannot: {err.what}")
    features = rough(images)
    assert not np.array_equal(features, before)
    assert cosines(features, before).min() > 0.995
    np.testing.assert_array_equal(make(batch_size=20)(images), before)


def test_wide_steps_give_the_same_bits_or_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = pictures(WIDE_STEP + COMPUTE_BATCH + 1)
    try:
        narrow = make(precision="bfloat16", batch_size=WIDE_STEP - 1)
    except UsageError as err:
        pytest.skip(f"this processor cannot: {err.what}")
    wide = make(precision="bfloat16")
    assert narrow.step == COMPUTE_BATCH and wide.step in (COMPUTE_BATCH, WIDE_STEP)
    np.testing.assert_array_equal(wide.compute(images), narrow.compute(images))
    compute = Network.compute
    monkeypatch.setattr(Network, "compute", lambda *_: pytest.fail("looked at again"))
    assert make(precision="bfloat16").step == wide.step  # kept
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(Network, "compute", lambda *given: compute(*given) + np.float32(1))
    assert make(precision="bfloat16").step == COMPUTE_BATCH  # other bits


def test_another_keras_backend_gives_the_same_values(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    images = pictures(20)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    other = make(batch_size=20)
    assert cosines(other(images), network(images)).min() > 0.99999
    with pytest.raises(UsageError, match=r"needs Keras on TensorFlow(.|\n)*torch"):
        make(precision="bfloat16")


def test_keras_on_jax_gives_the_same_values(network: Network, tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="JAX is not installed; `make bench` has it")
    code = f"""
import numpy as np
from tests.features.network.test_frozen_network import make, pictures
network = make(batch_size=8)
np.save({str(tmp_path / "all.npy")!r}, network(pictures(8)))
np.save({str(tmp_path / "turned.npy")!r}, network(np.roll(pictures(8), 3, axis=0)))
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, timeout=300)
    features = np.load(tmp_path / "all.npy")
    assert cosines(features, network(pictures(20))[:8]).min() > 0.99999
    np.testing.assert_array_equal(np.load(tmp_path / "turned.npy"), np.roll(features, 3, axis=0))


def test_a_graph_that_was_kept_gives_the_same_bytes_and_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = pictures(8)
    built: list[str] = []
    load = frozen_network._load

    def noted(row: Any, layer: str, weights: Any) -> Any:
        built.append(layer)
        return load(row, layer, weights)

    def features() -> bytes:
        return make("block_1_expand", batch_size=8)(images).tobytes()

    monkeypatch.setattr(frozen_network, "_load", noted)
    first = features()
    assert features() == first and len(built) == 1
    (entry,) = kept.folder().iterdir()
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    entry.write_bytes(data)
    assert features() == first and len(built) == 2  # what is damaged is made anew


def test_mistakes_are_said(network: Network) -> None:
    with pytest.raises(ValueError, match=r"uint8\(21, 224, 224, 3\), expected uint8\(20, 224"):
        network(pictures(21))
    with pytest.raises(ValueError, match="got float32"):
        network(pictures(20).astype(np.float32))
    with pytest.raises(UsageError, match="no such precision"):
        make(precision="float8")
    with pytest.raises(UsageError, match="needs an image"):
        make(batch_size=0)


def test_real_weights_give_the_features_of_keras_by_hand() -> None:
    path = DATA / "weights" / "inception_v3_2015_partial.weights.h5"
    if not path.exists():
        pytest.skip("../shared/data is not here")
    import av
    import keras

    clip = sorted((DATA / "clips" / "natural").glob("*.mp4"))[0]
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
    image = frame.reformat(299, 299, "rgb24").to_ndarray()[None]
    weights = resolve_weights(str(path), backbone="inception_v3")
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    features = Network("inception_v3", "avg_pool", weights, batch_size=1)(image)
    model = keras.applications.InceptionV3(include_top=False, weights=path, pooling="avg")
    by_hand = model.predict_on_batch(
        keras.applications.inception_v3.preprocess_input(image.astype(np.float32))
    )
    assert features.shape == (1, 2048)
    assert cosines(features, by_hand).min() > 0.99999
