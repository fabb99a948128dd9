"""tf.train.Example, written and read without TensorFlow.

A record must have the same bytes everywhere, and protocol buffers promise no order of a map, so the
few lines that write it are ours: features in ascending order of name, numbers packed, nothing else,
as `Example.SerializeToString(deterministic=True)` gives. Reading is left to Google's library, which
is given the message here, for TensorFlow takes seconds to import.

Wire format: https://protobuf.dev/programming-guides/encoding/ ; message: tensorflow/core/example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

# A value of one feature: bytes list, int64[...] or float32[...].
Value = Sequence[bytes] | NDArray[np.int64] | NDArray[np.float32]

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_DELIMITED = 2
# Message → its fields, numbered from 1: name, type. A map is a list of entries on the wire.
_PACKAGE = "framebank"
_MESSAGES = {
    "BytesList": {"value": "repeated bytes"},
    "FloatList": {"value": "repeated float"},
    "Int64List": {"value": "repeated int64"},
    "Feature": {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"},
    "Entry": {"key": "string", "value": "Feature"},
    "Features": {"feature": "repeated Entry"},
    "Example": {"features": "Features"},
}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, *content: bytes) -> list[bytes]:
    """Return a field whose content is given in parts: a hundred megabytes are put together once."""
    length = sum(map(len, content))
    return [_varint(number << 3 | _DELIMITED) + _varint(length), *content]


def encode_example(features: Mapping[str, Value]) -> bytes:
    """Return the canonical bytes of a tf.train.Example with these features."""
    return b"".join(_field(1, *_encode_map(features, _encode_feature)))


def encode_sequence_example(
    context: Mapping[str, Value], lists: Mapping[str, Sequence[Value]]
) -> bytes:
    """Return the canonical bytes of a tf.train.SequenceExample: `lists` has a value per step."""

    def steps(values: Sequence[Value]) -> list[bytes]:
        return [part for value in values for part in _field(1, *_encode_feature(value))]

    about, frames = _encode_map(context, _encode_feature), _encode_map(lists, steps)
    return b"".join([*_field(1, *about), *_field(2, *frames)])


def _encode_map(values: Mapping[str, Any], encode: Callable[[Any], list[bytes]]) -> list[bytes]:
    entries: list[bytes] = []
    for name in sorted(values, key=str.encode):
        entries += _field(1, *_field(1, name.encode()), *_field(2, *encode(values[name])))
    return entries


def _encode_feature(value: Value) -> list[bytes]:
    if not isinstance(value, np.ndarray):
        return _field(_BYTES_LIST, *(part for item in value for part in _field(1, item)))
    if value.dtype == np.float32:
        packed = value.astype("<f4").tobytes()
        return _field(_FLOAT_LIST, *(_field(1, packed) if packed else ()))
    # A negative int64 is its two's complement, ten bytes long.
    packed = b"".join(_varint(number & 0xFFFFFFFFFFFFFFFF) for number in value.tolist())
    return _field(_INT64_LIST, *(_field(1, packed) if packed else ()))


def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}/example.proto", package=_PACKAGE, syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for number, (name, words) in enumerate(fields.items(), start=1):
            *repeated, kind = words.split()
            field = made.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
            if message == "Feature":  # one of its fields is set
                field.oneof_index = 0
        if message == "Feature":
            made.oneof_decl.add(name="kind")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


_Example = _example_class()


def decode_example(data: bytes) -> dict[str, Value]:
    """Return the features of a tf.train.Example; raises ValueError for bytes that are none."""
    try:
        example = _Example.FromString(data)
    except DecodeError as err:
        raise ValueError("not a tf.train.Example") from err
    return {entry.key: _value(entry.value) for entry in example.features.feature}


def _value(feature: Any) -> Value:
    kind = feature.WhichOneof("kind")
    if kind == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    return list(feature.bytes_list.value)
