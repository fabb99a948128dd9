"""framebank.network: one .keras file of Keras' own layers, whose answers padding cannot change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from framebank.train.model.config import NETWORK_KINDS, PICTURE_KINDS, ModelConfig
from framebank.train.model.frames import frame_statistics

QUESTIONS = ["What is it?", "what is that", "Что это?", "where, now"]
WIDTH = 12  # of pictures of 2 x 2


def build(kind: str = "lstm"):  # type: ignore[no-untyped-def]
    import keras

    from framebank.train.model.network import build_network, export
    from framebank.train.model.text import text_layer

    keras.utils.set_random_seed(1)
    clips = [np.random.default_rng(0).normal(3, 1e-3, (9, WIDTH))]
    clips[0][:, 0] = 2.0  # a constant column
    text = text_layer(QUESTIONS, max_words=50)
    network = build_network(
        ModelConfig(kind=kind), frame_statistics(clips, WIDTH),
        words=text.vocabulary_size(), answers=4,
    )  # fmt: skip
    return network, export(network, text), text


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_saved_model_loads_safely_and_padding_changes_nothing(kind: str, tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    _, model, _ = build(kind)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.inputs[0].shape == (None, None, WIDTH)
    frames = np.random.default_rng(1).normal(3, 1e-3, (3, 5, WIDTH)).astype(np.float32)
    frames[:, :, 0] = 2.0
    frames[1, 2:] = 0
    frames[2, :] = 0  # nothing to see at all
    asked = ["what is it?", "", "совсем другое, это"]

    def answer(features, questions):  # type: ignore[no-untyped-def]
        inputs = {"features": tf.constant(features), "question": tf.constant(questions)}
        return loaded(inputs, training=False).numpy()

    together = answer(frames, asked)
    assert together.shape == (3, 4) and np.isfinite(together).all()
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)
    for row, count in enumerate((5, 2, 1)):
        alone = answer(frames[row : row + 1, :count], asked[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_who_sees_the_order_of_frames() -> None:
    import tensorflow as tf

    frames = np.random.default_rng(1).normal(3, 1e-3, (1, 5, WIDTH)).astype(np.float32)
    changed = {}
    for kind in NETWORK_KINDS:
        _, model, _ = build(kind)
        both = [
            model({"features": tf.constant(f), "question": tf.constant(["what"])}).numpy()
            for f in (frames, frames[:, ::-1])
        ]
        changed[kind] = float(np.abs(both[0] - both[1]).max())
    assert all(changed[kind] > 1e-3 for kind in ("lstm", "bigru", "transformer")), changed
    assert all(changed[kind] < 1e-5 for kind in ("order_blind", "mean", "attention", "vote")), (
        changed
    )
    assert changed["question_only"] == 0


def test_constant_columns_cannot_blow_up() -> None:
    import tensorflow as tf

    _, model, _ = build()
    frames = np.full((1, 3, WIDTH), 3, np.float32)
    frames[:, :, 0] = 2.001  # was 2.0 in every training frame
    moved = frames.copy()
    moved[:, :, 0] = 2.0
    first, second = (
        model({"features": tf.constant(f), "question": tf.constant(["what"])}).numpy()
        for f in (frames, moved)
    )
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_words_of_every_script_are_known_and_cjk_is_cut() -> None:
    import tensorflow as tf

    from framebank.train.model.text import START_WORD, text_layer, word_numbers

    _, _, text = build()
    assert {"что", "это", "what"} <= {str(word).lower() for word in text.get_vocabulary()}
    numbers = np.asarray(word_numbers(text, tf.constant(["what, IT?", ""])))
    assert (numbers[:, 0] == START_WORD).all() and (numbers[0] > 1).sum() == 2
    assert not numbers[1, 1:].any()
    chinese = text_layer(["他在做什么", "她在哪里"], max_words=20)
    assert (np.asarray(chinese(tf.constant(["他在哪里"]))) > 1).all()
    alone = text_layer(["action?", "who?", "where is it?"], max_words=20)  # words, no letters
    assert np.asarray(alone(tf.constant(["Action?"]))).shape == (1, 1)


@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_what_reads_pictures_sees_their_order_and_what_is_in_them(kind: str) -> None:
    import tensorflow as tf

    _, model, _ = build(kind)
    clip = np.random.default_rng(1).integers(0, 255, (5, WIDTH)).astype(np.float32)
    clips = np.stack([clip, clip[::-1], clip[:, ::-1]])
    said = model({"features": tf.constant(clips), "question": tf.constant(["what"] * 3)}).numpy()
    assert np.abs(said[0] - said[1]).max() > 1e-3
    assert np.abs(said[0] - said[2]).max() > 1e-3


def test_a_vote_is_the_mean_of_what_frames_say_alone() -> None:
    import tensorflow as tf

    _, model, _ = build("vote")
    frames = np.random.default_rng(1).normal(3, 1, (4, WIDTH)).astype(np.float32)

    def answer(features: np.ndarray) -> np.ndarray:
        asked = tf.constant(["what"] * len(features))
        return model({"features": tf.constant(features), "question": asked}).numpy()

    alone = answer(frames[:, None])
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(answer(frames[None])[0], alone.mean(axis=0), atol=1e-6)
