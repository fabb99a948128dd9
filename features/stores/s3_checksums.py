"""What S3 states about the bytes of an object, and whether those that came are the same.

An object has a checksum of the whole, or, when it was uploaded in parts, one of the checksums of
these ("composite", with -N at its end). Without either the ETag says it: the MD5 of the bytes, or
that of the MD5s of the parts, unless the object is encrypted with a key of KMS or of the customer,
or lies in a directory bucket.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import google_crc32c

_MD5_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")
_PARTS = re.compile(r"(.+)-(\d+)")


class _Digest(Protocol):
    def update(self, data: Any, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._sum = 0

    def update(self, data: Any, /) -> None:
        self._sum = zlib.crc32(data, self._sum)

    def digest(self) -> bytes:
        return self._sum.to_bytes(4, "big")


# Field of the answer → how it is made. CRC64NVME is left out: nothing here computes it quickly.
_ALGORITHMS: dict[str, Callable[[], _Digest]] = {
    "ChecksumCRC32C": google_crc32c.Checksum,
    "ChecksumCRC32": _Crc32,
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumSHA1": hashlib.sha1,
}


@dataclasses.dataclass(frozen=True)
class Stated:
    """A checksum that the store states: its `name`, its bytes, and of how many parts (0: whole)."""

    name: str
    make: Callable[[], _Digest]
    value: bytes
    parts: int


def stated_checksum(about: Mapping[str, Any], *, bucket: str) -> Stated | None:
    """Return what the answer to HEAD says of an object's bytes, None where that is nothing."""
    etag = _MD5_ETAG.fullmatch(str(about.get("ETag", "")).strip('"'))
    parts = int(etag[2] or 0) if etag else 0
    for field, make in _ALGORITHMS.items():
        if not (text := about.get(field)):
            continue
        match, kind = _PARTS.fullmatch(text), about.get("ChecksumType")
        value = base64.b64decode(match[1] if match else text)
        if match or (parts and kind == "COMPOSITE"):
            parts = int(match[2]) if match else parts
            return Stated(field.removeprefix("Checksum"), make, value, parts)
        if not parts or kind == "FULL_OBJECT":
            return Stated(field.removeprefix("Checksum"), make, value, 0)
        # Of parts, and the server does not say whether this is too: then the ETag has to do.
    encrypted = about.get("ServerSideEncryption") not in (None, "", "AES256")
    if encrypted or about.get("SSECustomerAlgorithm") or bucket.endswith("--x-s3"):
        return None
    return None if etag is None else Stated("MD5", hashlib.md5, bytes.fromhex(etag[1]), parts)


def equal_parts(first_bytes: int, *, size_bytes: int, parts: int) -> list[int] | None:
    """Return the sizes of parts of which all but the last are like the first; None where that
    cannot be."""
    last_bytes = size_bytes - first_bytes * (parts - 1)
    return [first_bytes] * (parts - 1) + [last_bytes] if 0 < last_bytes <= first_bytes else None


class Summed:
    """Sums bytes as they come, part by part where the checksum is of parts."""

    def __init__(self, stated: Stated, part_sizes: Sequence[int]) -> None:
        self._stated = stated
        self._left: Iterator[int] = iter(part_sizes)
        self._room = next(self._left, 0)
        self._digest = stated.make()
        self._ended = b""

    def update(self, data: bytes | memoryview) -> None:
        data = memoryview(data)  # whose slices are no copies
        while self._stated.parts and len(data) >= self._room > 0:
            self._digest.update(bytes(data[: self._room]))
            data = data[self._room :]
            self._ended += self._digest.digest()
            self._digest, self._room = self._stated.make(), next(self._left, 0)
        self._digest.update(bytes(data))
        self._room -= len(data)

    def value(self) -> bytes:
        if not self._stated.parts:
            return self._digest.digest()
        whole = self._stated.make()
        whole.update(self._ended)
        return whole.digest()
