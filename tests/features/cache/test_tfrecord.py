"""features/cache/tfrecord.py against TensorFlow's own writer and reader, and against damage."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from framebank.features.cache import tfrecord
from framebank.features.cache.tfrecord import frame_record, read_records, unframe_record
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


def test_what_is_framed_is_read_back() -> None:
    records = list(read_records(io.BytesIO(_shard()), "x"))
    assert [record.payload for record in records] == PAYLOADS
    assert [record.number for record in records] == [0, 1, 2, 3]
    last = records[-1]
    assert last.offset + last.length == len(_shard())
    frame = _shard()[last.offset :]
    assert unframe_record(frame, "x", number=3, offset=last.offset) == PAYLOADS[-1]
    assert list(read_records(io.BytesIO(b""), "x")) == []


def test_every_flipped_byte_is_seen_and_named() -> None:
    good = _shard()
    starts = [record.offset for record in read_records(io.BytesIO(good), "x")]
    for place in [*range(0, 60), *range(60, len(good), 997), len(good) - 1]:
        data = bytearray(good)
        data[place] ^= 0x10
        with pytest.raises(CacheError) as caught:
            list(read_records(io.BytesIO(data), "shard-7"))
        number = sum(start <= place for start in starts) - 1
        assert f"record {number} (at byte {starts[number]}) of shard-7" in caught.value.what


def test_every_cut_within_a_record_is_seen() -> None:
    good = _shard()
    ends = {record.offset for record in read_records(io.BytesIO(good), "x")} | {len(good)}
    for length in [*range(0, 60), *range(60, len(good), 997), len(good) - 1]:
        if length in ends:
            continue
        with pytest.raises(CacheError, match="ends"):
            list(read_records(io.BytesIO(good[:length]), "x"))
    with pytest.raises(CacheError, match="ends after 3 bytes"):
        unframe_record(good[:3], "x", number=0, offset=0)
    with pytest.raises(CacheError, match="bytes for a payload of"):
        unframe_record(good[:40], "x", number=0, offset=0)


def test_no_memory_is_taken_for_a_length_that_no_record_has() -> None:
    length = struct.pack("<Q", 2**62)  # whoever tampers with it can make the checksum fit
    head = length + struct.pack("<I", tfrecord._masked_crc(length))
    with pytest.raises(CacheError, match="no reader takes more") as caught:
        list(read_records(io.BytesIO(head + bytes(100)), "shard-7"))
    assert "record 0 (at byte 0) of shard-7" in caught.value.what
