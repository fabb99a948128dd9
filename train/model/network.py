"""The model: a reader of frames ‖ embedding and LSTM over words → dense → softmax.

`build_network` makes what is trained (features and word numbers in); `export` wraps it with the
text layer into what is saved: one `.keras` file of Keras' own layers, loadable in safe mode, that
takes raw question strings and features padded on the right with rows of zeros. Padding never
changes an answer, and masks are right-padded with at least one step, as cuDNN's LSTM wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import FrameStatistics, make_frames
from framebank.train.model.heads import CHOICE, COUNT, OPEN_HEAD, Head
from framebank.train.model.readers import READERS, direct_path
from framebank.train.model.text import read_question, word_numbers

if TYPE_CHECKING:
    import keras

_TINY = 1e-7  # below any probability that matters


def build_network(
    config: ModelConfig,
    statistics: FrameStatistics,
    *,
    words: int,
    answers: int = 0,
    head: Head = OPEN_HEAD,
) -> keras.Model:
    """Return {"features": float32[b, n, d], "words": int32[b, l]} → probabilities float32[b, a].

    `words` is the size of the text layer's vocabulary with its two special entries. With another
    head than open the output is float32[b, 1]: a number, or the score of the candidate whose words
    are the further input "choice" int32[b, l].
    """
    import keras

    features = keras.Input((None, len(statistics.mean)), name="features", dtype="float32")
    texts = ("words", "choice") if head.kind == CHOICE else ("words",)
    inputs = {name: keras.Input((None,), name=name, dtype="int32") for name in texts}
    inputs["features"] = features
    if head.kind == CHOICE:  # one reader for both texts
        ids = keras.Input((None,), dtype="int32")
        reader = keras.Model(ids, read_question(ids, config, words), name="reader")
        joined = question = reader(inputs["words"])
    else:
        joined = question = read_question(inputs["words"], config, words)
    if config.kind in READERS:
        frames = make_frames(features, config, statistics)
        video = READERS[config.kind](frames, question, config)
        joined = keras.layers.Concatenate()([video, question])
    joined = keras.layers.Dropout(config.dropout)(joined)
    hidden = keras.layers.Dense(config.dense_units, activation="relu", name="hidden")(joined)
    hidden = keras.layers.Dropout(config.dropout)(hidden)
    if config.kind == "wide":
        hidden = keras.layers.Concatenate()([hidden, direct_path(frames, question)])
    if head.kind == CHOICE:
        output = _score_choice(hidden, reader(inputs["choice"]), config)
    elif head.kind == COUNT:  # the layers before learn the number standardised
        number = keras.layers.Dense(1, name="number", dtype="float32")(hidden)
        output = keras.layers.Rescaling(head.spread, offset=head.mean, dtype="float32")(number)
    else:
        output = keras.layers.Dense(
            answers or len(head.answers), activation="softmax", name="answers", dtype="float32"
        )(hidden)
    return keras.Model(inputs, output, name=config.kind)


def _score_choice(hidden: Any, choice: Any, config: ModelConfig) -> Any:
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


def average(networks: Sequence[keras.Model]) -> keras.Model:
    """Return one network whose outputs are the mean of those of `networks`, of one kind."""
    import keras

    if len(networks) == 1:
        return networks[0]
    inputs = {name: keras.Input(it.shape[1:], name=name, dtype=it.dtype)
              for name, it in networks[0].input.items()}
    for number, network in enumerate(networks):
        network.name = f"{network.name}_{number}"
    outputs = [network(inputs) for network in networks]
    return keras.Model(inputs, keras.layers.Average()(outputs), name="average")


def export(
    network: keras.Model, text: keras.layers.TextVectorization, *, temperature: float = 1.0
) -> keras.Model:
    """Return the network with {"features", "question": string[b]} for inputs, to be saved.

    One that scores candidates has the input "choice": string[b] too. The logits of the saved model
    are divided by `temperature`.
    """
    import keras

    features = keras.Input(network.input["features"].shape[1:], name="features", dtype="float32")
    asked = {"question": "words"} | ({"choice": "choice"} if "choice" in network.input else {})
    inputs, numbers = {"features": features}, {}
    for name, number in asked.items():
        inputs[name] = keras.Input((), name=name, dtype="string")
        numbers[number] = keras.ops.cast(word_numbers(text, inputs[name]), "int32")
    output = network({"features": features} | numbers)
    if temperature != 1 and "choice" in asked:
        output = output / temperature
    elif temperature != 1:
        output = keras.ops.softmax(keras.ops.log(output + _TINY) / temperature, axis=-1)
    return keras.Model(inputs, output, name="framebank")
