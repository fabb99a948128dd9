"""The words of a question: from raw strings to numbers, and the network that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from framebank.features.errors import UsageError
from framebank.features.questions.word_cutting import cut_words, encode_texts
from framebank.train.model.config import ModelConfig

# Word numbers: 0 pads, 1 is an unknown word and also opens every question, so that a question
# without a single known or unknown word still has one step.
START_WORD = 1
SPECIAL_WORDS = 2


def read_question(word_ids: Any, config: ModelConfig, words: int) -> Any:
    """Return float[b, q] of word numbers int32[b, l], padded on the right with 0."""
    mask = ops.not_equal(word_ids, 0)
    embedded = layers.Embedding(words, config.word_size, name="embedding")(word_ids)
    embedded = layers.SpatialDropout1D(config.dropout / 2)(embedded)
    return layers.LSTM(config.question_units, name="question")(embedded, mask=mask)


def text_layer(
    questions: Sequence[str],
    *,
    max_words: int,
    language: str | None = None,
    choices: Sequence[str] = (),
) -> keras.layers.TextVectorization:
    """Return the layer string[b] → int64[b, l] with the commonest words of `questions`.

    Those of their `choices` count too. Lower case and punctuation are Keras' own, every script is
    kept. Questions written without spaces (Chinese, Japanese, Thai) are cut into characters, unless
    their `language` is known. Raises UsageError where there is not one word.
    """
    if language is not None:
        questions = [cut_words(question, language) for question in questions]
        choices = [cut_words(choice, language) for choice in choices]
    split = "character" if language is None and without_spaces(questions) else "whitespace"
    layer = keras.layers.TextVectorization(
        max_tokens=max_words + SPECIAL_WORDS, standardize="lower_and_strip_punctuation", split=split
    )
    layer.adapt(sorted(encode_texts([*questions, *choices])))
    if layer.vocabulary_size() <= SPECIAL_WORDS:
        raise UsageError(
            "no training question has a word in it",
            got=f"{questions[0]!r:.60} and others of punctuation alone",
            expected="questions in words" + (f" of the language {language}" if language else ""),
        )
    return layer


def without_spaces(questions: Sequence[str]) -> bool:
    """Return whether most questions are written without a space, and not in ASCII: `action?` is a
    word."""
    alone = sum(len(one.split()) == 1 and not one.isascii() for one in questions)
    return 2 * alone > len(questions)


def word_numbers(text: keras.layers.TextVectorization, questions: Any) -> Any:
    """Return int[b, l + 1]: START_WORD, then the questions' word numbers, padded with 0."""
    return ops.pad(text(questions), [[0, 0], [1, 0]], constant_values=START_WORD)


def text_of(words: Sequence[str]) -> keras.layers.TextVectorization:
    """Return the layer string[b] → int64[b, l] that knows just `words`, in lower case."""
    return keras.layers.TextVectorization(
        vocabulary=list(words), standardize="lower_and_strip_punctuation", split="whitespace"
    )
