"""CRC-32C (Castagnoli, RFC 3720 B.4) without google-crc32c: a cache reads where only NumPy is.

Lanes of equal length go through the table together, one byte of each at a time; their sums are
then joined, since the CRC of bytes that follow others is the first CRC moved on, xor the second.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_LANES = 512


def value(data: bytes) -> int:
    """Return the CRC-32C of `data`, as `google_crc32c.value` does."""
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
