"""The model: a reader of frames ‖ embedding and LSTM over words → dense → softmax.

What reads the frames is the model's kind: an LSTM (the seed's model, and the default), attention, a
transformer, a bidirectional GRU or their mean, each in a file `model_<kind>.py`.

`build_network` makes what is trained (features and word numbers in); `export` wraps it with the
text layer into what is saved: one `.keras` file of Keras' own layers, loadable in safe mode, that
takes raw question strings and features padded on the right with rows of zeros. Padding never
changes an answer, and masks are right-padded with at least one step, as cuDNN's LSTM wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from train import model_attention, model_bigru, model_lstm, model_mean, model_transformer
from train.config import ModelConfig
from train.model_frames import Frames, make_frames
from train.standardise import FrameStatistics

if TYPE_CHECKING:
    import keras

# Word numbers: 0 pads, 1 is an unknown word and also opens every question, so that a question
# without a single known or unknown word still has one step.
START_WORD = 1
# (frames, question float[b, q], config) → float[b, v], by kind; question_only has none.
_READERS: Mapping[str, Callable[[Frames, Any, ModelConfig], Any]] = {
    "lstm": model_lstm.read_frames,
    "attention": model_attention.read_frames,
    "transformer": model_transformer.read_frames,
    "bigru": model_bigru.read_frames,
    "mean": model_mean.read_frames,
    "order_blind": model_mean.read_frames,
}


def build_network(
    config: ModelConfig, statistics: FrameStatistics, *, words: int, answers: int
) -> keras.Model:
    """Return {"features": float32[b, n, d], "words": int32[b, l]} → probabilities float32[b, a].

    `words` is the size of the text layer's vocabulary with its two special entries.
    """
    import keras

    features = keras.Input((None, len(statistics.mean)), name="features", dtype="float32")
    word_ids = keras.Input((None,), name="words", dtype="int32")
    joined = question = _question_branch(word_ids, config, words)
    if config.kind in _READERS:
        frames = make_frames(features, config, statistics)
        video = _READERS[config.kind](frames, question, config)
        joined = keras.layers.Concatenate()([video, question])
    joined = keras.layers.Dropout(config.dropout)(joined)
    hidden = keras.layers.Dense(config.dense_units, activation="relu", name="hidden")(joined)
    hidden = keras.layers.Dropout(config.dropout)(hidden)
    scores = keras.layers.Dense(answers, activation="softmax", name="answers", dtype="float32")
    inputs = {"features": features, "words": word_ids}
    return keras.Model(inputs, scores(hidden), name=config.kind)


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
