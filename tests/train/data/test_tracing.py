"""framebank.train.data.tracing: one graph for batches of all sizes."""

from __future__ import annotations

from typing import Any

import pytest


def test_batches_of_any_size_share_one_graph() -> None:
    import tensorflow as tf

    from framebank.train.data.tracing import traced_once

    traced: list[Any] = []

    def total(batch: dict[str, tf.Tensor], step: tf.Tensor) -> tf.Tensor:
        traced.append({name: column.shape.as_list() for name, column in batch.items()})
        return tf.reduce_sum(batch["features"]) + tf.cast(step, tf.float32)

    def batch(rows: int, frames: int, words: int, choices: int = 3) -> dict[str, tf.Tensor]:
        sizes = {"features": (rows, frames, 5), "choices": (rows, choices, words)}
        made = {name: tf.ones(size, tf.float32) for name, size in sizes.items()}
        return made | {"words": tf.ones((rows, words), tf.int32), "answer": tf.ones(rows, tf.int32)}

    graph = traced_once(total)
    for step, (rows, frames, words) in enumerate([(4, 3, 2), (4, 7, 2), (3, 1, 9), (4, 3, 2)]):
        made = float(graph(batch(rows, frames, words), tf.constant(step)))
        assert made == pytest.approx(rows * frames * 5 + step)
    free = {"features": [None, None, 5], "words": [None, None], "answer": [None]}
    assert traced == [free | {"choices": [None, 3, None]}]
    for _ in range(2):  # another file may have other candidates
        assert float(graph(batch(1, 1, 1, choices=4), tf.constant(0))) == 5
    assert traced[1:] == [free | {"choices": [None, 4, None]}]
