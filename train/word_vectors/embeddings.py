"""Pretrained word vectors as the start of a model's embedding.

A word of the vocabulary that the file has starts from its vector. Of the others the common ones
start by chance, as in a model without vectors, and are learnt; rare ones, too few to learn from,
and the entry of unknown words start from the mean of the vectors found. All are trained further:
the model's vocabulary is that of its training questions, so none stays behind the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.errors import UsageError
from framebank.train.model.text import SPECIAL_WORDS, START_WORD
from framebank.train.word_vectors.files import read_vectors

COMMON = 5  # times in the training questions, from which a word without a vector is learnt
_NAMED = 10


@dataclasses.dataclass(frozen=True)
class WordVectors:
    """`rows` float32[words, size]; those where bool[words] `given` is false start by chance."""

    rows: NDArray[np.float32]
    given: NDArray[np.bool_]
    coverage: dict[str, Any]

    @property
    def size(self) -> int:
        return int(self.rows.shape[1])

    def start(self, network: Any) -> None:
        """Give them to the layer "embedding" of `network`."""
        # A network that chooses has it in the reader of both its texts.
        layers = network._flatten_layers(include_self=False)
        layer = next(layer for layer in layers if layer.name == "embedding")
        weights = layer.get_weights()
        weights[0][self.given] = self.rows[self.given]
        layer.set_weights(weights)


def find_vectors(
    path: str, words: Sequence[str], *, asked: NDArray[np.int64], say: Callable[[str], None]
) -> WordVectors:
    """Return vectors for the vocabulary `words`, whose first two entries are special.

    `asked` int64[words] is how often each word stands in the training questions. Raises UsageError
    for a file that is no good, and for one that has none of the words.
    """
    file = read_vectors(path, set(words[SPECIAL_WORDS:]), say=say)
    if not file.vectors:
        raise UsageError(
            f"{path} has none of the words of the questions",
            got=f"{file.format} of dimension {file.size}",
            expected="vectors of the language that the questions are in",
            todo="check --embeddings and --language",
        )
    rows = np.zeros((len(words), file.size), np.float32)
    found = np.zeros(len(words), np.bool_)
    for number, word in enumerate(words):
        if number >= SPECIAL_WORDS and word in file.vectors:
            rows[number], found[number] = file.vectors[word], True
    rare = ~found & (asked < COMMON)
    rare[0], rare[START_WORD] = False, True
    rows[rare] = rows[found].mean(axis=0)
    coverage = _coverage(words, found, asked) | {"format": file.format, "dimension": file.size}
    say(f"{file.format} of dimension {file.size}: " + _describe(coverage))
    return WordVectors(rows, found | rare, coverage)


def _coverage(
    words: Sequence[str], found: NDArray[np.bool_], asked: NDArray[np.int64]
) -> dict[str, Any]:
    missing = [n for n in range(SPECIAL_WORDS, len(words)) if not found[n]]
    missing.sort(key=lambda number: -asked[number])
    total = int(asked[SPECIAL_WORDS:].sum())
    return {
        "words": len(words) - SPECIAL_WORDS,
        "found": int(found.sum()),
        "share_of_words_asked": float(asked[found].sum() / max(total, 1)),
        "missing": [words[number] for number in missing[:100]],
    }


def _describe(coverage: dict[str, Any]) -> str:
    words, found, missing = (coverage[name] for name in ("words", "found", "missing"))
    text = (
        f"{found} of {words} words ({found / words:.1%}), "
        f"{coverage['share_of_words_asked']:.1%} of the words asked"
    )
    if missing:
        more = ", ..." if words - found > _NAMED else ""
        text += f"; missing: {', '.join(missing[:_NAMED])}{more}"
    return text
