"""features/cache/tf_example.py against TensorFlow's tf.train.Example."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.cache.tf_example import Value, decode_example, encode_example

FEATURES: dict[str, Value] = {
    "text": ["ünï".encode(), b"", b"\xff" * 300],
    "none": [],
    "numbers": np.array([0, 1, 127, 128, 300, -1, 2**63 - 1, -(2**63)], np.int64),
    "no_numbers": np.array([], np.int64),
    "floats": np.array([0.0, 1.5, np.inf, -2.25], np.float32),
    "Ä": np.arange(10_000, dtype=np.int64),
}


def _equal(one: dict[str, Value], other: dict[str, Value]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(np.asarray(one[name]), np.asarray(other[name])) for name in one
    )


def test_what_is_encoded_is_decoded() -> None:
    assert _equal(decode_example(encode_example(FEATURES)), FEATURES)
    assert decode_example(encode_example({})) == {}


def test_the_bytes_are_those_of_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow")
    example = tf.train.Example.FromString(encode_example(FEATURES))
    assert example.SerializeToString(deterministic=True) == encode_example(FEATURES)
    values = example.features.feature
    assert list(values["numbers"].int64_list.value) == np.asarray(FEATURES["numbers"]).tolist()
    assert list(values["text"].bytes_list.value) == FEATURES["text"]
    assert values["floats"].float_list.value[2] == np.inf


def test_numbers_that_are_not_packed_are_read_too() -> None:
    unpacked = bytes.fromhex("0a0c0a0a0a016e12051a0308ac02")
    assert np.asarray(decode_example(unpacked)["n"]).tolist() == [300]


@pytest.mark.parametrize(
    "damage", [b"\x0a", b"\x0a\xff", b"\x0b\x00", b"\x0a\x04abcd", b"\xff" * 20]
)
def test_bytes_that_are_no_example_are_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode_example(damage)


def test_cut_bytes_are_refused_or_read_as_less() -> None:
    good = encode_example(FEATURES)
    for length in range(0, 400):
        try:
            decode_example(good[:length])
        except ValueError:
            continue
        assert length == 0
