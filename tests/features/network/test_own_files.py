"""Networks from files: what they state, their features against the library's own, their hash, and
that nothing in a hostile one runs."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.features.extraction.one_clip import build_network, feature_width, make_spec
from framebank.features.network import frozen_network, steadiness
from framebank.features.network.frozen_network import Network
from framebank.features.network.own_files import is_own_path
from framebank.features.network.preprocessing import NAMES, affine, preprocess
from framebank.features.network.steadiness import fact_key
from framebank.features.network.weights import Weights, localise_weights, publish_weights
from framebank.features.spec import FeatureSpec, SpecChoice

SIDE = 16


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))


def choose(path: Path, **options: Any) -> tuple[FeatureSpec, Weights]:
    return make_spec(SpecChoice(backbone=str(path), **options))


def pictures(count: int = 20, size: int = SIDE) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def build(path: Path, batch_size: int = 20, **options: Any) -> Network:
    spec, weights = choose(path, **options)
    assert feature_width(spec, weights) > 0
    return build_network(spec, weights, batch_size=batch_size)


def check_any_batch(path: Path, **options: Any) -> np.ndarray:
    """Return the features of `pictures()`, the same bytes in batches of 1, 3 and 20."""
    images = pictures()
    whole = build(path, **options)(images)
    for size in (1, 3):
        network = build(path, batch_size=size, **options)
        parts = [network(images[at : at + size]) for at in range(0, 18, size)]
        assert np.concatenate(parts).tobytes() == whole[:18].tobytes()
    return whole


def small_keras(**more: Any) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    given = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(6, 3, use_bias=False, name="first")(given)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation("silu")(x)
    x = layers.Add()([x, x * 0.5])
    x = layers.Reshape((-1, 6), name="tokens")(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.LayerNormalization()(x)
    return keras.Model(given, x, name="small-net")


def test_a_keras_file_gives_what_keras_gives(tmp_path: Path) -> None:
    model = small_keras()
    model.save(tmp_path / "a.keras")
    features = check_any_batch(tmp_path / "a.keras", preprocess="scale_0_1")
    expected = model.predict(pictures().astype(np.float32) / 255, verbose=0).mean(axis=1)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    map_ = check_any_batch(tmp_path / "a.keras", preprocess="scale_0_1", layer="first")
    assert map_.shape == (20, 6)


def test_a_moved_file_has_its_fingerprint_and_another_has_none_of_it(tmp_path: Path) -> None:
    model = small_keras()
    model.save(tmp_path / "a.keras")
    (tmp_path / "sub").mkdir()
    shutil.copy(tmp_path / "a.keras", tmp_path / "sub" / "b.keras")
    first, _ = choose(tmp_path / "a.keras", preprocess="none")
    assert first == choose(tmp_path / "sub" / "b.keras", preprocess="none")[0]
    assert first.backbone == "keras:small-net" and first.input_size == SIDE
    assert first.fingerprint != choose(tmp_path / "a.keras", preprocess="clip")[0].fingerprint
    model.layers[1].set_weights([w + 1 for w in model.layers[1].get_weights()])
    model.save(tmp_path / "c.keras")
    assert choose(tmp_path / "c.keras", preprocess="none")[0].fingerprint != first.fingerprint


def test_workers_get_the_file_through_the_cache(tmp_path: Path) -> None:
    small_keras().save(tmp_path / "a.keras")
    spec, weights = choose(tmp_path / "a.keras", preprocess="none")
    published = publish_weights(weights, str(tmp_path / "cache"))
    (tmp_path / "a.keras").unlink()
    here = localise_weights(published)
    assert here.local_path == str(tmp_path / "cache" / "weights" / f"{weights.sha256}.keras")
    assert build_network(spec, here, batch_size=2)(pictures(2)).shape == (2, 6)


def test_what_a_file_states_and_what_must_be_declared(tmp_path: Path) -> None:
    import keras

    def save(name: str, shape: tuple[int | None, ...], *more: Any) -> Path:
        layers = [keras.Input(shape), *more, keras.layers.Conv2D(2, 1)]
        keras.Sequential(layers).save(tmp_path / name)
        return tmp_path / name

    scaled = save("scaled.keras", (SIDE, SIDE, 3), keras.layers.Rescaling(1 / 255))
    assert choose(scaled)[0].preprocessing == "none"
    whole = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    flat = keras.ops.mean(keras.ops.cast(whole, "float32"), axis=(1, 2))
    keras.Model(whole, flat).save(tmp_path / "whole.keras")
    np.testing.assert_allclose(
        build(tmp_path / "whole.keras")(pictures()), pictures().mean((1, 2)), rtol=1e-4
    )
    with pytest.raises(UsageError, match="it takes pixels from 0 to 255"):
        choose(tmp_path / "whole.keras", preprocess="clip")
    any_size = save("any.keras", (None, None, 3))
    with pytest.raises(UsageError, match="--input-size N"):
        choose(any_size, preprocess="none")
    assert choose(any_size, preprocess="none", input_size=12)[0].input_size == 12
    assert build(any_size, preprocess="none", input_size=12)(pictures(20, 12)).shape == (20, 2)
    with pytest.raises(UsageError, match="--preprocess NAME"):
        choose(save("plain.keras", (SIDE, SIDE, 3)))
    with pytest.raises(UsageError, match="which the file states"):
        choose(scaled, input_size=12)
    with pytest.raises(UsageError, match="a fixed batch of 10000000"):
        choose(rewritten(scaled, lambda config, _: _first(config).update(
            batch_shape=[10**7, SIDE, SIDE, 3])))  # fmt: skip
    with pytest.raises(UsageError, match="it does not load"):
        build(rewritten(scaled, lambda config, _: (
            _first(config).update(batch_shape=[None, SIDE, SIDE, 3]),
            config["config"]["layers"][1]["config"].update(scale="a word"))))  # fmt: skip
    with pytest.raises(UsageError, match="square RGB"):
        choose(save("wide.keras", (8, SIDE, 3)))
    with pytest.raises(UsageError, match="weights in it"):
        choose(any_size, weights="random:0")
    with pytest.raises(UsageError, match="from a file"):
        make_spec(SpecChoice(weights="random:0", preprocess="none"))
    with pytest.raises(UsageError, match="no such backbone"):
        choose(tmp_path / "absent.keras")


def test_named_preprocessing_by_hand() -> None:
    pixel = np.array([[[[255, 0, 51]]]], np.float32)
    by_hand = {
        "none": [255, 0, 51],
        "scale_0_1": [1, 0, 0.2],
        "scale_-1_1": [1, -1, -0.6],
        "imagenet": [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225],
        "clip": [
            (1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258,
            (0.2 - 0.40821073) / 0.27577711,
        ],
        "caffe_bgr_mean": [51 - 103.939, -116.779, 255 - 123.68],
        affine([0.1, 1.0, 2.0], [1.0, -3.0, 0.5]): [26.5, -3, 102.5],
    }  # fmt: skip
    assert set(NAMES) < set(by_hand)
    for name, expected in by_hand.items():
        np.testing.assert_allclose(preprocess(pixel, name)[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("step", [8, 1])
def test_a_feature_that_looks_across_its_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Also where images are computed one by one, which other machines would not do."""
    import keras
    from keras import layers

    monkeypatch.setattr(frozen_network, "steady_step", lambda precision: step)
    given = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(given)
    keras.Model(given, x - keras.ops.mean(x, axis=0, keepdims=True)).save(tmp_path / "across.keras")
    keras.Model(given, given / keras.ops.max(given)).save(tmp_path / "scaled.keras")
    keras.Model(given, layers.BatchNormalization()(x, training=True)).save(tmp_path / "norm.keras")
    keras.Model(given, layers.Dropout(0.5)(x, training=True)).save(tmp_path / "noise.keras")
    for name in ("across", "scaled"):
        with pytest.raises(UsageError, match="of a frame change with what else is in the batch"):
            build(tmp_path / f"{name}.keras", preprocess="none")
        for _ in range(2):  # a worker, and one that finds it looked at
            with pytest.raises(UsageError, match="what else is in the batch"):
                build_network(*choose(tmp_path / f"{name}.keras", preprocess="none"))
    for name in ("norm", "noise"):  # a frozen network infers, whatever it was called with
        assert build(tmp_path / f"{name}.keras", preprocess="none").step == step


def test_channels_first_with_a_fixed_batch(tmp_path: Path) -> None:
    import keras

    given = keras.Input(batch_shape=(3, 3, SIDE, SIDE))
    x = keras.layers.Flatten()(given)
    keras.Model(given, keras.layers.Dense(4)(x)).save(tmp_path / "a.keras")
    network = build(tmp_path / "a.keras", preprocess="none")
    images = pictures()
    assert network.step == 3
    expected = keras.saving.load_model(tmp_path / "a.keras").predict_on_batch(
        np.moveaxis(images[:3].astype(np.float32), 3, 1)
    )
    np.testing.assert_allclose(network(images)[:3], expected, rtol=1e-4, atol=1e-3)


def test_what_was_looked_at_goes_by_what_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {fact_key("apart", "graph"), fact_key("apart", "other"), fact_key("wide", "graph")}
    for name, value in (("TF_NUM_INTRAOP_THREADS", "1"), ("KERAS_BACKEND", "jax")):
        monkeypatch.setattr(steadiness, "keras_backend", lambda: os.environ.get("KERAS_BACKEND"))
        monkeypatch.setenv(name, value)
        keys.add(fact_key("apart", "graph"))
    monkeypatch.setattr(steadiness, "usable_cores", lambda quota=True: 64)
    keys.add(fact_key("apart", "graph"))
    assert len(keys) == 6


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_network_that_was_trained_is_taken_with_what_scales_its_pixels(tmp_path: Path) -> None:
    import keras
    from keras import layers

    given = keras.Input((SIDE, SIDE, 3))
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(4, 3)], name="inner")
    inner.compile("adam", "mse", ["mae"])
    x = layers.Normalization(mean=[100.0, 110, 120], variance=[50.0, 60, 70])(given)
    model = keras.Model(given, layers.GlobalMaxPooling2D()(inner(x)))
    model.compile("sgd", loss=lambda truth, said: said)
    model.save(tmp_path / "a.keras")
    assert choose(tmp_path / "a.keras")[0].preprocessing == "none"
    features = build(tmp_path / "a.keras")(pictures())
    expected = model.predict(pictures().astype(np.float32), verbose=0)
    np.testing.assert_allclose(features, expected, rtol=1e-4)


def _first(config: dict[str, Any]) -> dict[str, Any]:
    return config["config"]["layers"][0]["config"]  # type: ignore[no-any-return]


def rewritten(path: Path, change: Any) -> Path:
    """Write a .keras file again, its description changed."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    change(config, files)
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def hostile(kind: str, mark: Path) -> Any:
    """Return a change of a description that would make `mark`, or read a file, if it were run."""
    code = {"class_name": "__lambda__", "config": {"value": "AAAA"}}
    function = {"module": "os", "class_name": "function", "config": "system",
                "registered_name": "system"}  # fmt: skip
    fetched = {"module": "keras.utils", "class_name": "function", "config": "get_file",
               "registered_name": "get_file"}  # fmt: skip
    layers: dict[str, dict[str, Any]] = {
        "lambda": {"module": "keras.layers", "class_name": "Lambda",
                   "config": {"name": "x", "function": code}},
        "lambda by its inner name": {"module": "keras.src.layers.core.lambda_layer",
                                     "class_name": "Lambda", "config": {"function": function}},
        "function": {"module": "keras.layers", "class_name": "Activation",
                     "config": {"name": "x", "activation": function}},
        "get_file": {"module": "keras.layers", "class_name": "Activation",
                     "config": {"name": "x", "activation": fetched}},
        "TFSMLayer": {"module": "keras.layers", "class_name": "TFSMLayer",
                      "config": {"filepath": str(mark.parent)}},
        "vocabulary": {"module": "keras.layers", "class_name": "StringLookup",
                       "config": {"vocabulary": "/etc/passwd"}},
        "another module": {"module": "subprocess", "class_name": "Popen",
                           "config": {"args": ["touch", str(mark)]}},
        "registered": {"module": None, "class_name": "Evil", "config": {},
                       "registered_name": "evil>Evil"},
        "registered as Keras's": {"module": "keras.layers", "class_name": "Activation",
                                  "config": {"activation": "relu"},
                                  "registered_name": "evil>Evil"},
        "numpy in torch": {"module": "keras.layers", "class_name": "TorchModuleWrapper",
                           "config": {"module": "AAAA"}},
    }  # fmt: skip

    def change(config: dict[str, Any], files: dict[str, bytes]) -> None:
        config["config"]["layers"].insert(1, {"build_config": {}, **layers[kind]})

    return change


@pytest.mark.parametrize(
    "kind",
    ["lambda", "lambda by its inner name", "function", "get_file", "TFSMLayer", "vocabulary",
     "another module", "registered", "registered as Keras's", "numpy in torch"],
)  # fmt: skip
def test_nothing_in_a_hostile_keras_file_runs(tmp_path: Path, kind: str) -> None:
    import keras

    class Evil(keras.layers.Layer):
        def __init__(self, **config: Any) -> None:
            (tmp_path / "mark").touch()
            super().__init__()

    keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(2, 1)]).save(
        tmp_path / "a.keras"
    )
    rewritten(tmp_path / "a.keras", hostile(kind, tmp_path / "mark"))
    spec, weights = choose(tmp_path / "a.keras", preprocess="none")
    with (
        keras.saving.custom_object_scope({"evil>Evil": Evil, "Evil": Evil}),
        pytest.raises(UsageError, match=r"in it|registered object"),
    ):
        feature_width(spec, weights)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["external", "soft", "member", "torn", "text"])
def test_weights_that_lie_elsewhere_are_refused(tmp_path: Path, kind: str) -> None:
    import keras

    path = tmp_path / "a.keras"
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(2, 1)]).save(path)
    (tmp_path / "secret").write_bytes(b"x" * 1000)

    def change(config: dict[str, Any], files: dict[str, bytes]) -> None:
        if kind == "member":
            files["assets/x/vocabulary.txt"] = b"words"
            return
        if kind in ("torn", "text"):
            data = files["model.weights.h5"]
            files["model.weights.h5"] = b"no HDF5" if kind == "text" else data[: len(data) // 2]
            return
        file = io.BytesIO(files["model.weights.h5"])
        with h5py.File(file, "r+") as opened:
            place = "layers/conv2d/vars"
            del opened[place]["0"]
            if kind == "soft":
                opened[place]["0"] = h5py.ExternalLink(str(tmp_path / "secret"), "/x")
            else:
                opened[place].create_dataset(
                    "0", (1, 1, 3, 2), "f4", external=[(str(tmp_path / "secret"), 0, 24)]
                )
        files["model.weights.h5"] = file.getvalue()

    rewritten(path, change)
    told = "is damaged" if kind in ("torn", "text") else "not used as a backbone"
    with pytest.raises(UsageError, match=told):
        feature_width(*choose(path, preprocess="none"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}', '{"config": {"layers": [1]}}'])
def test_what_is_no_description_is_told(tmp_path: Path, text: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", text)
    with pytest.raises(UsageError, match="not used as a backbone"):
        choose(tmp_path / "a.keras", preprocess="none")
    (tmp_path / "b.keras").write_text(text)
    with pytest.raises(UsageError, match="not used as a backbone"):
        choose(tmp_path / "b.keras", preprocess="none")


def test_which_words_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    assert all(map(is_own_path, ("a.keras", "a.onnx", "x/y", "clip", "gs://b/a.keras")))
    assert not any(map(is_own_path, ("inception_v3", "vgg16", "typo", "pixels:64")))
