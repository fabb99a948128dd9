"""Image question answering as it was first done: word vectors and three LSTMs beside the picture.

The question's vectors (30 of 300, padded on the right) go through three LSTMs of 512, the last of
which gives one vector; joined with the picture's 4096 (VGG16, fc2) it passes three dense layers of
1024 (tanh, uniform weights, half of them dropped) to a softmax over the 1000 commonest answers:
13,707,240 parameters in LSTMs and dense layers; the word vectors, which were given and not learnt,
do not count. Source: Antol et al. 2015, arXiv:1505.00468, and the network that
github.com/avisingh599/visual-qa made known, whose files join language first.

What is trained here takes the picture standardised, and its LSTMs skip the padding. Weights
that Keras 1 or 2 saved were learnt on the picture as it is, with the padding read as words of
zeros: with `published` the network does just that.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import initializers, layers, ops

from framebank.train.model.config import DENSE_LAYERS, GATES, READERS, ModelConfig
from framebank.train.model.frames import FrameStatistics, frame_mask, make_frames

QUESTION_WORDS = 30


def image_network(
    config: ModelConfig,
    *,
    words: int,
    answers: int,
    width: int,
    statistics: FrameStatistics | None = None,
    gates: str = GATES[0],
) -> keras.Model:
    """Return {"features": float32[b, n, width], "words": int32[b, 1 + l]} → float32[b, answers].

    Of a clip with several frames the picture is their mean. The first of the words opens the
    question and is left out. Without `statistics` the network is as published; `gates` is the
    activation of the LSTMs' gates.
    """
    features = keras.Input((None, width), name="features", dtype="float32")
    word_ids = keras.Input((None,), name="words", dtype="int32")
    frames, mask = features, frame_mask(features)
    if statistics is not None:
        frames = make_frames(features, config, statistics).scaled
    picture = layers.GlobalAveragePooling1D(name="picture")(frames, mask=mask)
    question = _read_question(word_ids, config, words, gates, padding=statistics is None)
    hidden = layers.Concatenate()([question, picture])
    for number in range(DENSE_LAYERS):
        hidden = layers.Dense(
            config.dense_units,
            activation="tanh",
            kernel_initializer=initializers.RandomUniform(),
            name=f"dense{number}",
        )(hidden)
        hidden = layers.Dropout(config.dropout)(hidden)
    said = layers.Dense(answers, activation="softmax", name="answers", dtype="float32")(hidden)
    return keras.Model({"features": features, "words": word_ids}, said, name=config.kind)


def _read_question(
    word_ids: Any, config: ModelConfig, words: int, gates: str, *, padding: bool
) -> Any:
    """Return float[b, question_units] of the first QUESTION_WORDS words; with `padding` the LSTMs
    read up to as many, whose vectors are those of the word 0."""
    more = QUESTION_WORDS if padding else 1  # a question without a word has one step
    ids = ops.pad(word_ids[:, 1:], [[0, 0], [0, more]])[:, :QUESTION_WORDS]
    read = layers.Embedding(words, config.word_size, name="embedding")(ids)
    mask = None
    if not padding:
        there = ops.not_equal(ids, 0)
        first = ops.less_equal(ops.cumsum(ops.ones_like(ids), axis=1), 1)
        mask = ops.logical_or(there, first)
    for number in range(READERS):
        last = number == READERS - 1
        lstm = layers.LSTM(
            config.question_units,
            recurrent_activation=gates,
            return_sequences=not last,
            name=f"question{number}",
        )
        read = lstm(read, mask=mask)
    return read
