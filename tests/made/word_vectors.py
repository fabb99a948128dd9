"""Files of word vectors in every format, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

Vectors = Mapping[str, Sequence[float]]


def _lines(vectors: Vectors) -> bytes:
    rows = [f"{word} {' '.join(f'{value:g}' for value in row)}\n" for word, row in vectors.items()]
    return "".join(rows).encode()


def _header(vectors: Vectors) -> bytes:
    return f"{len(vectors)} {len(next(iter(vectors.values())))}\n".encode()


def glove(path: Path, vectors: Vectors) -> None:
    path.write_bytes(_lines(vectors))


def word2vec_text(path: Path, vectors: Vectors) -> None:
    path.write_bytes(_header(vectors) + _lines(vectors))


def word2vec_binary(path: Path, vectors: Vectors) -> None:
    rows = [
        word.encode() + b" " + struct.pack(f"<{len(row)}f", *row) + b"\n"
        for word, row in vectors.items()
    ]
    path.write_bytes(_header(vectors) + b"".join(rows))


def fasttext(
    path: Path, vectors: Vectors, *, bucket: int = 0, ngrams: Sequence[float] = ()
) -> None:
    """Write a skip-gram model; all its `bucket` rows of n-grams of 3 letters are `ngrams`."""
    size = len(next(iter(vectors.values())))
    longest = 3 if bucket else 0
    data = bytearray(struct.pack("<ii", 793712314, 12))
    data += struct.pack("<12i", size, 5, 5, 1, 5, 1, 2, 2, bucket, min(3, longest), longest, 100)
    data += struct.pack("<d", 1e-4)
    data += struct.pack("<iiiqq", len(vectors), len(vectors), 0, 100, -1)
    for word in vectors:
        data += word.encode() + b"\0" + struct.pack("<qb", 7, 0)
    data += struct.pack("<?qq", False, len(vectors) + bucket, size)
    for row in [*vectors.values(), *[ngrams] * bucket]:
        data += struct.pack(f"<{size}f", *row)
    path.write_bytes(data)


WRITERS = {
    "GloVe text": glove,
    "word2vec text": word2vec_text,
    "word2vec binary": word2vec_binary,
    "fastText binary": fasttext,
}
