"""The seed's model: LSTM over frames ‖ embedding and LSTM over words → dense → softmax.

`build_network` makes what is trained (features and word numbers in); `export` wraps it with the
text layer into what is saved: one `.keras` file of Keras' own layers, loadable in safe mode, that
takes raw question strings and features padded on the right with rows of zeros. Padding never
changes an answer, and masks are right-padded with at least one step, as cuDNN's LSTM wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from train.config import ModelConfig
from train.standardise import FrameStatistics

if TYPE_CHECKING:
    import keras

# Word numbers: 0 pads, 1 is an unknown word and also opens every question, so that a question
# without a single known or unknown word still has one step.
START_WORD = 1


def build_network(
    config: ModelConfig, statistics: FrameStatistics, *, words: int, answers: int
) -> keras.Model:
    """Return {"features": float32[b, n, d], "words": int32[b, l]} → probabilities float32[b, a].

    `words` is the size of the text layer's vocabulary with its two special entries.
    """
    import keras

    features = keras.Input((None, len(statistics.mean)), name="features", dtype="float32")
    word_ids = keras.Input((None,), name="words", dtype="int32")
    parts = [_question_branch(word_ids, config, words)]
    if config.kind != "question_only":
        parts.insert(0, _frame_branch(features, config, statistics))
    joined = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    joined = keras.layers.Dropout(config.dropout)(joined)
    hidden = keras.layers.Dense(config.dense_units, activation="relu", name="hidden")(joined)
    hidden = keras.layers.Dropout(config.dropout)(hidden)
    scores = keras.layers.Dense(answers, activation="softmax", name="answers", dtype="float32")
    inputs = {"features": features, "words": word_ids}
    return keras.Model(inputs, scores(hidden), name=config.kind)


def _frame_branch(features: Any, config: ModelConfig, statistics: FrameStatistics) -> Any:
    """Standardise → project → LSTM (or mean of frames), over the rows before the padding."""
    from keras import layers, ops

    # A frame is there when it or a later one has any value: holes never break right-padding.
    filled = ops.cast(ops.any(ops.not_equal(features, 0.0), axis=-1), "int32")
    mask = ops.greater(ops.flip(ops.cumsum(ops.flip(filled, axis=1), axis=1), axis=1), 0)
    first = ops.less_equal(ops.cumsum(ops.ones_like(filled), axis=1), 1)
    mask = ops.logical_or(mask, first)
    scale = layers.Normalization(
        mean=statistics.mean, variance=statistics.variance, dtype="float32"
    )
    frames = ops.clip(scale(features), -config.clip_sigma, config.clip_sigma)
    # The same columns are dropped in all frames: noise that differs per frame would look like
    # movement.
    frames = layers.SpatialDropout1D(config.frame_dropout)(frames)
    gain = _gain(len(statistics.mean))
    frames, project = ops.multiply(frames, gain), _projection(config, gain)
    if config.kind == "order_blind":
        mean = project(layers.GlobalAveragePooling1D()(frames, mask=mask))
        return layers.Dense(config.frame_units, activation="tanh", name="frames")(mean)
    return layers.LSTM(config.frame_units, name="frames")(project(frames), mask=mask)


def _gain(width: int) -> float:
    """Return what standardised features are multiplied with: 1/16 for 2048 of them.

    Adam moves every weight by about the learning rate, so thousands of inputs at full scale would
    move a unit by several times its range in one step, and training follows noise.
    """
    return float(min(1.0, (8 / width) ** 0.5))


def _projection(config: ModelConfig, gain: float) -> Any:
    """Return the dense layer whose units start with a deviation of 1 in spite of `gain`."""
    import keras

    start = keras.initializers.VarianceScaling(1 / gain**2)
    return keras.layers.Dense(
        config.projection, activation="tanh", kernel_initializer=start, name="project"
    )


def _question_branch(word_ids: Any, config: ModelConfig, words: int) -> Any:
    from keras import layers, ops

    mask = ops.not_equal(word_ids, 0)
    embedded = layers.Embedding(words, config.word_size, name="embedding")(word_ids)
    embedded = layers.SpatialDropout1D(config.dropout / 2)(embedded)
    return layers.LSTM(config.question_units, name="question")(embedded, mask=mask)


def text_layer(questions: Sequence[str], *, max_words: int) -> keras.layers.TextVectorization:
    """Return the layer string[b] → int64[b, l] with the commonest words of `questions`.

    Lower case and punctuation are Keras' own, every script is kept. Questions written without
    spaces (Chinese, Japanese, Thai) are cut into characters.
    """
    import keras

    single = sum(len(question.split()) == 1 for question in questions)
    split = "character" if 2 * single > len(questions) else "whitespace"
    layer = keras.layers.TextVectorization(
        max_tokens=max_words + 2, standardize="lower_and_strip_punctuation", split=split
    )
    layer.adapt(sorted(questions))
    return layer


def word_numbers(text: keras.layers.TextVectorization, questions: Any) -> Any:
    """Return int[b, l + 1]: START_WORD, then the questions' word numbers, padded with 0."""
    from keras import ops

    return ops.pad(text(questions), [[0, 0], [1, 0]], constant_values=START_WORD)


def export(network: keras.Model, text: keras.layers.TextVectorization) -> keras.Model:
    """Return {"features": float32[b, n, d], "question": string[b]} → float32[b, a], to be saved."""
    import keras

    features = keras.Input(network.input["features"].shape[1:], name="features", dtype="float32")
    question = keras.Input((), name="question", dtype="string")
    words = keras.ops.cast(word_numbers(text, question), "int32")
    inputs = {"features": features, "question": question}
    return keras.Model(inputs, network({"features": features, "words": words}), name="framebank")
