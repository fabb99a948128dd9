"""Pretrained word vectors as they are published, found out by looking at the file.

Read are GloVe text, word2vec text and binary, fastText .vec and .bin, each also under gzip. A file
of millions of words is streamed: only the rows of the wanted words are kept. Own readers, since
the libraries that have them (gensim, fasttext) load the whole file or need a compiler.

Formats: https://nlp.stanford.edu/projects/glove, word2vec.c's `-binary` output, and fastText's
args.cc, dictionary.cc and densematrix.cc, version 12 (train.word_vectors.fasttext).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import re
import time
import zlib
from collections.abc import Callable, Iterator, Set
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.stores import storage
from framebank.train.word_vectors.fasttext import MAGIC, Joined, read_fasttext

Vector = NDArray[np.float32]
_MOST_LINE = 2**20
_MOST_WORD = 2**12
_MOST_SIZE = 2**14
_LOOK_BYTES = 2**21
_CHUNK_BYTES = 2**22
_SAY_EVERY_S = 10.0


@dataclasses.dataclass(frozen=True)
class VectorFile:
    """What was found in a file: the vectors float32[d] of the wanted words."""

    format: str
    size: int
    vectors: dict[str, Vector]


class _Wanted:
    """Collects vectors of `words`, which are in lower case; the first of a word wins.

    A word of the file that is written just so comes before one that only is in lower case.
    """

    def __init__(self, words: Set[str]) -> None:
        self._names = {word.encode("utf-8", "replace"): word for word in words}
        self.exact: dict[str, Vector] = {}
        self.folded: dict[str, Vector] = {}

    def place(self, word: bytes) -> tuple[dict[str, Vector], str] | None:
        """Return where the vector of the file's `word` belongs, None if nowhere."""
        name = self._names.get(word)
        if name is not None:
            return None if name in self.exact else (self.exact, name)
        lower = word.lower() if word.isascii() else word.decode("utf-8", "replace").lower().encode()
        name = self._names.get(lower)
        return None if name is None or name in self.folded else (self.folded, name)

    def vectors(self) -> dict[str, Vector]:
        return self.folded | self.exact


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file on disk or in a bucket, in hex; raises FramebankError."""
    digest = hashlib.sha256()
    with _opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_vectors(path: str, words: Set[str], *, say: Callable[[str], None]) -> VectorFile:
    """Return the vectors of `words` (lower case) in the file; raises UsageError for a bad one."""
    with _opened(path) as raw:
        file = io.BufferedReader(cast(io.RawIOBase, raw), _CHUNK_BYTES)
        if file.peek(2)[:2] == b"\x1f\x8b":
            file = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file)), _CHUNK_BYTES)
        try:
            return _read(path, file, words, _Teller(path, say))
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise damaged(path, f"gzip: {err}") from err


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        with storage.open_read(path) as file:
            yield file
    except storage.FileMissingError as err:
        raise UsageError("there is no such file of word vectors", got=path) from err


class _Teller:
    """Says now and then how many rows were read."""

    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        self._path, self._say, self._said_s = path, say, time.monotonic()

    def __call__(self, rows: int) -> None:
        if time.monotonic() - self._said_s >= _SAY_EVERY_S:
            self._say(f"{rows} rows of {self._path} read")
            self._said_s = time.monotonic()


def _read(path: str, file: BinaryIO, words: Set[str], tell: _Teller) -> VectorFile:
    head = file.read(_LOOK_BYTES)
    rest = io.BufferedReader(cast(io.RawIOBase, Joined(head, file)), _CHUNK_BYTES)
    if not head:
        raise damaged(path, "an empty file")
    if head.startswith(b"PK\3\4"):  # as GloVe and fastText's .vec come
        raise damaged(path, "a zip archive", "the file in it: unzip it first")
    if head.startswith(MAGIC):
        size, vectors = read_fasttext(path, rest, words, tell)
        return VectorFile("fastText binary", size, vectors)
    first, _, after = head.partition(b"\n")
    wanted = _Wanted(words)
    header = re.fullmatch(rb"(\d{1,12}) (\d{1,6})\s*", first)
    if header is None:
        size = len(first.replace(b"\t", b" ").split()) - 1
        if not 1 <= size <= _MOST_SIZE or _numbers(first, size) is None:
            raise damaged(path, f"{first[:60]!r} at its start")
        _read_text(path, rest, size, wanted, tell)
        return VectorFile("GloVe text", size, wanted.vectors())
    rows, size = int(header[1]), int(header[2])
    if not (rows and 1 <= size <= _MOST_SIZE):
        raise damaged(path, f"{rows} words of dimension {size} in line 1")
    rest.readline()
    if _is_text(after.split(b"\n", 1)[0], size):
        _read_text(path, rest, size, wanted, tell, rows=rows)
        return VectorFile("word2vec text", size, wanted.vectors())
    _read_binary(path, rest, size, wanted, tell, rows=rows)
    return VectorFile("word2vec binary", size, wanted.vectors())


def _is_text(line: bytes, size: int) -> bool:
    """Return whether a row is text, if a damaged one: binary floats are not all plain signs."""
    return _numbers(line, size) is not None or bool(
        re.fullmatch(rb"\S+(?:[ \t]+[-+0-9.eEnaifNAIF]+)+\s*", line)
    )


def _numbers(line: bytes, size: int) -> Vector | None:
    parts = line.rstrip().replace(b"\t", b" ").rsplit(b" ", size)
    try:
        return np.array([float(part) for part in parts[1:]], np.float32)
    except ValueError:
        return None


def _read_text(
    path: str,
    file: BinaryIO,
    size: int,
    wanted: _Wanted,
    tell: _Teller,
    *,
    rows: int | None = None,
) -> None:
    number = 0 if rows is None else 1  # of the line
    found = 0
    while line := file.readline(_MOST_LINE):
        number += 1
        plain = line.rstrip().replace(b"\t", b" ")
        if not plain:
            continue
        found += 1
        spaces = plain.count(b" ")  # to cut each of millions of rows would take five times as long
        word = plain[: plain.index(b" ")] if spaces == size else plain.rsplit(b" ", size)[0]
        if spaces < size:
            raise damaged(path, f"{spaces} numbers in line {number}", f"{size} numbers")
        place = wanted.place(word)
        # A row that is too long looks like a word with a space in it, which GloVe has as well.
        if b" " in word and _numbers(b"x " + word.rsplit(b" ", 1)[1], 1) is not None:
            got = len(plain.split()) - 1
            if _numbers(plain, got) is not None:
                raise damaged(path, f"{got} numbers in line {number}", f"{size} numbers")
        if place is not None:
            vector = _numbers(plain, size)
            if vector is None or not np.isfinite(vector).all():
                raise damaged(path, f"no finite numbers in line {number} ({word[:40]!r})")
            place[0][place[1]] = vector
        if number % 4096 == 0:
            tell(number)
    if rows is not None and found < rows:
        raise damaged(path, f"{found} words, then the file ends", f"{rows}, as line 1 says")


def _read_binary(
    path: str, file: BinaryIO, size: int, wanted: _Wanted, tell: _Teller, *, rows: int
) -> None:
    buffer, at, width = b"", 0, 4 * size
    for number in range(1, rows + 1):
        if len(buffer) - at < _MOST_WORD + width:
            buffer, at = buffer[at:] + file.read(_CHUNK_BYTES + width), 0
        space = buffer.find(b" ", at, at + _MOST_WORD)
        end = space + 1 + width
        if space < 0 or end > len(buffer):
            got = f"word {number} is not whole"
            raise damaged(path, got, f"{rows} words of dimension {size}, as line 1 says")
        place = wanted.place(buffer[at:space].lstrip(b"\n"))
        if place is not None:
            vector = np.frombuffer(buffer, "<f4", size, space + 1).copy()
            if not np.isfinite(vector).all():
                raise damaged(path, f"no finite numbers for word {number}")
            place[0][place[1]] = vector
        at = end
        if number % 4096 == 0:
            tell(number)


def damaged(path: str, got: object, expected: object = None) -> UsageError:
    """Return the error of a file that holds no vectors, or damaged ones."""
    return UsageError(
        f"{path} cannot be read as word vectors",
        got=got,
        expected=expected or "GloVe, word2vec or fastText, as text or binary, also as .gz",
        todo="check --embeddings, or fetch the file again",
    )
