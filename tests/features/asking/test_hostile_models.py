"""A `.keras` file from somewhere else: loading it runs nothing and reads no other file.

tests/whole/test_lowest_versions.py runs them on the lowest versions that setup.py allows.
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from framebank.features.asking.trained_model import load_model
from framebank.features.errors import UsageError
from tests.made.made_cache import SPEC
from tests.made.made_model import make_model

Layer = dict[str, Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("sound") / "model", SPEC, width=8)


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "model")
    (tmp_path / "secret.txt").write_text("unloading\n")
    return tmp_path / "model"


def _change(model: Path, member: str, change: Callable[[bytes], bytes]) -> None:
    path = model / "model.keras"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = change(members[member])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _change_layers(model: Path, change: Callable[[list[Layer]], None]) -> None:
    def changed(data: bytes) -> bytes:
        config = json.loads(data)
        change(config["config"]["layers"])
        return json.dumps(config).encode()

    _change(model, "config.json", changed)


def _layer(module: str, name: str, config: Any) -> Layer:
    return {
        "module": module, "class_name": name, "config": config, "registered_name": name,
        "name": "hostile", "inbound_nodes": [],
    }  # fmt: skip


def _lambda(mark: Path) -> Layer:
    code = compile(f"open({str(mark)!r}, 'w').close()", "hostile", "exec")
    packed = base64.b64encode(marshal.dumps(code)).decode()
    function = {
        "class_name": "__lambda__",
        "config": {"code": packed, "defaults": None, "closure": None},
    }
    return _layer("keras.layers", "Lambda", {"name": "hostile", "function": function})


def _call(module: str, name: str, config: Any) -> Callable[[Path], list[Layer]]:
    return lambda mark: [_layer(module, name, config(mark))]


def _function(module: str, name: str) -> Callable[[Path], list[Layer]]:
    """A layer that is given a function by its address."""

    def make(mark: Path) -> list[Layer]:
        function = {"module": module, "class_name": "function", "config": name,
                    "registered_name": name}  # fmt: skip
        given = {"name": "hostile", "function": function, "arguments": {"command": f"touch {mark}"}}
        return [_layer("keras.layers", "Lambda", given)]

    return make


def _saved_model(mark: Path) -> list[Layer]:
    import tensorflow as tf

    class Writing(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 8))])  # type: ignore[untyped-decorator]
        def serve(self, rows: Any) -> Any:
            tf.io.write_file(str(mark), "ran")
            return rows

    written = Writing()
    folder = str(mark.with_name("saved"))
    tf.saved_model.save(written, folder, signatures={"serve": written.serve})
    config = {"name": "hostile", "filepath": folder, "call_endpoint": "serve"}
    return [_layer("keras.layers", "TFSMLayer", config)]


UNSAFE = {"safe_mode": False}
LAYERS: dict[str, Callable[[Path], list[Layer]]] = {
    "lambda": lambda mark: [_lambda(mark)],
    "safe mode switched off first": lambda mark: [
        _layer("keras.config", "enable_unsafe_deserialization", {}),
        _layer("keras.src.saving.serialization_lib", "enable_unsafe_deserialization", {}),
        _lambda(mark),
    ],
    "os.system": _call("os", "system", lambda mark: f"touch {mark}"),
    "subprocess": _call("subprocess", "Popen", lambda mark: {"args": ["touch", str(mark)]}),
    "exec": _call("builtins", "exec", lambda mark: f"open({str(mark)!r}, 'w')"),
    "keras.utils.get_file": _call(
        "keras.utils",
        "get_file",
        lambda mark: {"fname": str(mark), "origin": mark.with_name("secret.txt").as_uri()},
    ),
    "a function by its address": _function("os", "system"),
    "a saved model": _saved_model,
    "a model in a file": _call(
        "keras.models", "load_model", lambda mark: {"filepath": str(mark.with_name("x")), **UNSAFE}
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_no_layer_runs_code(model: Path, tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "mark"
    hostile = LAYERS[kind](mark)
    _change_layers(model, lambda layers: layers.extend(hostile))
    with pytest.raises(UsageError, match="cannot be used"):
        load_model(str(model))
    assert not mark.exists()


def test_what_would_run_does_run_without_our_loading(model: Path, tmp_path: Path) -> None:
    import keras

    mark = tmp_path / "mark"
    code = base64.b64decode(_lambda(mark)["config"]["function"]["config"]["code"])
    exec(marshal.loads(code))
    assert mark.exists()
    mark.unlink()
    layer = LAYERS["a saved model"](mark)[0]["config"]
    keras.layers.TFSMLayer(layer["filepath"], call_endpoint="serve")(np.zeros((1, 8), np.float32))
    assert mark.exists()


@pytest.mark.parametrize("as_uri", [False, True])
def test_no_vocabulary_is_read_from_outside(model: Path, tmp_path: Path, as_uri: bool) -> None:
    secret = tmp_path / "secret.txt"

    def point(layers: list[Layer]) -> None:
        text = next(one for one in layers if one["class_name"] == "TextVectorization")
        text["config"]["vocabulary"] = secret.as_uri() if as_uri else str(secret)

    _change_layers(model, point)
    with pytest.raises(UsageError, match="cannot be used"):
        load_model(str(model))


@pytest.mark.parametrize("name", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_no_lookup_is_read_from_outside(model: Path, tmp_path: Path, name: str) -> None:
    import keras

    config = getattr(keras.layers, name)(name="hostile").get_config()
    hostile = _layer("keras.layers", name, {**config, "vocabulary": str(tmp_path / "secret.txt")})
    _change_layers(model, lambda layers: layers.append(hostile))
    with pytest.raises(UsageError, match="cannot be used"):
        load_model(str(model))


@pytest.mark.parametrize("how", ["external storage", "external link", "virtual"])
def test_no_weight_is_read_from_outside(model: Path, tmp_path: Path, how: str) -> None:
    other = tmp_path / "other.h5"

    def point(data: bytes) -> bytes:
        held = io.BytesIO(data)
        with h5py.File(held, "r+") as file:
            arrays: list[str] = []
            file.visititems(
                lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) else None
            )
            name = next(name for name in arrays if file[name].ndim == 2)
            shape = file[name].shape
            with h5py.File(other, "w") as outside:
                outside["numbers"] = np.full(shape, 0.5, np.float32)
            del file[name]
            if how == "external link":
                file[name] = h5py.ExternalLink(str(other), "numbers")
            elif how == "virtual":
                layout = h5py.VirtualLayout(shape, np.float32)
                layout[:] = h5py.VirtualSource(str(other), "numbers", shape)
                file.create_virtual_dataset(name, layout)
            else:
                size = int(np.prod(shape)) * 4
                file.create_dataset(name, shape, np.float32, external=[(str(other), 0, size)])
        return held.getvalue()

    _change(model, "model.weights.h5", point)
    with pytest.raises(UsageError, match="cannot be used"):
        load_model(str(model))
