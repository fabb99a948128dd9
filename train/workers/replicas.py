"""The replicas of a run as one thing: a strategy, this process's part, and sums over all.

none          one replica in this process
mirrored      one per GPU of this machine
multi_worker  one process per worker, as the cluster says (`train.workers.cluster`), GPUs in each
tpu           the cores of the TPU that TPU_NAME or the machine names
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.stores import json_text
from framebank.train.data.batches import Share
from framebank.train.model.config import STRATEGIES
from framebank.train.workers.cluster import read_cluster
from framebank.train.workers.liveness import PeerWatch

# What a collective raises when another worker left.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class Workers:
    """All processes of a run; `index` 0 is the chief, which alone writes."""

    def __init__(
        self, strategy: tf.distribute.Strategy | None = None, *, index: int = 0, count: int = 1
    ) -> None:
        self.strategy = strategy or tf.distribute.get_strategy()
        self.index, self.count = index, count
        self.replicas = self.strategy.num_replicas_in_sync
        self.local_replicas = self.replicas // count
        self.share = Share(index * self.local_replicas, self.local_replicas, self.replicas)
        self.watch: PeerWatch | None = None

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def sum(self, values: Any) -> NDArray[np.float64]:
        """Return the sum of float64 arrays of one shape, one from each process, in all of them."""
        mine = np.asarray(values, np.float64)
        if self.count == 1:
            return mine
        nothing = np.zeros_like(mine)
        shared = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                nothing if context.replica_id_in_sync_group % self.local_replicas else mine
            )
        )
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, shared, axis=None).numpy()

    def from_chief(self, values: Any) -> NDArray[np.float64]:
        """Return the chief's array in all processes; the others give one of the same shape."""
        values = np.asarray(values, np.float64)
        return self.sum(values if self.is_chief else np.zeros_like(values))

    def do_on_chief(self, work: Callable[[], Any]) -> Any:
        """Return in all processes what `work` (JSON) gives on the chief, which alone does it.

        Where it raises a FramebankError there, the others raise JobError.
        """
        if self.count == 1:
            return work()
        error, text = None, b"null"
        if self.is_chief:
            try:
                text = json.dumps(work()).encode()
            except FramebankError as err:
                error = err
        failed, length = self.from_chief([error is not None, len(text)]).astype(np.int64)
        if error is not None:
            raise error
        if failed:
            raise JobError("the chief stopped with an error; this worker stops too")
        data = np.zeros(length)
        if self.is_chief:
            data[:] = np.frombuffer(text, np.uint8)
        return json_text.parse(self.from_chief(data).astype(np.uint8).tobytes())

    def per_replica(self, batches: list[Any]) -> Any:
        """Return what `strategy.run` takes for one batch per local replica."""
        if len(batches) == 1:
            return batches[0]
        first = self.share.first
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: batches[context.replica_id_in_sync_group - first]
        )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around the work in common: all leave at once, or a dead worker is named."""
        try:
            yield
            self.sum(0.0)  # nobody leaves while another still needs it
        except _LOST as err:
            if self.watch is None:
                raise
            self.watch.blame(err)
            raise JobError(
                "the workers lost each other", got=str(err).splitlines()[-1][:300]
            ) from err
        finally:
            if self.watch is not None:
                self.watch.stop()


def start_workers(name: str) -> Workers:
    """Return the workers of a strategy as above; call it before anything else of TensorFlow.

    `multi_worker` waits here until all workers are up. Raises UsageError, JobError.
    """
    if name == "none":
        return Workers()
    if name == "mirrored":
        return Workers(tf.distribute.MirroredStrategy())
    if name == "tpu":
        return Workers(_tpu_strategy())
    if name != "multi_worker":
        raise UsageError("no such --strategy", got=name, expected=" | ".join(STRATEGIES))
    cluster = read_cluster()
    os.environ["TF_CONFIG"] = cluster.config
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as err:
        address = cluster.members[cluster.index][1]
        raise JobError(
            f"this worker cannot take part at {address}", got=str(err).splitlines()[0]
        ) from err
    workers = Workers(strategy, index=cluster.index, count=len(cluster.members))
    workers.watch = PeerWatch(cluster)
    workers.watch.start()
    return workers


def _tpu_strategy() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            os.environ.get("TPU_NAME", "local")
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as err:
        raise UsageError(
            "--strategy tpu finds no TPU",
            got=str(err).splitlines()[0][:300],
            todo="run it on a TPU machine, or set TPU_NAME",
        ) from err
