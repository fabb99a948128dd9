"""The network of image question answering: its size, its padding, and which words it reads."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.train.model.config import IMAGE_QA, ModelConfig
from framebank.train.model.frames import frame_statistics

SMALL = ModelConfig.of(kind=IMAGE_QA, word_size=4, question_units=5, dense_units=6)


def test_its_own_sizes_are_those_published_with_13_707_240_parameters() -> None:
    from framebank.train.model.image_qa import image_network

    config = ModelConfig.of(kind=IMAGE_QA, question_units=None)
    assert (config.word_size, config.question_units, config.dense_units) == (300, 512, 1024)
    assert (config.dropout, config.answers) == (0.5, 1000)
    assert ModelConfig.of(kind=IMAGE_QA, dense_units=64).dense_units == 64
    assert ModelConfig.of() == ModelConfig()
    statistics = frame_statistics([np.ones((1, 4096))], 4096)
    for trained in (statistics, None):
        network = image_network(config, words=7, answers=1000, width=4096, statistics=trained)
        count = network.count_params() - network.get_layer("embedding").count_params()
        # Of three LSTMs, three dense layers and the softmax, without the word vectors.
        lstm = [4 * ((read + 512) * 512 + 512) for read in (300, 512, 512)]
        dense = [(read + 1) * units for read, units in
                 ((512 + 4096, 1024), (1024, 1024), (1024, 1024), (1024, 1000))]  # fmt: skip
        assert count == sum(lstm) + sum(dense) == 13_707_240
        names = [layer.name for layer in network.layers if layer.count_params()]
        assert names == ["embedding", *(f"question{n}" for n in range(3)),
                         *(f"dense{n}" for n in range(3)), "answers"]  # fmt: skip
        assert network.get_layer("dense0").activation.__name__ == "tanh"
        start = network.get_layer("dense0").get_weights()[0]
        assert 0.049 < np.abs(start).max() <= 0.05  # uniform, as Keras understood it


@pytest.mark.parametrize("published", [True, False])
def test_thirty_words_are_read_and_padding_changes_nothing(published: bool) -> None:
    from framebank.train.model.image_qa import image_network

    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(3, 1, 8)).astype(np.float32)
    statistics = None if published else frame_statistics(list(pictures), 8)
    network = image_network(SMALL, words=60, answers=3, width=8, statistics=statistics)
    network.set_weights([rng.normal(0, 0.5, its.shape) for its in network.get_weights()])
    words = np.ones((3, 41), np.int32)  # each opens with the entry of unknown words
    words[:, 1:] = rng.integers(2, 60, (3, 40))
    words[1, 4:] = words[2, 1:] = 0

    def answer(features: np.ndarray, words: np.ndarray) -> np.ndarray:
        return np.asarray(network({"features": features, "words": words}, training=False))

    whole = answer(pictures, words)
    assert whole.sum(axis=1) == pytest.approx([1, 1, 1])
    changed = words.copy()
    changed[0, 31:] = 5
    np.testing.assert_allclose(answer(pictures, changed), whole, atol=1e-6)
    np.testing.assert_allclose(answer(pictures[1:2], words[1:2, :4]), whole[1:2], atol=1e-6)
    np.testing.assert_allclose(answer(pictures[2:], words[2:, :1]), whole[2:], atol=1e-6)
    twice = np.concatenate([pictures, pictures, np.zeros_like(pictures)], axis=1)  # two frames
    np.testing.assert_allclose(answer(twice, words), whole, atol=1e-6)
    changed = words.copy()
    changed[0, 30] = 1 + changed[0, 30] % 58
    assert np.abs(answer(pictures, changed)[0] - whole[0]).max() > 1e-5
