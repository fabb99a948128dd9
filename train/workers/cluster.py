"""The workers of a run, as their launcher tells each of them.

TF_CONFIG is read as Kubernetes' training operator and Vertex AI set it; under Slurm, where it is
absent, TensorFlow's own SlurmClusterResolver reads the step's variables. Whatever came in, what
TensorFlow gets is a cluster of chief and workers alone: parameter servers and evaluators have no
part in this training.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.stores import json_text

_TRAINING = ("chief", "worker")
_OTHERS = ("ps", "evaluator")
_OLD_NAMES = {"master": "chief"}
_SLURM_PORT = 8888
_MANY_GPUS = 1024
_EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """`members` are (name, "host:port"), the chief first; `index` is this process's."""

    members: tuple[tuple[str, str], ...]
    index: int

    @property
    def config(self) -> str:
        """Return the TF_CONFIG that says just this."""
        jobs: dict[str, list[str]] = {}
        for name, address in self.members:
            jobs.setdefault(name.split()[0], []).append(address)
        job, number = self.members[self.index][0].split()
        return json.dumps({"cluster": jobs, "task": {"type": job, "index": int(number)}})


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return the cluster that the environment speaks of; raises UsageError."""
    text = environment.get("TF_CONFIG", "").strip()
    if text:
        return _of_tf_config(text)
    if "SLURM_PROCID" in environment:
        return _of_slurm()
    raise UsageError(
        "--strategy multi_worker finds no cluster: TF_CONFIG is not set",
        expected=_EXAMPLE,
        todo="start it by a launcher that sets TF_CONFIG, or give --local-workers N",
    )


def local_cluster(ports: list[int], index: int) -> Cluster:
    """Return the cluster of workers on this machine, one at each of `ports`."""
    members = [(f"worker {number}", f"127.0.0.1:{port}") for number, port in enumerate(ports)]
    return Cluster(tuple(members), index)


def _of_tf_config(text: str) -> Cluster:
    try:
        fields = json_text.parse(text)
        cluster, task = fields["cluster"], fields["task"]
        jobs = {_OLD_NAMES.get(job, job): list(hosts) for job, hosts in cluster.items()}
        job, index = str(task["type"]), int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as err:
        raise _bad(f"{type(err).__name__}: {err} in {text[:300]}") from err
    job = _OLD_NAMES.get(job, job)
    if job in _OTHERS:
        raise UsageError(
            f"this process is the cluster's {job}: framebank train has no work for one; "
            "leave that role out of the launcher's file"
        )
    members = [
        (f"{role} {number}", host)
        for role in _TRAINING
        for number, host in enumerate(jobs.get(role, []))
    ]
    for name, host in members:
        if not isinstance(host, str) or not _is_address(host):
            raise _bad(f"{name} is {host!r}, which is no HOST:PORT")
    names = [name for name, _ in members]
    if f"{job} {index}" not in names:
        raise _bad(f"this process is {job} {index}, of {', '.join(names) or 'no workers'}")
    if len({host for _, host in members}) < len(members):
        raise _bad("two workers have one address: " + ", ".join(host for _, host in members))
    return Cluster(tuple(members), names.index(f"{job} {index}"))


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def _bad(got: str) -> UsageError:
    return UsageError("TF_CONFIG does not describe a cluster", got=got, expected=_EXAMPLE)


def _of_slurm() -> Cluster:
    import tensorflow as tf

    try:
        resolver: Any = tf.distribute.cluster_resolver.SlurmClusterResolver(
            # GPUs are Slurm's own business (--gpus-per-task): what a task sees is its own.
            port_base=_SLURM_PORT,
            auto_set_gpu=False,
            gpus_per_node=_MANY_GPUS,
            gpus_per_task=1,
        )
        jobs = resolver.cluster_spec().as_dict()
        job, index = resolver.get_task_info()
    except (RuntimeError, ValueError, KeyError, OSError) as err:
        raise UsageError("Slurm's variables do not describe a cluster", got=err) from err
    return _of_tf_config(json.dumps({"cluster": jobs, "task": {"type": job, "index": index}}))
