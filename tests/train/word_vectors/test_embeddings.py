"""Words with a vector start from it, rare ones from the mean; the coverage is told."""

from __future__ import annotations

import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.train.word_vectors.embeddings import COMMON, WordVectors, find_vectors
from tests.made.word_vectors import glove

WORDS = ["", "[UNK]", "what", "man", "often", "rare"]
ASKED = np.array([9, 9, 10, 5, COMMON, 1])


def test_found_rare_and_common_words(tmp_path):
    glove(tmp_path / "v", {"what": [1, 3], "man": [3, 1], "other": [7, 7]})
    said: list[str] = []
    vectors = find_vectors(str(tmp_path / "v"), WORDS, asked=ASKED, say=said.append)
    assert vectors.given.tolist() == [False, True, True, True, False, True]
    assert vectors.rows[[1, 2, 3, 5]].tolist() == [[2, 2], [1, 3], [3, 1], [2, 2]]
    assert "2 of 4 words (50.0%), 71.4% of the words asked; missing: often, rare" in said[0]
    assert vectors.coverage["missing"] == ["often", "rare"] and vectors.size == 2


def test_the_layer_gets_them_and_keeps_the_others(tmp_path):
    import keras

    glove(tmp_path / "v", {"what": [1, 3], "man": [3, 1]})
    vectors = find_vectors(str(tmp_path / "v"), WORDS, asked=ASKED, say=print)
    layer = keras.layers.Embedding(len(WORDS), 2, name="embedding")
    network = keras.Sequential([keras.Input((None,)), layer])
    before = layer.get_weights()[0]
    vectors.start(network)
    after = layer.get_weights()[0]
    assert (after[[0, 4]] == before[[0, 4]]).all() and after[2].tolist() == [1, 3]


def test_vectors_of_another_language_are_refused(tmp_path):
    glove(tmp_path / "v", {"что": [1, 3]})
    with pytest.raises(UsageError, match="none of the words"):
        find_vectors(str(tmp_path / "v"), WORDS, asked=ASKED, say=print)


def test_a_network_that_chooses_starts_from_them_too() -> None:
    import keras

    from framebank.train.model.config import ModelConfig
    from framebank.train.model.frames import FrameStatistics
    from framebank.train.model.heads import CHOICE, Head
    from framebank.train.model.network import build_network

    statistics = FrameStatistics(2, np.zeros(4), np.ones(4))
    config = ModelConfig(projection=4, frame_units=4, word_size=3, question_units=4)
    network = build_network(config, statistics, words=4, head=Head(CHOICE))
    rows, given = np.ones((4, 3), np.float32), np.array([False, True, True, False])
    WordVectors(rows, given, {}).start(network)
    (reader,) = (layer for layer in network.layers if isinstance(layer, keras.Model))
    start = reader.get_layer("embedding").get_weights()[0]
    assert (start[given] == 1).all() and (start[~given] != 1).all()
