"""What has diverged is neither saved nor gone on from: framebank.loop, predicting and training.

The features and the network are the smallest there are; a callback stands for the step whose
gradient is no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from framebank.features.asking.trained_model import NotFiniteError
from framebank.features.errors import JobError
from framebank.features.questions.question import Question
from framebank.features.stop_signals import StopRequest
from framebank.train.data.batches import QuestionTable
from framebank.train.fit.checkpoint import finite
from framebank.train.fit.loop import FitData, FitResult, fit
from framebank.train.judging.predicting import Judge
from framebank.train.model.config import ModelConfig, TrainConfig
from framebank.train.model.frames import FrameStatistics
from framebank.train.model.network import build_network
from tests.made.held_clips import held_features

SIZES = ModelConfig(projection=4, frame_units=4, question_units=4, dense_units=4)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The weights that an undisturbed run ends with."""
    network = _network()
    _fit(tmp_path_factory.mktemp("calm"), network)
    return network.get_weights()


class Hurt(keras.callbacks.Callback):
    """Put `value` into a weight after the step `step`, counted from 0 over all epochs."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__()
        self.left, self.value = step, value

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.left == 0:
            weights = self.model.get_weights()
            weights[0][-1] = self.value  # of a word that no question has
            self.model.set_weights(weights)
        self.left -= 1


def _data() -> FitData:
    questions = [Question(str(n), f"{n}", "what?", "ab"[n % 2]) for n in range(4)]
    words, answers = np.full((4, 2), 1, np.int32), np.arange(4, dtype=np.int32) % 2
    table = QuestionTable(questions, words, answers)
    clips = {str(n): np.full((3, 4), n, np.float32) for n in range(4)}
    return FitData(held_features(clips), table, table)


def _network() -> keras.Model:
    keras.utils.set_random_seed(0)
    statistics = FrameStatistics(2, np.zeros(4), np.ones(4))
    return build_network(SIZES, statistics, words=3, answers=2)


def _fit(folder: Path, network: keras.Model, *hurts: Hurt, **config: Any) -> FitResult:
    made = TrainConfig(epochs=3, batch_size=2, **config)
    return fit(
        network, _data(), config=made, folder=folder, stop=StopRequest(), callbacks=hurts,
        label="lstm",
    )  # fmt: skip


# In the last step of an epoch, whose losses are all fine, and between two checkpoints.
@pytest.mark.parametrize(("value", "step", "every_s"), [(np.nan, 3, 1e6), (np.inf, 4, 0.0)])
def test_a_run_that_diverges_ends_and_goes_on_before_it(
    tmp_path: Path, calm: list[np.ndarray], value: float, step: int, every_s: float
) -> None:
    told = r"training of lstm diverged in epoch [23][\s\S]*NaN or infinite[\s\S]*below 0.002"
    with pytest.raises(JobError, match=told):
        _fit(tmp_path, _network(), Hurt(step, value), checkpoint_every_s=every_s)
    again = _network()
    _fit(tmp_path, again, checkpoint_every_s=every_s)
    for left, right in zip(again.get_weights(), calm, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_rate_that_is_far_too_high_is_told(tmp_path: Path) -> None:
    network = _network()
    with pytest.raises(JobError, match=r"training of lstm diverged[\s\S]*below 1e\+30"):
        _fit(tmp_path, network, learning_rate=1e30, lr_schedule="constant")
    assert not list(tmp_path.glob("*.index"))


def test_a_network_that_answers_nan_has_no_accuracy() -> None:
    network, data = _network(), _data()
    judge = Judge(network, data.features, batch_size=3)
    assert 0 <= judge.predict(data.val).accuracy <= 1
    network.set_weights([np.full_like(one, np.nan) for one in network.get_weights()])
    with pytest.raises(NotFiniteError, match=r"not finite[\s\S]*4 of 4 questions"):
        judge.predict(data.val)


def test_finite() -> None:
    assert finite([np.ones(2), np.array(1)]) and finite([])
    assert not finite([np.ones(2), np.array([1, np.inf])])
