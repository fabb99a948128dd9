"""What is checked and set before a job goes to Flink, against a REST API that says anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from framebank.features.errors import UsageError
from framebank.pipelines.jobs import worker_pool
from framebank.pipelines.jobs.environments import is_here
from framebank.pipelines.runners import gate
from framebank.pipelines.runners.flink import rest
from framebank.pipelines.runners.flink import submission as flink
from tests.servers.fake_flink import EMPTY_JAR, FakeFlink, fake_flink, serving

EXTERNAL = ("--environment_type=EXTERNAL", "--environment_config=localhost:50000")


@pytest.fixture(autouse=True)
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a Java and a job server on this machine, whatever is really there."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.15\" 2025-04-15' >&2\n")
    java.chmod(0o755)
    jar = tmp_path / "beam-runners-flink-1.20-job-server.jar"
    jar.write_bytes(EMPTY_JAR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv(flink.JAR_VARIABLE, str(jar))
    return tmp_path


@pytest.fixture
def pool() -> Iterator[str]:
    """Yield the address of a worker pool."""
    pool, server, port = worker_pool.serve("localhost:0")
    yield f"localhost:{port}"
    server.stop(None).wait()
    pool.close()


@pytest.fixture
def job_server() -> Iterator[str]:
    """Yield the address of a gRPC server that serves nothing."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


def prepare(*words: str, shared_disk: bool = False, cache: str = "cache") -> gate.Submission:
    return gate.prepare(
        argparse.Namespace(wait=False, accelerator=None, shared_disk=shared_disk),
        ["--runner=FlinkRunner", *words],
        places={"INPUT": ["clips"], "--cache": [cache]},
        cache=cache,
    )


def options(submission: gate.Submission) -> dict[str, Any]:
    found: dict[str, Any] = submission.options.get_all_options(retain_unknown_options=True)
    return found


def test_local_runs_in_this_process_with_one_subtask() -> None:
    submission = prepare()
    assert submission.in_process and not submission.workers_elsewhere and submission.waits
    found = options(submission)
    names = ("flink_master", "flink_version", "parallelism", "environment_type")
    assert [found[name] for name in names] == ["[local]", "1.20", 1, "LOOPBACK"]
    assert found["execution_mode_for_batch"] == "BATCH_FORCED"


def test_a_cluster_sets_parallelism_and_version_and_the_user_wins(pool: str, parts: Path) -> None:
    words = ("--environment_type=EXTERNAL", f"--environment_config={pool}")
    with fake_flink(slots=6, free_slots=5, version="1.19.1") as cluster:
        (parts / "server.jar").write_bytes(EMPTY_JAR)
        jar = f"--flink_job_server_jar={parts / 'server.jar'}"
        found = prepare(f"--flink_master={cluster.address}", *words, jar)
        assert found.notes[0] == "--parallelism=5, for 6 slots on 1 task manager, 1 of them busy"
        assert cluster.address in found.notes[1]
        values = options(found)
        assert (values["parallelism"], values["flink_version"]) == (5, "1.19")
        assert values["flink_master"] == f"http://{cluster.address}"
        words = (*words, "--parallelism=2", "--execution_mode_for_batch=PIPELINED", jar)
        values = options(prepare(f"--flink_master={cluster.address}", *words))
        assert (values["parallelism"], values["execution_mode_for_batch"]) == (2, "PIPELINED")


def test_where_the_workers_are(pool: str) -> None:
    assert is_here("localhost") and is_here("127.0.0.1") and not is_here("192.0.2.1")
    beside = ("--environment_type=EXTERNAL", f"--environment_config={pool}")
    with fake_flink() as cluster:
        assert not prepare(f"--flink_master={cluster.address}", *beside).workers_elsewhere
    with fake_flink(hosts=("192.0.2.1", "192.0.2.2")) as cluster:
        master = f"--flink_master={cluster.address}"
        submission = prepare(master, *EXTERNAL, shared_disk=True)
        assert submission.workers_elsewhere and not submission.in_process
        process = ("--environment_type=PROCESS", '--environment_config={"command": "/boot"}')
        assert prepare(master, *process, shared_disk=True).workers_elsewhere
        loopback = prepare(master, "--environment_type=LOOPBACK", "--parallelism=1")
        assert loopback.in_process and not loopback.workers_elsewhere


def test_a_pool_that_is_not_there_is_refused_by_its_address(job_server: str) -> None:
    for address, why in (("localhost:1", "cannot be connected to"), (job_server, "no worker pool")):
        words = ("--environment_type=EXTERNAL", f"--environment_config={address}")
        with fake_flink() as cluster, pytest.raises(UsageError, match=address) as refused:
            prepare(f"--flink_master={cluster.address}", *words)
        assert why in str(refused.value.got)


def test_a_job_server_of_somebody_else_needs_neither_java_nor_jar(
    job_server: str, parts: Path
) -> None:
    for path in parts.iterdir():
        path.unlink()
    submission = prepare(f"--job_endpoint={job_server}")
    assert submission.in_process and options(submission)["flink_master"] == "[auto]"
    with pytest.raises(UsageError, match="no job server answers"):
        prepare("--job_endpoint=localhost:1")
    with serving(lambda method, path: None) as port, pytest.raises(UsageError, match="gRPC"):
        prepare(f"--job_endpoint=localhost:{port}")


@pytest.mark.parametrize(
    ("state", "words", "told"),
    [
        ({"hosts": (), "slots": 0}, EXTERNAL, "has no task manager"),
        ({"version": "1.10.2"}, EXTERNAL, "Flink 1.10.2"),
        ({}, (*EXTERNAL, "--flink_version=2.1"), "--flink_version is not the cluster's"),
        ({}, (*EXTERNAL, "--parallelism=5"), "at most 4"),
        ({}, (), "--environment_type is missing"),
        ({}, ("--environment_type=DOCKER",), "an image that has Framebank"),
        ({}, ("--environment_type=EXTERNAL",), "address of a worker pool"),
        ({}, ("--environment_type=NOTHING",), "no such --environment_type"),
        ({}, ("--environment_type=PROCESS",), "the command that starts a worker"),
        ({}, ("--environment_type=EXTERNAL", "--environment_config=nonsense"), "HOST:PORT"),
        ({"hosts": ("a", "b")}, ("--environment_type=LOOPBACK",), "one task manager only"),
        ({"hosts": ("localhost", "localhost")}, EXTERNAL, "cannot serve two task managers"),
        ({"hosts": ("192.0.2.1",)}, EXTERNAL, "INPUT is on this machine"),
        ({"version": "2.1.0"}, EXTERNAL, "for another version of Flink"),
    ],
)
def test_what_cannot_work_on_a_cluster(
    state: dict[str, Any], words: tuple[str, ...], told: str
) -> None:
    state = {"hosts": ("192.0.2.1",)} | state
    with fake_flink(**state) as cluster, pytest.raises(UsageError, match=told):
        prepare(f"--flink_master=http://{cluster.address}", *words)


def test_a_missing_or_old_java_and_a_missing_job_server(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(flink.JAR_VARIABLE, str(parts / "absent.jar"))
    with pytest.raises(UsageError, match=r"absent\.jar"):
        prepare()
    with serving(lambda method, path: None) as port:
        url = f"http://localhost:{port}/job-server.jar"
        with pytest.raises(UsageError, match="cannot be fetched"):
            prepare(f"--flink_job_server_jar={url}")
    (parts / "java").write_text("#!/bin/sh\necho 'java version \"1.8.0_202\"' >&2\n")
    with pytest.raises(UsageError, match="Java 8"):
        prepare()
    (parts / "java").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UsageError, match="does not tell its version"):
        prepare()
    monkeypatch.setenv("JAVA_HOME", str(parts))
    with pytest.raises(UsageError, match=r"needs Java\n.*bin/java"):
        prepare()


def test_an_uber_jar_needs_no_java_here(parts: Path) -> None:
    (parts / "java").unlink()
    with fake_flink(hosts=("192.0.2.1",)) as cluster:
        words = (f"--flink_master={cluster.address}", *EXTERNAL)
        with pytest.raises(UsageError, match="needs Java"):
            prepare(*words, shared_disk=True)
        assert prepare(*words, "--flink_submit_uber_jar", shared_disk=True).cluster is not None


def test_a_job_that_outlived_its_command_keeps_the_next_one_off(pool: str) -> None:
    words = ("--environment_type=EXTERNAL", f"--environment_config={pool}")
    with fake_flink() as cluster:
        master = f"--flink_master={cluster.address}"
        tag = prepare(master, *words).tag
        assert tag != prepare(master, *words, cache="other").tag
        cluster.jobs = {"a1": (f"mine-{tag}-0123", "RUNNING")}
        with pytest.raises(UsageError, match="Flink job a1, RUNNING"):
            prepare(master, *words)
        assert prepare(master, *words, cache="other")
        cluster.jobs = {"a1": (f"mine-{tag}-0123", "FINISHED")}
        assert prepare(master, *words)


def cancel(cluster: FakeFlink, *, wait_s: float = 5) -> tuple[bool, str]:
    return rest.cancel_job(f"http://{cluster.address}", "mine", wait_s=wait_s)


def test_a_job_is_cancelled_by_its_name_and_waited_for() -> None:
    jobs = {"a1": ("mine", "FINISHED"), "b2": ("mine", "RUNNING"), "c3": ("other", "RUNNING")}
    with fake_flink(jobs=jobs) as cluster:
        assert cancel(cluster) == (True, "Flink job b2 is CANCELED")
        assert cluster.cancelled == ["b2"]
    with fake_flink(jobs=jobs, lag=99) as cluster:
        ended, said = cancel(cluster, wait_s=0)
        assert not ended and "still RUNNING" in said and cluster.address in said
    with fake_flink() as cluster:
        assert cancel(cluster) == (True, "no job mine had reached the cluster")
    ended, said = cancel(cluster)  # it is gone now
    assert not ended and "does not answer" in said and "Cancel it at" in said
