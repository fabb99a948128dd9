"""features/cache/tfrecord.py against TensorFlow's own writer and reader, and against damage."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from framebank.features.cache import tfrecord
from framebank.features.cache.tfrecord import crc32c, frame_record, unframe_record
from framebank.features.errors import CacheError

PAYLOADS = [b"", b"a", bytes(range(256)) * 100, b"\0" * 1000]


def _shard() -> bytes:
    return b"".join(frame_record(payload) for payload in PAYLOADS)


def test_the_bytes_are_those_of_tensorflow(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    path = str(tmp_path / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert Path(path).read_bytes() == _shard()
    assert [item.numpy() for item in tf.data.TFRecordDataset(path)] == PAYLOADS


def _read(data: bytes, path: str) -> list[bytes]:
    """Return the payloads of `_shard`'s records where they lie."""
    found, offset = [], 0
    for number, payload in enumerate(PAYLOADS):
        frame = data[offset : offset + len(payload) + 16]
        found.append(unframe_record(frame, path, number=number, offset=offset))
        offset += len(payload) + 16
    return found


STARTS = [0, 16, 33, 33 + 16 + 25_600]


def test_what_is_framed_is_read_back() -> None:
    assert _read(_shard(), "x") == PAYLOADS
    assert STARTS[-1] + 16 + 1000 == len(_shard())


def test_every_flipped_byte_is_seen_and_named() -> None:
    good = _shard()
    for place in [*range(0, 60), *range(60, len(good), 997), len(good) - 1]:
        data = bytearray(good)
        data[place] ^= 0x10
        with pytest.raises(CacheError) as caught:
            _read(bytes(data), "shard-7")
        number = sum(start <= place for start in STARTS) - 1
        assert f"record {number} (at byte {STARTS[number]}) of shard-7" in caught.value.what


def test_every_cut_is_seen() -> None:
    good = _shard()
    for length in [*range(0, 60), *range(60, len(good), 997), len(good) - 1]:
        with pytest.raises(CacheError, match=r"ends after|bytes for a payload of"):
            _read(good[:length], "x")
    with pytest.raises(CacheError, match="ends after 3 bytes"):
        unframe_record(good[:3], "x", number=0, offset=0)
    with pytest.raises(CacheError, match="bytes for a payload of"):
        unframe_record(good[:40], "x", number=0, offset=0)


def test_no_memory_is_taken_for_a_length_that_no_record_has() -> None:
    length = struct.pack("<Q", 2**62)  # whoever tampers with it can make the checksum fit
    head = length + tfrecord._masked_crc(length)
    with pytest.raises(CacheError, match="bytes for a payload of") as caught:
        unframe_record(head + bytes(100), "shard-7", number=0, offset=0)
    assert "record 0 (at byte 0) of shard-7" in caught.value.what


def test_the_check_value_of_the_rfc() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 40_000, 1_000_003])
def test_as_google_crc32c(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == google_crc32c.value(data)
