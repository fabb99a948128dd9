"""The table of backbones, their widths, and the names of layers."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.features.network.backbones import (
    BACKBONES,
    check_layer,
    feature_output,
    find_backbone,
    named_layers,
)
from framebank.features.network.weights import weight_names

MODULES = {"ResNet50": "resnet", "ResNet50V2": "resnet"}  # application → module of its hashes


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return BACKBONES["mobilenet_v2"].build()


@pytest.mark.parametrize("name", BACKBONES)
def test_width_of_the_default_layer(name: str) -> None:
    row = BACKBONES[name]
    model = row.build()
    assert feature_output(row, model, row.layer).shape == (None, row.feature_dim)
    frames = (row.clip_length,) if row.clip_length > 1 else ()
    assert model.input.shape == (None, *frames, row.input_size, row.input_size, 3)
    assert len(named_layers(model)) == len(model.layers)  # no two layers share a name
    for layer in model.layers:  # the recipe of random weights knows every layer
        assert len(weight_names(layer)) == len(layer.weights)


@pytest.mark.parametrize("name", BACKBONES)
def test_hashes_are_those_that_keras_checks(name: str) -> None:
    row = BACKBONES[name]
    if row.weights_md5 is None:
        pytest.skip("Keras publishes no hash for this network")
    module = MODULES.get(row.application, name)
    source = inspect.getsource(importlib.import_module(f"keras.src.applications.{module}"))
    assert row.weights_md5 in source
    assert row.weights_file.endswith(".h5")
    assert ("notop" in row.weights_file) is not row.include_top


def test_layer_names_do_not_depend_on_models_built_before() -> None:
    row = BACKBONES["mobilenet_v2"]
    first, second = row.build(), row.build()
    assert [layer.name for layer in first.layers] != [layer.name for layer in second.layers]
    assert list(named_layers(first)) == list(named_layers(second))


def test_inception_layers_are_numbered_as_in_a_fresh_process() -> None:
    code = (
        "import keras; m = keras.applications.InceptionV3(weights=None, include_top=False);"
        "print([layer.name for layer in m.layers])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fresh = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    names = list(named_layers(BACKBONES["inception_v3"].build()))
    assert names == [*fresh, "avg_pool"]
    assert {"conv2d_93", "mixed7", "mixed10"} <= set(names)


def test_a_named_layer_is_pooled(mobilenet: Any) -> None:
    row = BACKBONES["mobilenet_v2"]
    assert feature_output(row, mobilenet, "block_5_add").shape == (None, 32)
    assert feature_output(row, mobilenet, "avg_pool").shape == (None, 1280)
    assert check_layer("mobilenet_v2", "out_relu") == 1280


def test_an_unknown_layer_names_near_ones() -> None:
    with pytest.raises(UsageError, match=r"no such layer(.|\n)*block_5_ad'(.|\n)*block_5_add"):
        check_layer("mobilenet_v2", "block_5_ad")


def test_outputs_of_another_rank_are_refused() -> None:
    import keras

    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Reshape((16, 3), name="tokens")(inputs))
    with pytest.raises(UsageError, match=r"tokens of mobilenet_v2 gives no feature"):
        feature_output(BACKBONES["mobilenet_v2"], model, "tokens")


def test_an_unknown_backbone_lists_all() -> None:
    with pytest.raises(UsageError, match=r"inception_v3 \| resnet50(.|\n)*inception_v3"):
        find_backbone("inception")


def test_the_default_layer_costs_no_import() -> None:
    code = (
        "import sys; from framebank.features.network.backbones import check_layer;"
        "assert check_layer('vgg16', 'fc2') == 4096;"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_settings_of_the_user_neither_matter_nor_change() -> None:
    import keras

    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = BACKBONES["mobilenet_v2"].build()
        assert model.output.dtype == "float32"
        assert model.input.shape == (None, 224, 224, 3)
        assert keras.config.image_data_format() == "channels_first"
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_dtype_policy("float32")
