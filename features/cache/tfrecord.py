"""The TFRecord file format: frames of length, checksum, payload, checksum.

One record is: uint64 length, masked CRC-32C of the length, the payload, masked CRC-32C of the
payload; all numbers little-endian (TensorFlow's `record_writer.h`). TensorFlow itself may not be
there, and its reader does not say which file and which record is damaged.
"""

from __future__ import annotations

import functools
import struct

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import CacheError

try:
    import google_crc32c
except ImportError:  # an environment that only reads: `crc32c` needs NumPy alone
    google_crc32c = None  # type: ignore[assignment]

# Protocol buffers end at 2 GiB, and with them every reader: see the note on size limits in
# https://protobuf.dev/programming-guides/encoding/
MOST_PAYLOAD_BYTES = 2**31 - 2**20
HEADER_BYTES = 12
FOOTER_BYTES = 4
MOST_FRAME_BYTES = HEADER_BYTES + MOST_PAYLOAD_BYTES + FOOTER_BYTES
_MASK_DELTA = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # Castagnoli's: RFC 3720 B.4
_LANES = 512


def _masked_crc(data: bytes) -> bytes:
    crc = int(google_crc32c.value(data)) if google_crc32c else crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF)


def frame_record(payload: bytes) -> bytes:
    """Return `payload` in its frame, len(payload) + 16 bytes.

    Raises ValueError for one that no reader could read.
    """
    if len(payload) > MOST_PAYLOAD_BYTES:
        raise ValueError(f"{len(payload)} bytes, at most {MOST_PAYLOAD_BYTES} are a record")
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _masked_crc(length), payload, _masked_crc(payload)))


def _fault(path: str, number: int, offset: int, got: str) -> CacheError:
    return CacheError(
        f"damaged shard: record {number} (at byte {offset}) of {path}",
        got=got,
        expected="a whole record whose checksums hold",
        todo="run `framebank verify` on the cache to see all that is damaged",
    )


def unframe_record(frame: bytes, path: str, *, number: int, offset: int) -> bytes:
    """Return the payload of one frame that lies at `offset` in `path`.

    Raises CacheError that names file, record and byte when the frame is short or a checksum fails.
    """
    if len(frame) < HEADER_BYTES + FOOTER_BYTES:
        raise _fault(path, number, offset, f"the file ends after {len(frame)} bytes of the record")
    (length,) = struct.unpack_from("<Q", frame)
    if _masked_crc(frame[:8]) != frame[8:HEADER_BYTES]:
        raise _fault(path, number, offset, "the checksum of its length does not match")
    if len(frame) != HEADER_BYTES + length + FOOTER_BYTES:
        raise _fault(path, number, offset, f"{len(frame)} bytes for a payload of {length}")
    payload = frame[HEADER_BYTES:-FOOTER_BYTES]
    if _masked_crc(payload) != frame[-FOOTER_BYTES:]:
        raise _fault(path, number, offset, "the checksum of its content does not match")
    return payload


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data`, as `google_crc32c.value` does.

    Lanes of equal length go through the table together, one byte of each at a time; their sums
    are then joined, since the CRC of bytes that follow others is the first moved on, xor theirs.
    """
    per_lane = len(data) // _LANES
    body = np.frombuffer(data, np.uint8, per_lane * _LANES).reshape(_LANES, per_lane)
    lanes = np.zeros(_LANES, np.uint32)
    for column in body.T:
        lanes = _table()[(lanes ^ column) & 0xFF] ^ (lanes >> np.uint32(8))
    crc, moved = 0xFFFFFFFF, _moves(per_lane)
    for lane in lanes.tolist() if per_lane else ():
        crc = _xor(moved, crc) ^ lane
    table = _table()
    for byte in data[per_lane * _LANES :]:
        crc = int(table[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@functools.cache
def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@functools.lru_cache(maxsize=64)
def _moves(count: int) -> tuple[int, ...]:
    """Return what each bit of a CRC becomes when `count` zero bytes follow."""
    result = [1 << bit for bit in range(32)]
    step = [int(_table()[crc & 0xFF]) ^ (crc >> 8) for crc in result]  # after one zero byte
    while count:
        if count & 1:
            result = [_xor(step, one) for one in result]
        step = [_xor(step, one) for one in step]
        count >>= 1
    return tuple(result)


def _xor(columns: tuple[int, ...] | list[int], crc: int) -> int:
    found = 0
    while crc:
        low = crc & -crc
        found ^= columns[low.bit_length() - 1]
        crc ^= low
    return found
