"""Pretrained word vectors as they are published, found out by looking at the file.

Read are GloVe text, word2vec text and binary, fastText .vec and .bin, each also under gzip. Own
readers, since gensim and fasttext load the whole file or need a compiler: these stream it, and keep
only the rows of the wanted words.

Formats: https://nlp.stanford.edu/projects/glove, word2vec.c's `-binary` output, and fastText's
args.cc, dictionary.cc and densematrix.cc, version 12. In fastText's own binary format a word's
vector is the mean of its own row and those of its n-grams of letters (Bojanowski et al., 2017),
which a word that fastText never saw has as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import itertools
import re
import string
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Set
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.features.stores import storage
from framebank.features.stores.disk import file_hash

Vector = NDArray[np.float32]
_MOST_LINE = 2**20
_MOST_WORD = 2**12
_MOST_SIZE = 2**14
_LOOK_BYTES = 2**21
_CHUNK_BYTES = 2**22
_SAY_EVERY_S = 10.0
_FASTTEXT = struct.pack("<i", 793712314)
_FASTTEXT_VERSION = 12
_FASTTEXT_WORD, _FASTTEXT_END = 0, b"</s>"
_MOST_FASTTEXT_WORD = 2**14


@dataclasses.dataclass(frozen=True)
class VectorFile:
    """What was found in a file: the vectors float32[d] of the wanted words."""

    format: str
    size: int
    vectors: dict[str, Vector]


class _Wanted:
    """Collects what a file has of `words`, which are in lower case; the first of a word wins.

    A word of the file that is written just so comes before one that only is in lower case.
    """

    words: Set[str] | None

    def __init__(self, words: Set[str]) -> None:
        self.words = words
        self._names = {word.encode("utf-8", "replace"): word for word in words}
        self.exact: dict[str, Any] = {}
        self.folded: dict[str, Any] = {}

    def place(self, word: bytes) -> tuple[dict[str, Any], str] | None:
        """Return where that of the file's `word` belongs, None if nowhere."""
        name = self._names.get(word)
        if name is not None:
            return None if name in self.exact else (self.exact, name)
        lower = word.lower() if word.isascii() else word.decode("utf-8", "replace").lower().encode()
        name = self._names.get(lower)
        return None if name is None or name in self.folded else (self.folded, name)

    def found(self) -> dict[str, Any]:
        return self.folded | self.exact


class _First(_Wanted):
    """Collects the first words of a file, in lower case; of one word the first row."""

    def __init__(self, most: int) -> None:
        super().__init__(frozenset())
        self.words, self._most = None, most

    def place(self, word: bytes) -> tuple[dict[str, Any], str] | None:
        if len(self.exact) >= self._most:
            return None
        name = word.decode("utf-8", "replace").lower()
        plain = not any(sign.isspace() or sign in string.punctuation for sign in name)
        return (self.exact, name) if name and plain and name not in self.exact else None


class _Joined(io.RawIOBase):
    """`head`, then what `file` still has."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head, self._file = memoryview(head), file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._head[: len(buffer)] or self._file.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file on disk or in a bucket, in hex; raises FramebankError."""
    with _opened(path) as file:
        return file_hash(file)


def read_vectors(path: str, words: Set[str], *, say: Callable[[str], None]) -> VectorFile:
    """Return the vectors of `words` (lower case) in the file; raises UsageError for a bad one."""
    return _read_file(path, _Wanted(words), say)


def read_first_vectors(path: str, most: int, *, say: Callable[[str], None]) -> VectorFile:
    """Return the vectors of the first words in the file, `most` of them at most, in its order: the
    commonest, as such files are written. Words are in lower case and hold no punctuation. Raises
    UsageError for a bad file and for fastText's own binary format, which names n-grams as well."""
    return _read_file(path, _First(most), say)


def _read_file(path: str, wanted: _Wanted, say: Callable[[str], None]) -> VectorFile:
    with _opened(path) as raw:
        file = _buffered(raw)
        try:
            if file.peek(2)[:2] == b"\x1f\x8b":
                file = _buffered(gzip.GzipFile(fileobj=file))
            return _read(file, wanted, _Teller(path, say))
        except (_DamagedError, EOFError, zlib.error, gzip.BadGzipFile) as err:
            bad = err if isinstance(err, _DamagedError) else _DamagedError(f"gzip: {err}")
            raise UsageError(
                f"{path} cannot be read as {bad.kind}",
                got=bad.got,
                expected=bad.expected,
                todo="check --embeddings, or fetch the file again",
            ) from err


class _DamagedError(Exception):
    """A file that holds no vectors, or damaged ones: what was `got` in it, and what `expected`."""

    kind = "word vectors"

    def __init__(self, got: object, expected: object = None) -> None:
        self.got = got
        self.expected = expected or "GloVe, word2vec or fastText, as text or binary, also as .gz"


class _DamagedFasttextError(_DamagedError):
    kind = "a fastText model"

    def __init__(self, got: object) -> None:
        super().__init__(got, f"an unquantised .bin of version {_FASTTEXT_VERSION}")


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        with storage.open_read(path) as file:
            yield file
    except storage.FileMissingError as err:
        raise UsageError("there is no such file of word vectors", got=path) from err


def _buffered(file: object) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, file), _CHUNK_BYTES)


class _Teller:
    """Says now and then how many rows were read."""

    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        self._path, self._say, self._said_s = path, say, time.monotonic()

    def __call__(self, rows: int) -> None:
        if time.monotonic() - self._said_s >= _SAY_EVERY_S:
            self._say(f"{rows} rows of {self._path} read")
            self._said_s = time.monotonic()


def _read(file: BinaryIO, wanted: _Wanted, tell: _Teller) -> VectorFile:
    head = file.read(_LOOK_BYTES)
    rest = _buffered(_Joined(head, file))
    if not head:
        raise _DamagedError("an empty file")
    if head.startswith(b"PK\3\4"):  # as GloVe and fastText's .vec come
        raise _DamagedError("a zip archive", "the file in it: unzip it first")
    if head.startswith(_FASTTEXT):
        if wanted.words is None:
            raise _DamagedError("a fastText .bin", "its vectors as text (.vec), by frequency")
        try:
            return VectorFile("fastText binary", *_read_fasttext(rest, wanted.words, tell))
        except (struct.error, EOFError) as err:
            raise _DamagedFasttextError("the file ends too early") from err
    first, _, after = head.partition(b"\n")
    header = re.fullmatch(rb"(\d{1,12}) (\d{1,6})\s*", first)
    if header is None:
        size = len(first.replace(b"\t", b" ").split()) - 1
        if not 1 <= size <= _MOST_SIZE or _numbers(first, size) is None:
            raise _DamagedError(f"{first[:60]!r} at its start")
        return VectorFile("GloVe text", size, _read_text(rest, size, wanted, tell))
    rows, size = int(header[1]), int(header[2])
    if not (rows and 1 <= size <= _MOST_SIZE):
        raise _DamagedError(f"{rows} words of dimension {size} in line 1")
    rest.readline()
    text = _is_text(after.split(b"\n", 1)[0], size)
    read = _read_text if text else _read_binary
    found = read(rest, size, wanted, tell, rows=rows)
    return VectorFile("word2vec text" if text else "word2vec binary", size, found)


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
    file: BinaryIO, size: int, wanted: _Wanted, tell: _Teller, *, rows: int | None = None
) -> dict[str, Vector]:
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
            raise _DamagedError(f"{spaces} numbers in line {number}", f"{size} numbers")
        place = wanted.place(word)
        # A row that is too long looks like a word with a space in it, which GloVe has as well.
        if b" " in word and _numbers(b"x " + word.rsplit(b" ", 1)[1], 1) is not None:
            got = len(plain.split()) - 1
            if _numbers(plain, got) is not None:
                raise _DamagedError(f"{got} numbers in line {number}", f"{size} numbers")
        if place is not None:
            vector = _numbers(plain, size)
            if vector is None or not np.isfinite(vector).all():
                raise _DamagedError(f"no finite numbers in line {number} ({word[:40]!r})")
            place[0][place[1]] = vector
        if number % 4096 == 0:
            tell(number)
    if rows is not None and found < rows:
        raise _DamagedError(f"{found} words, then the file ends", f"{rows}, as line 1 says")
    return wanted.found()


def _read_binary(
    file: BinaryIO, size: int, wanted: _Wanted, tell: _Teller, *, rows: int
) -> dict[str, Vector]:
    buffer, at, width = b"", 0, 4 * size
    for number in range(1, rows + 1):
        if len(buffer) - at < _MOST_WORD + width:
            buffer, at = buffer[at:] + file.read(_CHUNK_BYTES + width), 0
        space = buffer.find(b" ", at, at + _MOST_WORD)
        end = space + 1 + width
        if space < 0 or end > len(buffer):
            got = f"word {number} is not whole"
            raise _DamagedError(got, f"{rows} words of dimension {size}, as line 1 says")
        place = wanted.place(buffer[at:space].lstrip(b"\n"))
        if place is not None:
            vector = np.frombuffer(buffer, "<f4", size, space + 1).copy()
            if not np.isfinite(vector).all():
                raise _DamagedError(f"no finite numbers for word {number}")
            place[0][place[1]] = vector
        at = end
        if number % 4096 == 0:
            tell(number)
    return wanted.found()


def _read_fasttext(file: BinaryIO, words: Set[str], tell: _Teller) -> tuple[int, dict[str, Vector]]:
    """Return (dimension, vectors); raises UsageError, EOFError, struct.error."""
    _, version = _unpack(file, "<ii")
    if version != _FASTTEXT_VERSION:
        raise _DamagedFasttextError(f"version {version}")
    size, *_, bucket, shortest, longest, _ = _unpack(file, "<12i")
    _unpack(file, "<d")
    entries, count, _, _, pruned = _unpack(file, "<iiiqq")
    if not (0 < size < 2**14 and 0 <= count <= entries and bucket >= 0 and shortest <= longest):
        raise _DamagedFasttextError(f"{count} words of dimension {size}")
    numbers, file = _read_fasttext_words(file, entries, words, tell)
    if pruned > 0 or _unpack(file, "<?")[0]:
        raise _DamagedFasttextError("a quantised model (.ftz)")
    rows, width = _unpack(file, "<qq")
    if width != size or rows < count + bucket * (longest > 0):
        raise _DamagedFasttextError(f"a matrix of {rows} rows of {width}")
    needed: dict[str, list[int]] = {}
    for word in sorted(words):
        place, written = numbers.get(word, (None, word))
        own = [] if place is None else [place]
        ngrams = _ngrams(written.encode("utf-8", "replace"), shortest, longest) if bucket else ()
        needed[word] = own + [count + _hash(ngram) % bucket for ngram in ngrams]
    found = _read_rows(file, set(itertools.chain(*needed.values())), size, tell)
    return size, {
        word: np.mean([found[row] for row in its], axis=0, dtype=np.float32)
        for word, its in needed.items()
        if its
    }


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _read_fasttext_words(
    file: BinaryIO, entries: int, words: Set[str], tell: _Teller
) -> tuple[dict[str, tuple[int, str]], BinaryIO]:
    """Return (row, as it is written) of the wanted words, and what comes after all words."""
    wanted = _Wanted(words)
    buffer, at = b"", 0
    for number in range(entries):
        if len(buffer) - at < _MOST_FASTTEXT_WORD:
            buffer, at = buffer[at:] + file.read(_CHUNK_BYTES), 0
        end = buffer.find(b"\0", at)
        if end < 0 or end + 10 > len(buffer):
            raise EOFError
        word, kind = buffer[at:end], buffer[end + 9]
        at = end + 10
        place = wanted.place(word) if kind == _FASTTEXT_WORD else None
        if place is not None:
            place[0][place[1]] = (number, word.decode("utf-8", "replace"))
        if number % 4096 == 0:
            tell(number)
    return wanted.found(), _buffered(_Joined(buffer[at:], file))


def _read_rows(file: BinaryIO, needed: set[int], size: int, tell: _Teller) -> dict[int, Vector]:
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
            raise _DamagedFasttextError(f"no finite numbers in row {row}")
    return found


def _ngrams(word: bytes, shortest: int, longest: int) -> Iterator[bytes]:
    """Yield the n-grams of letters of <word>, as Dictionary::computeSubwords does."""
    if word == _FASTTEXT_END:
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
