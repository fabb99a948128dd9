"""The model: a reader of frames ‖ embedding and LSTM over words → dense → softmax.

`build_network` makes what is trained (features and word numbers in); `export` wraps it with the
text layer into what is saved: one `.keras` file of Keras' own layers, loadable in safe mode, that
takes raw question strings and features padded on the right with rows of zeros. Padding never
changes an answer, and masks are right-padded with at least one step, as cuDNN's LSTM wants them.

What reads the frames is the kind of model:

- lstm: the seed's branch, and the default: an LSTM reads the frames in order.
- bigru: two GRUs, one from the first frame and one from the last.
- mean: the mean frame, which says nothing of order: what a reader of order must beat.
- attention: the question weighs the frames (additive attention, Bahdanau et al. 2015,
  arXiv:1409.0473). A frame's weight follows from its picture and the question alone: this kind
  finds the frame that matters but does not know the order of frames.
- transformer: the question and the frames, each with its place, look at one another. Pre-norm
  blocks (Xiong et al. 2020, arXiv:2002.04745), sines for the places (Vaswani et al. 2017,
  arXiv:1706.03762). The question stands first, and what becomes of it is read.
- wide: the LSTM beside `direct_path` from the mean frame to the answers. What things are shows in
  the mean frame, and a few hundred clips suffice to read it off nearly linearly; what happens shows
  in their order. The LSTM must not learn the first anew.
- vote: each frame alone is classified, and the answer is the mean of what they say.
- mlp: dense layers over the mean frame and the clip's moments, no recurrence.
- cnn_lstm, cnn3d: pictures, of a cache of pixels (`train.model.picture_readers`).
- image_qa: a picture and three LSTMs of words, a network of its own (`train.model.image_qa`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from framebank.train.model.config import IMAGE_QA, ModelConfig
from framebank.train.model.frames import Frames, FrameStatistics, gain, make_frames, projection
from framebank.train.model.heads import CHOICE, COUNT, OPEN_HEAD, SEGMENTS, Head
from framebank.train.model.image_qa import image_network
from framebank.train.model.moments import MOMENTS, ORDER_BLIND, Scale, temporal_moments
from framebank.train.model.picture_readers import PICTURE_READERS
from framebank.train.model.text import read_question, word_numbers

_HIDDEN = -1e9  # the score of padding: its weight is 0
_BLOCKS = 2
_HEADS = 4
_LONGEST = 200.0  # frames in the longest wave, over 2π
_WIDE_UNITS = 512
_MOMENT_UNITS = 128


def read_lstm(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, frame_units], the state after the last frame; it is blind to `question`."""
    return layers.LSTM(config.frame_units, name="frames")(frames.seen, mask=frames.mask)


def read_bigru(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, 2 · ⌈frame_units / 2⌉], the states of both; they are blind to `question`."""
    gru = layers.GRU(-(-config.frame_units // 2))
    return layers.Bidirectional(gru, name="frames")(frames.seen, mask=frames.mask)


def read_mean(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, frame_units] of the mean frame; it is blind to `question`."""
    mean = layers.GlobalAveragePooling1D()(frames.scaled, mask=frames.mask)
    return layers.Dense(config.frame_units, activation="tanh", name="frames")(frames.project(mean))


def read_by_attention(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, 2 · frame_units]: the weighed mean of the frames, alone and gated by
    `question` float[b, q]."""
    seen = layers.Dense(config.frame_units, name="frame_key")(frames.seen)
    asked = layers.Dense(config.frame_units, use_bias=False, name="question_key")(question)
    both = ops.tanh(ops.add(seen, ops.expand_dims(asked, 1)))
    scores = ops.squeeze(layers.Dense(1, use_bias=False, name="attention")(both), -1)
    shares = ops.softmax(ops.where(frames.mask, scores, _HIDDEN), axis=-1)
    values = layers.Dense(config.frame_units, activation="tanh", name="frames")(frames.seen)
    mean = ops.sum(ops.multiply(values, ops.expand_dims(shares, -1)), axis=1)
    gate = layers.Dense(config.frame_units, activation="sigmoid", name="gate")(question)
    return layers.Concatenate()([mean, ops.multiply(mean, gate)])


def read_by_transformer(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, w] of the question after it has seen the frames; w is frame_units made up to
    a multiple of twice the heads."""
    width = -(-config.frame_units // (2 * _HEADS)) * 2 * _HEADS
    seen = layers.Dense(width, name="frames")(frames.seen)
    seen = ops.add(seen, _places(frames.mask, width))
    asked = ops.expand_dims(layers.Dense(width, name="asked")(question), 1)
    tokens = layers.Concatenate(axis=1)([asked, seen])
    there = ops.pad(ops.cast(frames.mask, "int32"), [[0, 0], [1, 0]], constant_values=1)
    there = ops.expand_dims(ops.cast(there, "bool"), 1)  # bool[b, 1, 1 + n]: no one sees padding
    for number in range(_BLOCKS):
        tokens = _block(tokens, there, width, config.dropout, name=f"block{number}")
    return layers.LayerNormalization(name="read")(tokens[:, 0])


def _places(mask: Any, width: int) -> Any:
    """Return float[b, n, width]: sines and cosines of each frame's number."""
    number = ops.cumsum(ops.ones_like(ops.cast(mask, "float32")), axis=1)
    waves = _LONGEST ** -np.linspace(0, 1, width // 2, dtype=np.float32)
    angle = ops.multiply(ops.expand_dims(number, -1), waves.reshape(1, 1, -1))
    return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)


def _block(tokens: Any, there: Any, width: int, dropout: float, *, name: str) -> Any:
    # Dropout stands outside of the attention, where its noise can be made the row's own.
    attention = layers.MultiHeadAttention(_HEADS, width // _HEADS, name=f"{name}_attention")
    normal = layers.LayerNormalization(name=f"{name}_before")(tokens)
    moved = attention(normal, normal, attention_mask=there)
    tokens = layers.Add()([tokens, layers.Dropout(dropout)(moved)])
    normal = layers.LayerNormalization(name=f"{name}_between")(tokens)
    moved = layers.Dense(2 * width, activation="gelu", name=f"{name}_widen")(normal)
    moved = layers.Dense(width, name=f"{name}_narrow")(moved)
    return layers.Add()([tokens, layers.Dropout(dropout)(moved)])


def direct_path(frames: Frames, question: Any) -> Any:
    """Return float[b, u] of the mean frame and the question: what the answers of "wide" see."""
    mean = layers.GlobalAveragePooling1D()(frames.scaled, mask=frames.mask)
    wide = projection(_WIDE_UNITS, frames.scaled.shape[-1], name="wide")
    return layers.Concatenate()([wide(mean), question])


def moments_path(features: Any, mask: Any, config: ModelConfig, scale: Scale) -> Any:
    """Return float[b, u] of the clip's moments: what few clips suffice to learn from; a kind that
    is blind to order sees those that are."""
    names = ORDER_BLIND if config.kind in ("mean", "attention", "order_blind") else MOMENTS
    made = temporal_moments(features, mask, names)
    seen = layers.Concatenate()([scale.apply(name, moment) for name, moment in made.items()])
    seen = layers.Dropout(config.frame_dropout)(seen)
    width = seen.shape[-1]
    return projection(_MOMENT_UNITS, width, name="moments")(ops.multiply(seen, gain(width)))


# (frames, question float[b, q], config) → float[b, v], by kind; question_only has none.
READERS: Mapping[str, Callable[[Frames, Any, ModelConfig], Any]] = {
    "lstm": read_lstm,
    "attention": read_by_attention,
    "transformer": read_by_transformer,
    "bigru": read_bigru,
    "wide": read_lstm,
    "mean": read_mean,
    "mlp": read_mean,  # the moments stand beside it
    "order_blind": read_mean,
}


def read_rows(frames: Frames, config: ModelConfig) -> Any:
    """Return float[b, n, segment_units]: what is known at each row, from all rows before it, from
    those after it too (bigru), or from itself alone (order_blind).

    Those who see the order see beside a row what has changed since the one before.
    """
    units, seen = config.segment_units, frames.seen
    if config.kind == "order_blind":
        return layers.Dense(units, activation="tanh", name="frames")(seen)
    before = ops.concatenate([seen[:, :1], seen[:, :-1]], axis=1)
    seen = ops.concatenate([seen, ops.subtract(seen, before)], axis=-1)
    if config.kind == "bigru":
        gru = layers.GRU(-(-units // 2), return_sequences=True)
        return layers.Bidirectional(gru, name="frames")(seen, mask=frames.mask)
    return layers.LSTM(units, return_sequences=True, name="frames")(seen, mask=frames.mask)


_TINY = 1e-7  # below any probability that matters


def build_network(
    config: ModelConfig,
    statistics: FrameStatistics,
    *,
    words: int,
    answers: int = 0,
    head: Head = OPEN_HEAD,
    scale: Scale | None = None,
) -> keras.Model:
    """Return {"features": float32[b, n, d], "words": int32[b, l]} → probabilities float32[b, a].

    Of labels, to which nothing is asked, there are no words; of segments neither, and the output is
    float32[b, n, a + 1], for each row of its own.

    `words` is the size of the text layer's vocabulary with its two special entries. With another
    head than open the output is float32[b, 1]: a number, or the score of the candidate whose words
    are the further input "choice" int32[b, l].
    """
    features = keras.Input((None, len(statistics.mean)), name="features", dtype="float32")
    if head.kind == SEGMENTS:
        return _segment_network(features, config, statistics, head)
    if config.kind == IMAGE_QA:
        count, width = answers or len(head.answers), len(statistics.mean)
        return image_network(config, words=words, answers=count, width=width, statistics=statistics)
    texts = ("words", "choice") if head.kind == CHOICE else ("words",) if head.asks else ()
    inputs = {name: keras.Input((None,), name=name, dtype="int32") for name in texts}
    inputs["features"] = features
    if head.kind == CHOICE:  # one reader for both texts
        ids = keras.Input((None,), dtype="int32")
        reader = keras.Model(ids, read_question(ids, config, words), name="reader")
        joined = question = reader(inputs["words"])
    elif head.asks:
        joined = question = read_question(inputs["words"], config, words)
    else:
        joined, question = None, ops.zeros_like(features[:, 0, :1])
    if config.kind == "vote":
        frames = make_frames(features, config, statistics)
        asked = question if head.asks else None
        output = _vote(frames, asked, config, answers or len(head.answers))
        return keras.Model(inputs, output, name=config.kind)
    if config.kind in PICTURE_READERS:
        video = PICTURE_READERS[config.kind](features, config, statistics)
        joined = video if joined is None else layers.Concatenate()([video, question])
    if config.kind in READERS:
        frames = make_frames(features, config, statistics)
        video = READERS[config.kind](frames, question, config)
        joined = video if joined is None else layers.Concatenate()([video, question])
    joined = layers.Dropout(config.dropout)(joined)
    hidden = layers.Dense(config.dense_units, activation="relu", name="hidden")(joined)
    hidden = layers.Dropout(config.dropout)(hidden)
    # A count is learnt worse with them (infra/decisions/0013-closed-formulas.md).
    if config.kind in READERS and scale is not None and head.kind != COUNT:
        hidden = layers.Concatenate()([hidden, moments_path(features, frames.mask, config, scale)])
    if config.kind == "wide":
        hidden = layers.Concatenate()([hidden, direct_path(frames, question)])
    if head.kind == CHOICE:
        output = _score_choice(hidden, reader(inputs["choice"]), config)
    elif head.kind == COUNT:  # the layers before learn the number standardised
        number = layers.Dense(1, name="number", dtype="float32")(hidden)
        output = layers.Rescaling(head.spread, offset=head.mean, dtype="float32")(number)
    else:
        output = layers.Dense(
            answers or len(head.answers), activation="softmax", name="answers", dtype="float32"
        )(hidden)
    return keras.Model(inputs, output, name=config.kind)


def _vote(frames: Frames, question: Any, config: ModelConfig, answers: int) -> Any:
    """Return float[b, answers]: the mean of what is said to each frame, as if it were alone."""
    seen = layers.Dropout(config.dropout)(frames.seen)
    hidden = layers.Dense(config.dense_units, name="hidden")(seen)
    if question is not None:
        asked = layers.Dense(config.dense_units, use_bias=False, name="asked")(question)
        hidden = ops.add(hidden, ops.expand_dims(asked, 1))
    hidden = layers.Dropout(config.dropout)(ops.relu(hidden))
    said = layers.Dense(answers, activation="softmax", name="answers", dtype="float32")(hidden)
    return layers.GlobalAveragePooling1D(dtype="float32")(said, mask=frames.mask)


def _segment_network(
    features: Any, config: ModelConfig, statistics: FrameStatistics, head: Head
) -> keras.Model:
    drop, wide = config.segment_dropout, max(config.projection, config.segment_units // 2)
    config = dataclasses.replace(config, projection=wide, dropout=drop, frame_dropout=drop)
    rows = read_rows(make_frames(features, config, statistics), config)
    rows = layers.Dropout(config.dropout)(rows)
    answers = layers.Dense(head.width, activation="softmax", name="answers", dtype="float32")
    return keras.Model({"features": features}, answers(rows), name=config.kind)


def _score_choice(hidden: Any, choice: Any, config: ModelConfig) -> Any:
    """Return the score float32[b, 1] of one candidate each, read as `choice` float[b, q].

    A softmax over the scores of a question's candidates gives their probabilities.
    """
    choice = layers.Dense(hidden.shape[-1], activation="tanh", name="choice_dense")(choice)
    # Not relu, under which workers drift apart: infra/decisions/0007-heads-and-few-clips.md.
    together = layers.Concatenate()([hidden, choice, layers.Multiply()([hidden, choice])])
    fits = layers.Dense(config.dense_units, activation="gelu", name="fits")(together)
    return layers.Dense(1, name="score", dtype="float32")(fits)


def average(networks: Sequence[keras.Model]) -> keras.Model:
    """Return one network whose outputs are the mean of those of `networks`, of one kind."""
    if len(networks) == 1:
        return networks[0]
    inputs = {
        name: keras.Input(it.shape[1:], name=name, dtype=it.dtype)
        for name, it in networks[0].input.items()
    }
    for number, network in enumerate(networks):
        network.name = f"{network.name}_{number}"
    outputs = [network(inputs) for network in networks]
    return keras.Model(inputs, layers.Average()(outputs), name="average")


def export(
    network: keras.Model, text: layers.TextVectorization | None, *, temperature: float = 1.0
) -> keras.Model:
    """Return the network with {"features", "question": string[b]} for inputs, to be saved.

    One of labels has no question, one that scores candidates the input "choice": string[b] too. The
    logits of the saved model are divided by `temperature`.
    """
    features = keras.Input(network.input["features"].shape[1:], name="features", dtype="float32")
    names = {"question": "words", "choice": "choice"}
    asked = {name: number for name, number in names.items() if number in network.input}
    inputs, numbers = {"features": features}, {}
    for name, number in asked.items():
        inputs[name] = keras.Input((), name=name, dtype="string")
        numbers[number] = ops.cast(word_numbers(text, inputs[name]), "int32")
    output = network({"features": features} | numbers)
    if temperature != 1 and "choice" in asked:
        output = output / temperature
    elif temperature != 1:
        output = ops.softmax(ops.log(output + _TINY) / temperature, axis=-1)
    return keras.Model(inputs, output, name="framebank")
