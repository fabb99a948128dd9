"""Adam as training here needs it: clipped after the replicas' gradients are summed, scheduled."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from framebank.train.model.config import TrainConfig

_LAST_SHARE = 0.05  # of the rate that the cosine ends at


def make_optimizer(config: TrainConfig, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return Adam with decoupled weight decay and the schedule of `config`."""
    rate: Any = config.learning_rate
    if config.lr_schedule == "cosine":
        steps = max(config.epochs * steps_per_epoch, 1)
        warm = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warm else rate,
            decay_steps=max(steps - warm, 1),
            alpha=_LAST_SHARE,
            warmup_target=rate if warm else None,
            warmup_steps=warm,
        )
    optimizer = keras.optimizers.Adam(rate, weight_decay=config.weight_decay or None)
    return clip_sum(optimizer, config.clip_norm)


def clip_sum(optimizer: keras.optimizers.Optimizer, norm: float) -> keras.optimizers.Optimizer:
    """Make `optimizer` clip the norm of the gradients' sum over replicas, and return it.

    Keras' own `global_clipnorm` acts on each replica's part, so what it does would depend on their
    number. What Keras calls to sum (keras/src/backend/tensorflow/optimizer.py) is replaced in the
    instance, so the saved model still names Keras' own class.
    """
    add_up = optimizer._all_reduce_sum_gradients

    def add_up_and_clip(grads_and_vars: Any) -> Any:
        # Sparse gradients (of embeddings) are made dense: they are summed in one packed message.
        dense = [(tf.convert_to_tensor(gradient), to) for gradient, to in grads_and_vars]
        summed = add_up(dense)
        clipped, _ = tf.clip_by_global_norm([gradient for gradient, _ in summed], norm)
        return list(zip(clipped, [to for _, to in summed], strict=True))

    optimizer._all_reduce_sum_gradients = add_up_and_clip
    return optimizer
