"""Extraction on a real Flink: inside the job server, and on a session cluster that is being killed.

They need Beam's job server for Flink 1.20 (FRAMEBANK_FLINK_JOB_SERVER_JAR, or Maven) and Flink
itself (PyPI), and skip with the reason where either cannot be had. Two and a half minutes in all.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framebank.features.cache import layout
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.stores import storage
from tests.attackers.killing import MarkedJob
from tests.clips.plain_clips import write_clip
from tests.made import built, forked
from tests.servers.flink_cluster import SLOTS, FlinkCluster, free_port, start_cluster

CLIPS = 60
QUICK = [
    "--precision", "float32", "--backbone", "mobilenet_v2", "--weights", "random:0",
    "--sample", "uniform=6",
]  # fmt: skip
QUICK += ["--decoders", "1", "--videos-per-shard", "2"]
BUCKET = "framebank-test"
_LIMIT_S = 200.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(CLIPS):
        write_clip(folder / f"c{number:02}.mp4", frames=8 + number % 7, seed=number)
    return folder


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the records that Direct makes, by the name of their shard."""
    cache = tmp_path_factory.mktemp("direct") / "cache"
    log = tmp_path_factory.mktemp("direct-log") / "log"
    job = MarkedJob()
    assert job.framebank("extract", clips, "--cache", cache, *QUICK, log=log).wait(_LIMIT_S) == 0
    return records(str(cache))


@pytest.fixture(scope="module")
def job() -> Iterator[MarkedJob]:
    """The family of all processes here; knows the job server."""
    job = MarkedJob({"FRAMEBANK_FLINK_JOB_SERVER_JAR": str(built.job_server_jar())})
    yield job
    job.kill_all()


@pytest.fixture(scope="module")
def cluster(job: MarkedJob, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    home = built.flink_home()
    # Of the SDK workers too, which the pools start: the bucket is the emulator's.
    port = free_port()
    with start_cluster(home, tmp_path_factory.mktemp("flink"), job=job, bucket_port=port) as flink:
        yield flink


@pytest.fixture(scope="module")
def bucket(
    cluster: FlinkCluster, job: MarkedJob, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve a bucket where task managers and we reach it; return its address."""
    pytest.importorskip("gcp_storage_emulator")
    where = tmp_path_factory.mktemp("bucket")
    host, port = cluster.bucket_address
    words = ["-m", "gcp_storage_emulator", "start", "--in-memory", "--default-bucket", BUCKET]
    command = [sys.executable, *words, "--host", host, "--port", str(port)]
    job.start(command, log=where / "log", cwd=where)
    address = {"STORAGE_EMULATOR_HOST": f"http://{host}:{port}"}
    job.environment |= address
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*address.popitem())
        yield f"gs://{BUCKET}"


def records(cache: str) -> dict[str, bytes]:
    shards = layout.committed_shards(cache)
    files = {name: read_sidecar(cache, name).file for name in shards}
    return {n: storage.read_bytes(layout.tfrecord_path(cache, f)) for n, f in files.items()}


def summary_of(cache: str) -> dict[str, Any]:
    files = [file.path for file in storage.list_files(storage.join(cache, "runs"))]
    (path,) = [path for path in files if path.endswith(".json")]
    return dict(json.loads(storage.read_bytes(path)))


def finish(process: forked.Forked, log: Path) -> str:
    """Wait for the end of a command that must succeed; return what it said."""
    status = process.wait(_LIMIT_S)
    said = log.read_text()
    assert status == 0, said
    return said


def wait_for(holds: Callable[[], bool], process: forked.Forked, log: Path) -> None:
    deadline = time.monotonic() + _LIMIT_S / 2
    while not holds():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_inside_the_job_server(
    job: MarkedJob, clips: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    words = ["extract", clips, "--cache", cache, *QUICK, "--runner", "FlinkRunner"]
    finish(job.framebank(*words, "--flink_master=[local]", log=log), log)
    assert records(str(cache)) == undisturbed
    assert summary_of(str(cache))["done"] == CLIPS


def test_a_task_manager_and_a_worker_are_killed(
    job: MarkedJob,
    clips: Path,
    undisturbed: dict[str, bytes],
    cluster: FlinkCluster,
    bucket: str,
    tmp_path: Path,
) -> None:
    cache, log = f"{bucket}/killed", tmp_path / "log"
    words = ["extract", clips, "--cache", cache, *QUICK, *cluster.words, "--shared-disk"]
    process = job.framebank(*words, log=log)
    wait_for(lambda: len(layout.committed_shards(cache)) >= 4, process, log)
    before = {file.path: file.generation for file in storage.list_files(f"{cache}/shards")}
    victim = cluster.managers[0]
    os.kill(victim.process.pid, signal.SIGKILL)
    cluster.add_manager(victim.number)  # as whoever runs the cluster would
    committed = len(layout.committed_shards(cache))
    wait_for(lambda: len(layout.committed_shards(cache)) > committed + 2, process, log)
    workers = [pid for pid, kind in job.processes().items() if kind == "sdk_worker"]
    os.kill(workers[0], signal.SIGKILL)
    said = finish(process, log)
    assert records(cache) == undisturbed
    summary = summary_of(cache)
    assert (summary["done"], summary["shards"]) == (CLIPS, len(undisturbed)), said
    # What was committed when it happened has not been made again.
    after = {file.path: file.generation for file in storage.list_files(f"{cache}/shards")}
    committed_before = [path for path in before if path.endswith(layout.SIDECAR_SUFFIX)]
    assert {path: after[path] for path in committed_before} == {
        path: before[path] for path in committed_before
    }
    done = finish(job.framebank(*words, log=log), log)
    assert "nothing to do" in done
    jobs = cluster.ask("jobs/overview")["jobs"]
    assert {one["state"] for one in jobs} == {"FINISHED"}


def test_an_uber_jar_and_even_work(
    job: MarkedJob,
    clips: Path,
    undisturbed: dict[str, bytes],
    cluster: FlinkCluster,
    tmp_path: Path,
) -> None:
    cluster.wait_for(lambda told: told["slots-available"] == 2 * SLOTS)
    cache, log = tmp_path / "cache", tmp_path / "log"
    words = ["extract", clips, "--cache", cache, *QUICK, *cluster.words, "--shared-disk"]
    finish(job.framebank(*words, "--flink_submit_uber_jar", log=log), log)
    assert records(str(cache)) == undisturbed
    latest = max(cluster.ask("jobs/overview")["jobs"], key=lambda one: one["start-time"])
    steps = cluster.ask(f"jobs/{latest['jid']}")["vertices"]
    (extract,) = [step for step in steps if "ExtractShard" in step["name"]]
    subtasks = cluster.ask(f"jobs/{latest['jid']}/vertices/{extract['id']}")["subtasks"]
    shares = [task["metrics"]["read-records"] for task in subtasks]
    assert sum(shares) == len(undisturbed) and max(shares) - min(shares) <= 1
