"""C3D, the 3-D convolutional network of Tran et al. 2015 (arXiv:1412.0767), and its Caffe weights.

Eight convolutions of 3 × 3 × 3, five poolings, fc6 and fc7 of 4096 over clips of 16 frames, named
and laid out as the Keras ports of the Sports-1M network have them. Caffe's pooling counts a window
that is cut by the edge: a row and a column of zeros after conv5b (all of it is above 0) are that.

`conv3d_deepnetA_sport1m_iter_1900000` is a NetParameter of the Caffe of C3D v1.0 (its
src/caffe/proto/caffe.proto). What is read of it is described to Google's protobuf library here:

    NetParameter     repeated LayerParameter layers = 2
    LayerParameter   string name = 4; repeated BlobProto blobs = 6
    BlobProto        int32 num = 1, channels = 2, length = 3, height = 4, width = 5; floats data = 6

Packed floats are bytes on the wire, and are read as such. Convolutions are stored as [out, in, l,
h, w] and correlate, as Keras's do; fc6 takes its input as [512, 1, 4, 4], Keras's [1, 4, 4, 512].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

FLATTENED = (512, 4, 4)  # what fc6 reads, channels first
# name → filters, size of the pooling after it over frames and over the picture (0: none)
_CONVOLUTIONS = {
    "conv1": (64, (1, 2, 2)),
    "conv2": (128, (2, 2, 2)),
    "conv3a": (256, None),
    "conv3b": (256, (2, 2, 2)),
    "conv4a": (512, None),
    "conv4b": (512, (2, 2, 2)),
    "conv5a": (512, None),
    "conv5b": (512, (2, 2, 2)),
}
_CAFFE_NAMES = {"conv1": "conv1a", "conv2": "conv2a", "fc6": "fc6-1", "fc7": "fc7-1"}
_MESSAGES: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "Blob": {
        **{n + 1: (name, "int32") for n, name in enumerate(("num", "channels", "length"))},
        **{n + 4: (name, "int32") for n, name in enumerate(("height", "width"))},
        6: ("data", "bytes"),
    },
    "Layer": {4: ("name", "bytes"), 6: ("blobs", "repeated Blob")},
    "Net": {2: ("layers", "repeated Layer")},
}
_PACKAGE = "framebank.caffe"


def build_c3d(frames: int, size: int) -> Any:
    """Return the `keras.Model` float32[b, frames, size, size, 3] → fc7 float32[b, 4096]."""
    import keras
    from keras import layers

    made = [keras.Input((frames, size, size, 3))]
    for name, (filters, pool) in _CONVOLUTIONS.items():
        # Weights come later: making random ones would take seconds.
        plain = {"activation": "relu", "kernel_initializer": "zeros", "name": name}
        made.append(layers.Conv3D(filters, 3, padding="same", **plain))
        if name == "conv5b":
            made.append(layers.ZeroPadding3D(((0, 0), (0, 1), (0, 1)), name="zeropad5"))
        if pool:
            made.append(layers.MaxPooling3D(pool, name=f"pool{name[4]}"))
    made.append(layers.Flatten(name="flatten"))
    for name in ("fc6", "fc7"):
        made.append(layers.Dense(4096, activation="relu", kernel_initializer="zeros", name=name))
    tensor = made[0]
    for layer in made[1:]:
        tensor = layer(tensor)
    return keras.Model(made[0], tensor, name="c3d")


def read_caffe(data: bytes, shapes: Mapping[str, Sequence[tuple[int, ...]]]) -> dict[str, Any]:
    """Return kernel and bias float32 of each layer of `shapes` (Keras's shapes of both), by name.

    Raises ValueError for bytes that are no such network, and names the layer that does not fit.
    """
    try:
        net = _net_class().FromString(data)
    except DecodeError as err:
        raise ValueError("no NetParameter of Caffe") from err
    stored = {layer.name.decode("utf-8", "replace"): layer.blobs for layer in net.layers}
    found = {}
    for name, (kernel, bias) in shapes.items():
        blobs = stored.get(_CAFFE_NAMES.get(name, name), stored.get(name, ()))
        if len(blobs) != 2:
            raise ValueError(f"no layer {name} with two blobs, but {sorted(stored)[:12]}")
        values = _values(name, blobs[0], math.prod(kernel))
        if len(kernel) == 5:
            depth, height, width, into, out = kernel
            array = values.reshape(out, into, depth, height, width).transpose(2, 3, 4, 1, 0)
        else:
            array = values.reshape(kernel[::-1]).T
            if name == "fc6":
                array = channels_last(array)
        found[name] = [np.ascontiguousarray(array), _values(name, blobs[1], math.prod(bias))]
    return found


def channels_last(kernel: NDArray[np.float32], flat: tuple[int, ...] = FLATTENED) -> Any:
    """Return the rows of fc6's kernel [c · h · w, d] in the order [h · w · c]."""
    if len(kernel) != math.prod(flat):
        return kernel  # of another network: its shape will be refused
    return kernel.reshape(*flat, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)


def from_theano(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [out, in, l, h, w], which Theano's convolution runs through backwards, as Keras has it
    (keras/src/legacy, `convert_kernel`)."""
    return np.ascontiguousarray(kernel[:, :, ::-1, ::-1, ::-1].transpose(2, 3, 4, 1, 0))


def _values(name: str, blob: Any, count: int) -> NDArray[np.float32]:
    sizes = [getattr(blob, part) for part in ("num", "channels", "length", "height", "width")]
    stated = math.prod(max(size, 1) for size in sizes)
    if stated != count or len(blob.data) != 4 * count:
        told = f"{len(blob.data)} bytes for {sizes}"
        raise ValueError(f"layer {name} has {told}, expected {count} floats")
    return np.frombuffer(blob.data, "<f4").astype(np.float32)


def _net_class() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for number, (name, words) in fields.items():
            *repeated, kind = words.split()
            field = made.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Net"))
