"""framebank.train.data.tracing: one graph for batches of all sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def test_batches_of_any_size_share_one_graph() -> None:
    import tensorflow as tf

    from framebank.train.data.tracing import traced_once

    traced: list[Any] = []

    def total(batch: dict[str, tf.Tensor], step: tf.Tensor) -> tf.Tensor:
        traced.append({name: column.shape.as_list() for name, column in batch.items()})
        return tf.reduce_sum(batch["features"]) + tf.cast(step, tf.float32)

    def batch(rows: int, frames: int, words: int) -> dict[str, tf.Tensor]:
        sizes = {"features": (rows, frames, 5), "choices": (rows, 2 + words, words)}
        made = {name: tf.ones(size, tf.float32) for name, size in sizes.items()}
        return made | {"words": tf.ones((rows, words), tf.int32), "answer": tf.ones(rows, tf.int32)}

    graph = traced_once(total)
    for step, (rows, frames, words) in enumerate([(4, 3, 2), (4, 7, 2), (3, 1, 9), (4, 3, 2)]):
        made = float(graph(batch(rows, frames, words), tf.constant(step)))
        assert made == pytest.approx(rows * frames * 5 + step)
    assert traced == [
        {
            "features": [None, None, 5],
            "choices": [None, None, None],
            "words": [None, None],
            "answer": [None],
        }
    ]


def test_another_width_is_refused() -> None:
    import tensorflow as tf

    from framebank.train.data.tracing import traced_once

    graph = traced_once(lambda batch: tf.reduce_sum(batch["features"]))
    graph({"features": tf.constant(np.ones((1, 2, 3), np.float32))})
    with pytest.raises(TypeError):
        graph({"features": tf.constant(np.ones((1, 2, 4), np.float32))})
