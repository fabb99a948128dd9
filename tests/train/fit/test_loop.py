"""framebank.loop with two replicas in one process, and its parts: noise of rows, clipping of the
sum, schedules, precision, prefetching.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framebank.features.errors import UsageError
from framebank.train.data.prefetch import Prefetched
from framebank.train.model.config import ModelConfig, TrainConfig
from tests import ROOT

# Two replicas on two devices that are both this machine's CPU.
REPLICAS = """
import json, sys, numpy as np
from pathlib import Path
from framebank.features.tensorflow_import import import_tensorflow, own_process
own_process()
import_tensorflow(wake=lambda: None)
import keras, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from framebank.features.questions.question import Question
from tests.made.made_questions import direction_clip, WIDTH
from tests.made.held_clips import HeldClips
from framebank.train.model.config import ModelConfig, TrainConfig
from framebank.train.model.heads import Head
from framebank.train.data.batches import Features, QuestionTable
from framebank.train.fit.loop import FitData, fit
from framebank.train.model.network import build_network
from framebank.train.data.epoch_order import Stored
from framebank.train.model.frames import frame_statistics
from framebank.features.stop_signals import StopRequest
from framebank.train.workers.replicas import Workers

clips = [direction_clip(n // 2, forward=n % 2 == 0) for n in range(48)]
questions = [Question(str(n), str(n), "what?", "ab"[n % 2]) for n in range(48)]
head = Head("choice") if sys.argv[2] == "choice" else Head(answers=("a", "b"))
choices = np.tile(np.int32([[1, 2], [1, 3]]), (48, 1, 1)) if head.kind == "choice" else None
table = QuestionTable(
    questions, np.ones((48, 2), np.int32), np.arange(48, dtype=np.int32) % 2, choices
)
stored = Stored.dealt([0] * 48, [len(clip) for clip in clips])
rows = []
for number, devices in enumerate((["CPU:0"], ["CPU:0", "CPU:1"])):
    workers = Workers(tf.distribute.MirroredStrategy(devices))
    names = [str(n) for n in range(48)]
    share = workers.share
    features = Features(
        names, stored, HeldClips(clips), width=WIDTH, dtype=np.float32, share=share
    )
    keras.utils.set_random_seed(3)
    config = TrainConfig(epochs=8, batch_size=7, clip_norm=0.2, seed=5)
    with workers.strategy.scope():
        statistics = frame_statistics(clips, WIDTH)
        network = build_network(ModelConfig(), statistics, words=4, head=head)
    folder = Path(sys.argv[1]) / str(number)
    result = fit(network, FitData(features, table, table, head), config=config, folder=folder,
                 stop=StopRequest(), workers=workers)
    rows.append(result.history)
print(json.dumps(rows))
"""


@pytest.mark.parametrize("head", ["open", "choice"])
def test_two_replicas_in_one_process_make_the_steps_of_one(tmp_path: Path, head: str) -> None:
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS, str(tmp_path), head],
        capture_output=True, text=True, timeout=200, cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout)
    assert len(one) == 8 and one[-1]["loss"] < 0.8 * one[0]["loss"]
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, abs=1e-3)


def test_noise_belongs_to_rows_of_the_global_batch() -> None:
    import keras
    import tensorflow as tf

    from framebank.train.model.row_dropout import Rows, noise_of, use_row_noise

    inputs = keras.Input((None, 6))
    hidden = keras.layers.SpatialDropout1D(0.5)(inputs)
    network = keras.Model(inputs, keras.layers.Dropout(0.25)(hidden))
    use_row_noise(network)
    features = tf.ones((8, 3, 6))

    def call(places: list[int], step: int = 0, seed: int = 1) -> np.ndarray:
        rows = Rows(seed, tf.constant(step), tf.constant(places), 8)
        with noise_of(rows):
            return network(features[: len(places)], training=True).numpy()

    whole = call(list(range(8)))
    np.testing.assert_array_equal(call([5, 2]), whole[[5, 2]])
    assert (call(list(range(8)), step=1) != whole).any()
    assert (call(list(range(8)), seed=2) != whole).any()
    assert len({row.tobytes() for row in whole}) > 4  # rows differ
    assert abs(float(call(list(range(8))).mean()) - 1) < 0.4
    np.testing.assert_array_equal(network(features, training=False), features)
    copy = keras.Model.from_config(network.get_config())
    assert "row_noise" not in json.dumps(network.get_config()) and len(copy.layers) == 3


def test_schedules() -> None:
    import keras

    from framebank.train.fit.callbacks import PlateauRate
    from framebank.train.fit.loop import make_optimizer

    config = TrainConfig(epochs=10, learning_rate=0.1, warmup_epochs=2)
    rate = make_optimizer(config, steps_per_epoch=5)._learning_rate
    assert [round(float(rate(step)), 3) for step in (0, 5, 10, 50)] == [0, 0.05, 0.1, 0.005]
    with pytest.raises(UsageError, match="--warmup-epochs"):
        TrainConfig(warmup_epochs=1, lr_schedule="constant")

    config = TrainConfig(learning_rate=0.1, lr_schedule="plateau", patience=6)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=make_optimizer(config, steps_per_epoch=5))
    plateau = PlateauRate(config)
    plateau.set_model(model)
    for epoch, loss in enumerate((1.0, 0.9, 0.95, 0.95, 0.95)):
        plateau.on_epoch_end(epoch, {"val_loss": loss})
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    again = PlateauRate(config)
    again.restore(json.loads(json.dumps(plateau.state())))
    assert (again.waited, again.loss) == (1, 0.9)


def test_the_sum_is_clipped() -> None:
    import tensorflow as tf

    from framebank.train.fit.loop import make_optimizer

    optimizer = make_optimizer(
        TrainConfig(lr_schedule="constant", clip_norm=1.0), steps_per_epoch=1
    )
    variable = tf.Variable(tf.zeros(2))
    pairs = optimizer._all_reduce_sum_gradients([(tf.constant([3.0, 4.0]), variable)])
    np.testing.assert_allclose(pairs[0][0], [0.6, 0.8], rtol=1e-6)


def test_mixed_precision_keeps_small_spreads_and_loads_as_before(tmp_path: Path) -> None:
    import keras

    from framebank.train.fit.fits import _precision
    from framebank.train.model.frames import FrameStatistics
    from framebank.train.model.network import build_network, export
    from framebank.train.model.text import text_layer

    text = text_layer(["what is it?"], max_words=5)
    statistics = FrameStatistics(2, np.full(4, 0.5), np.full(4, 2e-6))
    with _precision("bfloat16"):
        network = build_network(ModelConfig(), statistics, words=4, answers=3)
    assert keras.config.dtype_policy().name == "float32"
    names = {layer.name: layer.compute_dtype for layer in network.layers}
    assert names["project"] == "bfloat16" and names["answers"] == "float32"
    words = np.array([[1, 2]], np.int32)
    near, far = (  # bfloat16 cannot tell 0.5 from 0.501
        network({"features": np.full((1, 3, 4), value, np.float32), "words": words}).numpy()
        for value in (0.5, 0.501)
    )
    assert np.abs(near - far).max() > 1e-3
    export(network, text).save(tmp_path / "model.keras")
    keras.saving.load_model(tmp_path / "model.keras")


def test_prefetching_hands_on_in_order_counts_waits_and_ends() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with Prefetched(make, depth=3) as elements:
        assert list(elements) == list(range(50))
    made.clear()
    with Prefetched(make, depth=3) as elements:
        assert next(iter(elements)) == 0
        time.sleep(0.05)
        assert len(made) <= 5  # bounded
    assert not [t for t in threading.enumerate() if t is elements._thread]

    def slow() -> Iterator[int]:
        time.sleep(0.1)
        yield 1
        raise ValueError("bad shard")

    with Prefetched(slow) as elements, pytest.raises(ValueError, match="bad shard"):
        list(elements)
    assert elements.waited_s >= 0.05
