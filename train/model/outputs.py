"""The last layers of a network, by how it answers: a softmax, a score per candidate, a number."""

from __future__ import annotations

from typing import Any

from framebank.train.model.config import ModelConfig
from framebank.train.model.heads import Head


def answer_open(hidden: Any, answers: int) -> Any:
    """Return probabilities float32[b, answers]."""
    import keras

    return keras.layers.Dense(answers, activation="softmax", name="answers", dtype="float32")(
        hidden
    )


def score_choice(hidden: Any, choice: Any, config: ModelConfig) -> Any:
    """Return the score float32[b, 1] of one candidate each, read as `choice` float[b, q].

    A softmax over the scores of a question's candidates gives their probabilities.
    """
    from keras import layers

    choice = layers.Dense(hidden.shape[-1], activation="tanh", name="choice_dense")(choice)
    # Not relu: in a unit that is linear for all candidates the gradients of what they share cancel
    # out, and Adam would make steps of the rounding that is left, others with more workers.
    together = layers.Concatenate()([hidden, choice, layers.Multiply()([hidden, choice])])
    fits = layers.Dense(config.dense_units, activation="gelu", name="fits")(together)
    return layers.Dense(1, name="score", dtype="float32")(fits)


def say_number(hidden: Any, head: Head) -> Any:
    """Return the number float32[b, 1]; the layers before it learn it standardised."""
    from keras import layers

    number = layers.Dense(1, name="number", dtype="float32")(hidden)
    return layers.Rescaling(head.spread, offset=head.mean, dtype="float32")(number)
