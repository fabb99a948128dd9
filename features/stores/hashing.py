"""Hashes of bytes and of files, in hex: what says that two are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO


def bytes_sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def file_hash(file: str | Path | BinaryIO, algorithm: str = "sha256") -> str:
    """Return the hash of a local file, or of what an open one still has; raises OSError."""
    if isinstance(file, str | Path):
        with Path(file).open("rb") as opened:
            return file_hash(opened, algorithm)
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
