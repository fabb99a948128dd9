"""C3D: its size, its way through a clip, and the layouts in which its weights were published."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.network.backbones import BACKBONES
from framebank.features.network.c3d import read_caffe
from framebank.features.network.weight_files import layer_arrays
from framebank.features.network.weights import resolve_weights

ROW = BACKBONES["c3d"]
SHAPES = {"conv1": (3, 3, 3, 2, 4), "conv2": (3, 3, 3, 4, 5), "fc6": (8192, 3)}
NAMES = {"conv1": "conv1a", "conv2": "conv2a", "fc6": "fc6-1"}  # of Caffe


@pytest.fixture(scope="module")
def model() -> Any:
    return ROW.build()


def test_it_has_the_published_parameters(model: Any) -> None:
    """The Sports-1M network has 79,991,015 with its 487 classes (fc8 has 1,995,239)."""
    through = dict.fromkeys(("fc6", "fc7"), 0)
    total = 0
    for layer in model.layers:
        total += layer.count_params()
        through |= {layer.name: total} if layer.name in through else {}
    assert through == {"fc6": 61_214_464, "fc7": 77_995_776}
    assert through["fc7"] + 4096 * 487 + 487 == 79_991_015
    assert model.input.shape == (None, 16, 112, 112, 3)
    assert model.get_layer("pool5").output.shape == (None, 1, 4, 4, 512)


def test_the_last_pooling_begins_where_caffes_does(model: Any) -> None:
    tail = keras.Model(model.get_layer("conv5b").output, model.get_layer("pool5").output)
    maps = np.arange(49, dtype=np.float32).reshape(7, 7) + 1
    given = np.broadcast_to(maps[None, None, :, :, None], (1, 2, 7, 7, 512))
    pooled = np.asarray(tail(given))[0, 0, :, :, 0]
    by_hand = [[maps[r : r + 2, c : c + 2].max() for c in (0, 2, 4, 6)] for r in (0, 2, 4, 6)]
    np.testing.assert_array_equal(pooled, by_hand)


def caffe_arrays() -> dict[str, list[NDArray[np.float32]]]:
    """Return kernels as Caffe has them, [out, in, l, h, w] or [out, in], and biases."""
    random = np.random.default_rng(0)
    return {
        name: [
            random.random((shape[::-1] if len(shape) == 2 else (*shape[:2:-1], *shape[:3])), "f4"),
            random.random(shape[-1], "f4"),
        ]
        for name, shape in SHAPES.items()
    }


def keras_arrays() -> dict[str, list[NDArray[np.float32]]]:
    """Return the same as Keras has it, element by element."""
    made = {}
    for name, (kernel, bias) in caffe_arrays().items():
        array = np.empty(SHAPES[name], np.float32)
        if kernel.ndim == 5:
            for place in np.ndindex(*array.shape):
                frame, row, column, into, out = place
                array[place] = kernel[out, into, frame, row, column]
        else:
            for channel, row, column in np.ndindex(512, 4, 4):
                array[(row * 4 + column) * 512 + channel] = kernel[
                    :, (channel * 4 + row) * 4 + column
                ]
        made[name] = [array, bias]
    return made


def field(number: int, content: bytes | int) -> bytes:
    def varint(value: int) -> bytes:
        head = [value & 127 | 128] if value > 127 else [value]
        return bytes(head) + (varint(value >> 7) if value > 127 else b"")

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: NDArray[np.float32]) -> bytes:
    sizes = (*(1,) * (5 - array.ndim), *array.shape)
    head = b"".join(field(number, size) for number, size in enumerate(sizes, start=1))
    return head + field(6, array.astype("<f4").tobytes()) + field(7, struct.pack("<f", 0.0))


def caffe_file() -> bytes:
    layers = [field(4, b"data") + field(5, 5)]
    for name, arrays in caffe_arrays().items():
        blobs = b"".join(field(6, blob(array)) for array in arrays)
        layers.append(field(2, b"bottom") + field(4, NAMES[name].encode()) + field(5, 4) + blobs)
    return field(1, b"DeepConv3DNet") + b"".join(field(2, layer) for layer in layers)


def write_caffe(path: Path) -> None:
    path.write_bytes(caffe_file())


def write_keras(path: Path, *, theano: bool = False) -> None:
    """Write the layout of Keras 1 and 2, with the classifier that is left out."""
    with h5py.File(path, "w") as file:
        arrays = keras_arrays() | {"fc8": [np.ones((3, 7), "f4"), np.ones(7, "f4")]}
        file.attrs["layer_names"] = [b"pool0", *(name.encode() for name in arrays)]
        file.create_group("pool0").attrs["weight_names"] = []
        for name, (kernel, bias) in arrays.items():
            if theano and kernel.ndim == 5:
                kernel = kernel.transpose(4, 3, 0, 1, 2)[:, :, ::-1, ::-1, ::-1]
            elif theano and name == "fc6":
                kernel = caffe_arrays()["fc6"][0].T
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W".encode(), f"{name}_b".encode()]
            group[f"{name}_W"], group[f"{name}_b"] = kernel, bias


WRITERS = {
    "a.caffemodel": write_caffe,
    "conv3d_deepnetA_sport1m_iter_1900000": write_caffe,
    "tf.h5": write_keras,
    "theano.h5": lambda path: write_keras(path, theano=True),
}


class Layer:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.weights = [np.empty(shape), np.empty(shape[-1:])]


def read(path: Path, shapes: dict[str, Any]) -> dict[str, Any]:
    layers = {name: Layer(shape) for name, shape in shapes.items()}
    weights = resolve_weights(str(path), backbone="c3d")
    return layer_arrays(weights, backbone=ROW, layers=layers, needed=set(shapes))


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_gives_the_same_arrays(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = read(tmp_path / name, SHAPES)
    for layer, arrays in keras_arrays().items():
        for got, wanted in zip(found[layer], arrays, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_convolution_of_caffe_is_one_of_keras() -> None:
    """Both correlate: a value is the sum over kernel times clip as they lie."""
    kernel, bias = caffe_arrays()["conv1"]
    found = read_caffe(caffe_file(), {"conv1": [SHAPES["conv1"], (4,)]})["conv1"]
    clip = np.random.default_rng(1).random((1, 3, 3, 3, 2), "f4")
    layer = keras.layers.Conv3D(4, 3)
    layer.build(clip.shape)
    layer.set_weights(found)
    by_hand = [(kernel[out] * clip[0].transpose(3, 0, 1, 2)).sum() + bias[out] for out in range(4)]
    np.testing.assert_allclose(np.asarray(layer(clip)).ravel(), by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff" * 40, "no NetParameter"),
        (b"", "no layer conv1"),
        (caffe_file()[:-1000], "no NetParameter"),
        (field(2, field(4, b"conv1a") + 2 * field(6, field(1, 9))), "layer conv1 has 0 bytes"),
    ],
)
def test_what_is_no_such_network_is_refused(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.caffemodel").write_bytes(data)
    with pytest.raises(UsageError, match=told):
        read(tmp_path / "a.caffemodel", SHAPES)


def test_imagenet_has_no_clips() -> None:
    with pytest.raises(UsageError, match="c3d has no ImageNet weights"):
        resolve_weights("imagenet", backbone="c3d")
