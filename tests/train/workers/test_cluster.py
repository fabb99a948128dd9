"""framebank.cluster: the forms in which launchers say who the workers are, and mistakes in them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.train.workers.cluster import local_cluster, read_cluster


def environment(cluster: Any, kind: str, index: Any, **more: Any) -> dict[str, str]:
    task = {"type": kind, "index": index, **more.pop("task", {})}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task, **more})}


def test_kubernetes_training_operator_with_its_other_roles() -> None:
    hosts = {
        "chief": ["job-chief-0.ns.svc:2222"],
        "worker": ["job-worker-0.ns.svc:2222", "job-worker-1.ns.svc:2222"],
        "ps": ["job-ps-0.ns.svc:2222"],
        "evaluator": ["job-evaluator-0.ns.svc:2222"],
    }
    cluster = read_cluster(environment(hosts, "worker", 1, environment="cloud"))
    assert cluster.index == 2 and cluster.members[0] == ("chief 0", "job-chief-0.ns.svc:2222")
    config = json.loads(cluster.config)
    assert set(config["cluster"]) == {"chief", "worker"}
    assert config["task"] == {"type": "worker", "index": 1}
    assert read_cluster(environment(hosts, "chief", 0)).index == 0
    for role in ("ps", "evaluator"):
        with pytest.raises(UsageError, match=f"is the cluster's {role}") as caught:
            read_cluster(environment(hosts, role, 0))
        assert "\n" not in str(caught.value)


def test_vertex_ai_and_older_names() -> None:
    hosts = {"chief": ["cmle-training-workerpool0-0:2222"], "worker": ["cmle-workerpool1-0:2222"]}
    task = {"trial": "", "cloud": "uc1"}
    cluster = read_cluster(environment(hosts, "worker", "0", task=task, job='{"a": 1}'))
    assert cluster.index == 1 and len(cluster.members) == 2
    old = {"master": ["m:2222"], "worker": ["w:2222"]}
    assert read_cluster(environment(old, "master", 0)).members[0] == ("chief 0", "m:2222")


def test_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_STEP_NODELIST": "n[1-2]",
        "CUDA_VISIBLE_DEVICES": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    cluster = read_cluster()
    assert [host for _, host in cluster.members] == ["n1:8888", "n1:8889", "n2:8888"]
    assert cluster.index == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "TF_CONFIG is not set"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"cluster": {"worker": ["a:1"]}}', "'task'"),
        (environment({"worker": ["a:1"]}, "worker", 1)["TF_CONFIG"], "worker 1, of worker 0"),
        (environment({"worker": ["a:1"]}, "worker", math.nan)["TF_CONFIG"], "NaN"),
        (environment({"worker": ["a:1"]}, "worker", math.inf)["TF_CONFIG"], "Infinity"),
        (environment({"worker": ["a"]}, "worker", 0)["TF_CONFIG"], "no HOST:PORT"),
        (environment({"worker": ["a:1", "a:1"]}, "worker", 0)["TF_CONFIG"], "one address"),
    ],
)
def test_mistakes_are_one_message(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_cluster({"TF_CONFIG": text})


def test_local_cluster_reads_back() -> None:
    cluster = local_cluster([1001, 1002], 1)
    assert read_cluster({"TF_CONFIG": cluster.config}) == cluster
