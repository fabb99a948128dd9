"""Image question answering as it was first done: word vectors and three LSTMs beside the picture.

The question's vectors (30 of 300, padded on the right) go through three LSTMs of 512, the last of
which gives one vector; joined with the picture's 4096 (VGG16, fc2) it passes three dense layers of
1024 (tanh, uniform weights, half of them dropped) to a softmax over the 1000 commonest answers:
13,707,240 parameters beside the vectors. Source: Antol et al. 2015, arXiv:1505.00468, and the
network that github.com/avisingh599/visual-qa made known, whose files join language first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from framebank.train.model.config import ModelConfig

if TYPE_CHECKING:
    pass

QUESTION_WORDS = 30
READERS, DENSE_LAYERS = 3, 3


def read_image_question(vectors: Any, mask: Any, config: ModelConfig) -> Any:
    """Return float[b, q] of a question's word vectors float[b, l, w], of which `mask` bool[b, l]
    says which are words."""
    from keras import layers

    read = vectors
    for number in range(READERS):
        last = number == READERS - 1
        lstm = layers.LSTM(
            config.question_units, return_sequences=not last, name=f"question{number}"
        )
        read = lstm(read, mask=mask)
    return read


def answer_image_question(picture: Any, question: Any, config: ModelConfig) -> Any:
    """Return float[b, dense_units] of the picture float[b, d] and the question float[b, q]."""
    from keras import initializers, layers

    hidden = layers.Concatenate()([picture, question])
    for number in range(DENSE_LAYERS):
        hidden = layers.Dense(
            config.dense_units,
            activation="tanh",
            kernel_initializer=initializers.RandomUniform(),
            name=f"dense{number}",
        )(hidden)
        hidden = layers.Dropout(config.dropout)(hidden)
    return hidden
