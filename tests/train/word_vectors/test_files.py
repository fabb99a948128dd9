"""Every published format is recognised and read; damaged files say where."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.train.word_vectors.files import file_sha256, read_vectors
from tests.made.word_vectors import WRITERS, fasttext, glove, word2vec_binary, word2vec_text

VECTORS = {
    "man": [1, 0, 0.5],
    "Paris": [2, 1, 0],
    "paris": [9, 9, 9],
    "Rome": [0, 3, 0],
    "男": [4, 4, 4],
}
WORDS = {"man", "paris", "rome", "男", "nowhere"}


def _read(path, words=WORDS):
    return read_vectors(str(path), words, say=print)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", WRITERS)
def test_every_format_is_found_and_read(tmp_path, form, zipped):
    path = tmp_path / "vectors"
    WRITERS[form](path, VECTORS)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    file = _read(path)
    assert (file.format, file.size) == (form, 3)
    found = {word: vector.tolist() for word, vector in file.vectors.items()}
    # The word as it is written comes before another one that only is in lower case.
    assert found == {"man": [1, 0, 0.5], "paris": [9, 9, 9], "rome": [0, 3, 0], "男": [4, 4, 4]}


def test_the_first_of_a_word_wins_and_words_may_hold_spaces(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("a 1 2\n. . . 5 6\na 3 4\n")
    assert _read(path, {"a"}).vectors["a"].tolist() == [1, 2]


def test_fasttext_knows_unknown_words_by_their_letters(tmp_path):
    path = tmp_path / "v.bin"
    fasttext(path, {"cat": [3, 3]}, bucket=5, ngrams=[1, 0])
    vectors = _read(path, {"cat", "dogs"}).vectors
    assert vectors["dogs"].tolist() == [1, 0]
    # Its own row, and <ca, cat, at>.
    assert np.allclose(vectors["cat"], [6 / 4, 3 / 4])


def test_a_binary_file_larger_than_what_is_held_is_read(tmp_path):
    many = {f"w{number}": [number, -number] * 100 for number in range(12_000)}
    for write in (word2vec_binary, fasttext):
        write(tmp_path / "v", many)
        vectors = _read(tmp_path / "v", {"w0", "w11999"}).vectors
        assert vectors["w11999"][:2].tolist() == [11999, -11999] and len(vectors) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "at its start"),
        (b"hello world\n", "at its start"),
        (b"PK\3\4" + bytes(99), "unzip"),
        (b"a 1 2\nman 1\n", "1 numbers in line 2"),
        (b"a 1 2\nman 1 2 3\n", "3 numbers in line 2"),
        (b"a 1 2\nman nan 2\n", "line 2"),
        (b"a 1 2\nman x 2\n", "line 2"),
        (b"3 2\na 1 2\nman 1 2\n", "2 words, then the file ends"),
        (b"3 2\n\na 1 2\n\nman 1 2\n\n", "2 words, then the file ends"),
        (b"0 2\n", "0 words"),
        (b"2 2\nman \0\0\0\0\0\0\xc0\x7f\nb 12345678\n", "word 1"),
        (gzip.compress(b"a 1 2\n" * 1000, mtime=0)[:-20], "gzip"),
    ],
)
def test_damage_is_named(tmp_path, text, said):
    path = tmp_path / "v"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=said):
        _read(path)


@pytest.mark.parametrize("write", [word2vec_binary, fasttext, word2vec_text])
def test_truncated_files_are_refused(tmp_path, write):
    path = tmp_path / "v"
    write(path, VECTORS)
    path.write_bytes(path.read_bytes()[:-15])
    with pytest.raises(UsageError, match="cannot be read"):
        _read(path)


def test_a_missing_file_is_named_and_content_has_a_hash(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        file_sha256(str(tmp_path / "none"))
    glove(tmp_path / "v", VECTORS)
    assert len(file_sha256(str(tmp_path / "v"))) == 64
