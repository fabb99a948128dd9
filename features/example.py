"""tf.train.Example, written and read without TensorFlow.

An Example is a protocol-buffer message that maps names to lists of bytes, int64 or float32. Its
canonical form here: features in ascending order of name, numbers packed, nothing else. Protocol
buffers promise no canonical form of their own (the order of a map is up to the library and its
version), while a record must have the same bytes everywhere; so the few lines that write it are
ours. The result is what `Example.SerializeToString(deterministic=True)` gives; a test holds that.

Wire format: https://protobuf.dev/programming-guides/encoding/ ; message: tensorflow/core/example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# A value of one feature: bytes list, int64[...] or float32[...].
Value = Sequence[bytes] | NDArray[np.int64] | NDArray[np.float32]

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _DELIMITED) + _varint(len(content)) + content


def encode_example(features: Mapping[str, Value]) -> bytes:
    """Return the canonical bytes of a tf.train.Example with these features."""
    entries = []
    for name in sorted(features, key=str.encode):
        entry = _field(1, name.encode()) + _field(2, _encode_feature(features[name]))
        entries.append(_field(1, entry))
    return _field(1, b"".join(entries))


def _encode_feature(value: Value) -> bytes:
    if not isinstance(value, np.ndarray):
        return _field(_BYTES_LIST, b"".join(_field(1, item) for item in value))
    if value.dtype == np.float32:
        packed = value.astype("<f4").tobytes()
        return _field(_FLOAT_LIST, _field(1, packed) if packed else b"")
    # A negative int64 is its two's complement, ten bytes long.
    packed = b"".join(_varint(number & 0xFFFFFFFFFFFFFFFF) for number in value.tolist())
    return _field(_INT64_LIST, _field(1, packed) if packed else b"")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """Yield (field number, wire type, content) of one message."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield number, wire, value
            continue
        if wire == _DELIMITED:
            length, at = _read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(data):
            raise ValueError("a field that runs over the end")
        yield number, wire, data[at : at + length]
        at += length


def _submessages(data: bytes, number: int) -> Iterator[bytes]:
    for found, _, content in _fields(data):
        if found == number and isinstance(content, bytes):
            yield content


def decode_example(data: bytes) -> dict[str, Value]:
    """Return the features of a tf.train.Example; raises ValueError for bytes that are none."""
    features: dict[str, Value] = {}
    try:
        for message in _submessages(data, 1):
            for entry in _submessages(message, 1):
                name = next(_submessages(entry, 1), b"").decode()
                features[name] = _decode_feature(next(_submessages(entry, 2), b""))
    except (IndexError, UnicodeDecodeError) as err:
        raise ValueError("not a tf.train.Example") from err
    return features


def _decode_feature(data: bytes) -> Value:
    for kind, _, content in _fields(data):
        if not isinstance(content, bytes):
            continue
        if kind == _BYTES_LIST:
            return list(_submessages(content, 1))
        if kind == _FLOAT_LIST:
            return np.concatenate(
                [np.empty(0, np.float32), *(_floats(item) for item in _submessages(content, 1))]
            )
        if kind == _INT64_LIST:
            return np.concatenate([np.empty(0, np.int64), *_integers(content)])
    return []


def _floats(packed: bytes) -> NDArray[np.float32]:
    return np.frombuffer(packed, "<f4").astype(np.float32)


def _integers(data: bytes) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of an Int64List, packed or one by one."""
    for number, wire, content in _fields(data):
        if number != 1:
            continue
        if wire == _VARINT and isinstance(content, int):
            yield np.array([content], np.uint64).view(np.int64)
        elif isinstance(content, bytes):
            yield _unpack_varints(content)


def _unpack_varints(packed: bytes) -> NDArray[np.int64]:
    """Return int64[n] of packed varints, without a Python loop over the numbers."""
    raw = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if raw.size and (not ends.size or ends[-1] != raw.size - 1):
        raise ValueError("a number that runs over the end")
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    values = np.zeros(ends.size, np.uint64)
    lengths = ends - starts + 1
    if lengths.size and int(lengths.max()) > 10:
        raise ValueError("a number of more than ten bytes")
    for place in range(int(lengths.max()) if lengths.size else 0):
        here = lengths > place
        part = (raw[starts[here] + place] & 0x7F).astype(np.uint64)
        values[here] |= part << np.uint64(7 * place)
    return values.view(np.int64)
