"""framebank.checkpoint: a damaged checkpoint costs the steps since the one before it, no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def test_damaged_checkpoints_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras
    import tensorflow as tf

    from framebank.train.fit.checkpoint import RunCheckpoints
    from framebank.train.workers.replicas import Workers

    def make(start: float) -> tuple[keras.Model, RunCheckpoints]:
        inputs = keras.Input((3,))
        dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(start))
        network = keras.Model(inputs, dense(inputs))
        optimizer = keras.optimizers.Adam()
        optimizer.build(network.trainable_variables)
        sums = [tf.Variable(0.0, trainable=False)]
        return network, RunCheckpoints(
            tmp_path, network=network, optimizer=optimizer, sums=sums, workers=Workers()
        )

    network, checkpoints = make(1.0)
    for number in (1, 2):
        network.set_weights([np.full((3, 2), number, np.float32), np.zeros(2, np.float32)])
        checkpoints.save({"step": number}, None, number=number)

    for damaged, step, weight in (((), 2, 2.0), ((2,), 1, 1.0), ((1, 2), None, 7.0)):
        for number in damaged:
            path = tmp_path / f"step-{number}.data-00000-of-00001"
            path.write_bytes(path.read_bytes()[:50])
        network, checkpoints = make(7.0)
        restored = checkpoints.restore()
        assert (restored[0]["step"] if restored else None) == step
        assert (network.get_weights()[0] == weight).all()
        said = capsys.readouterr().err
        assert said.count("damaged checkpoint") == len(damaged)

    network, checkpoints = make(1.0)
    checkpoints.save({"step": 1}, None, number=1)
    network.set_weights([np.full((3, 2), np.nan, np.float32), np.zeros(2, np.float32)])
    checkpoints.save({"step": 2}, None, number=2)  # as an older version did
    network, checkpoints = make(7.0)
    restored = checkpoints.restore()
    assert restored is not None and restored[0]["step"] == 1
    assert (network.get_weights()[0] == 1).all()
    assert "its numbers are not finite" in capsys.readouterr().err
