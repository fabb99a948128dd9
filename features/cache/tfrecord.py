"""The TFRecord file format: frames of length, checksum, payload, checksum.

One record is: uint64 length, masked CRC-32C of the length, the payload, masked CRC-32C of the
payload; all numbers little-endian (TensorFlow's `record_writer.h`). Written here and not by
TensorFlow since a shard must be framed and read where TensorFlow is not loaded, and since its
reader does not say which file and which record is damaged. Byte-identical with
`tf.io.TFRecordWriter`; a test holds that.
"""

from __future__ import annotations

import struct

from framebank.features.errors import CacheError

try:
    import google_crc32c as crc32c
except ImportError:  # an environment that only reads
    from framebank.features.cache import crc32c  # type: ignore[no-redef]

# Protocol buffers end at 2 GiB, and with them every reader: see the note on size limits in
# https://protobuf.dev/programming-guides/encoding/
MOST_PAYLOAD_BYTES = 2**31 - 2**20
HEADER_BYTES = 12
FOOTER_BYTES = 4
MOST_FRAME_BYTES = HEADER_BYTES + MOST_PAYLOAD_BYTES + FOOTER_BYTES
_MASK_DELTA = 0xA282EAD8


def _masked_crc(data: bytes) -> int:
    crc = int(crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame_record(payload: bytes) -> bytes:
    """Return `payload` in its frame, len(payload) + 16 bytes.

    Raises ValueError for one that no reader could read.
    """
    if len(payload) > MOST_PAYLOAD_BYTES:
        raise ValueError(f"{len(payload)} bytes, at most {MOST_PAYLOAD_BYTES} are a record")
    length = struct.pack("<Q", len(payload))
    return b"".join(
        (
            length,
            struct.pack("<I", _masked_crc(length)),
            payload,
            struct.pack("<I", _masked_crc(payload)),
        )
    )


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
    length, length_crc = struct.unpack_from("<QI", frame)
    if _masked_crc(frame[:8]) != length_crc:
        raise _fault(path, number, offset, "the checksum of its length does not match")
    if len(frame) != HEADER_BYTES + length + FOOTER_BYTES:
        raise _fault(path, number, offset, f"{len(frame)} bytes for a payload of {length}")
    payload = frame[HEADER_BYTES:-FOOTER_BYTES]
    if _masked_crc(payload) != struct.unpack("<I", frame[-FOOTER_BYTES:])[0]:
        raise _fault(path, number, offset, "the checksum of its content does not match")
    return payload
