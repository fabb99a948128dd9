"""fastText's own binary format: vectors of words, and of unknown words from their letters.

A word's vector is the mean of its own row and those of its n-grams of letters (Bojanowski et al.,
2017), which a word that fastText never saw has as well. The rows needed are known before the matrix
is reached, so the file is streamed once.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Set
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError

MAGIC = struct.pack("<i", 793712314)
_VERSION = 12
_WORD, _END = 0, b"</s>"
_MOST_WORD = 2**14
_CHUNK_BYTES = 2**22


class Joined(io.RawIOBase):
    """`head`, then what `file` still has."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head, self._file = memoryview(head), file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._head:
            data = self._file.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        part, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def read_fasttext(
    path: str, file: BinaryIO, words: Set[str], tell: Callable[[int], None]
) -> tuple[int, dict[str, NDArray[np.float32]]]:
    """Return (dimension, vectors float32[d] of `words`); raises UsageError for a damaged file."""
    try:
        return _read(path, file, words, tell)
    except (struct.error, EOFError) as err:
        raise _damaged(path, "the file ends too early") from err


def _read(
    path: str, file: BinaryIO, words: Set[str], tell: Callable[[int], None]
) -> tuple[int, dict[str, NDArray[np.float32]]]:
    _, version = _unpack(file, "<ii")
    if version != _VERSION:
        raise _damaged(path, f"version {version}")
    size, *_, bucket, shortest, longest, _ = _unpack(file, "<12i")
    _unpack(file, "<d")
    entries, count, _, _, pruned = _unpack(file, "<iiiqq")
    if not (0 < size < 2**14 and 0 <= count <= entries and bucket >= 0 and shortest <= longest):
        raise _damaged(path, f"{count} words of dimension {size}")
    numbers, file = _read_words(file, entries, words, tell)
    if pruned > 0 or _unpack(file, "<?")[0]:
        raise _damaged(path, "a quantised model (.ftz)")
    rows, width = _unpack(file, "<qq")
    if width != size or rows < count + bucket * (longest > 0):
        raise _damaged(path, f"a matrix of {rows} rows of {width}")
    needed: dict[str, list[int]] = {}
    for word in sorted(words):
        place, written = numbers.get(word, (None, word))
        spelt = (
            []
            if longest == 0
            else list(_ngrams(written.encode("utf-8", "replace"), shortest, longest))
        )
        own = [] if place is None else [place]
        needed[word] = own + [count + _hash(ngram) % bucket for ngram in spelt if bucket]
    every = {row for its in needed.values() for row in its}
    found = _read_rows(path, file, every, size, tell)
    return size, {
        word: np.mean([found[row] for row in its], axis=0, dtype=np.float32)
        for word, its in needed.items()
        if its
    }


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _read_words(
    file: BinaryIO, entries: int, words: Set[str], tell: Callable[[int], None]
) -> tuple[dict[str, tuple[int, str]], BinaryIO]:
    """Return (row, as it is written) of the wanted words, and what comes after all words.

    One that is written just so comes before one that only is in lower case.
    """
    exact: dict[str, tuple[int, str]] = {}
    folded: dict[str, tuple[int, str]] = {}
    buffer, at = b"", 0
    for number in range(entries):
        if len(buffer) - at < _MOST_WORD:
            buffer, at = buffer[at:] + file.read(_CHUNK_BYTES), 0
        end = buffer.find(b"\0", at)
        if end < 0 or end + 10 > len(buffer):
            raise EOFError
        text, kind = buffer[at:end].decode("utf-8", "replace"), buffer[end + 9]
        at = end + 10
        if kind == _WORD and text in words:
            exact.setdefault(text, (number, text))
        elif kind == _WORD and text.lower() in words:
            folded.setdefault(text.lower(), (number, text))
        if number % 4096 == 0:
            tell(number)
    rest = cast(io.RawIOBase, Joined(buffer[at:], file))
    return folded | exact, io.BufferedReader(rest, _CHUNK_BYTES)


def _read_rows(
    path: str, file: BinaryIO, needed: set[int], size: int, tell: Callable[[int], None]
) -> dict[int, NDArray[np.float32]]:
    found, at = {}, 0
    for row in sorted(needed):
        skip = (row - at) * 4 * size
        while skip:
            part = len(file.read(min(skip, _CHUNK_BYTES)))
            if not part:
                raise EOFError
            skip -= part
            tell(row - skip // (4 * size))
        data = file.read(4 * size)
        if len(data) < 4 * size:
            raise EOFError
        found[row], at = np.frombuffer(data, "<f4"), row + 1
        if not np.isfinite(found[row]).all():
            raise _damaged(path, f"no finite numbers in row {row}")
    return found


def _ngrams(word: bytes, shortest: int, longest: int) -> Iterator[bytes]:
    """Yield the n-grams of letters of <word>, as Dictionary::computeSubwords does."""
    if word == _END:
        return
    letters = [b"<", *(letter.encode() for letter in word.decode()), b">"]
    for start in range(len(letters)):
        for length in range(max(shortest, 1), longest + 1):
            end = start + length
            if end > len(letters):
                break
            if length == 1 and (start == 0 or end == len(letters)):
                continue
            yield b"".join(letters[start:end])


def _hash(text: bytes) -> int:
    """Return fastText's hash: FNV-1a over signed bytes (Dictionary::hash)."""
    value = 2166136261
    for byte in text:
        value ^= byte if byte < 128 else byte | 0xFFFFFF00
        value = value * 16777619 & 0xFFFFFFFF
    return value


def _damaged(path: str, got: str) -> UsageError:
    return UsageError(
        f"{path} cannot be read as a fastText model",
        got=got,
        expected=f"an unquantised .bin of version {_VERSION}",
        todo="check --embeddings, or fetch the file again",
    )
