"""The worker pool, against a runner's control server: what becomes of a worker that dies."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    endpoints_pb2,
)

from framebank.features.errors import UsageError
from framebank.pipelines.jobs import beam_options, worker_pool
from tests import ROOT


class Control(beam_fn_api_pb2_grpc.BeamFnControlServicer):  # type: ignore[misc]
    """A runner's side: asks each worker one thing, and keeps (worker_id, answer)."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()

    def Control(self, answers: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        worker_id = dict(context.invocation_metadata())["worker_id"]
        asked = beam_fn_api_pb2.ProcessBundleProgressRequest(instruction_id="of-no-bundle")
        yield beam_fn_api_pb2.InstructionRequest(
            instruction_id="first", process_bundle_progress=asked
        )
        for answer in answers:
            self.heard.put((worker_id, answer))


@pytest.fixture
def control() -> Iterator[tuple[str, Control]]:
    server, servicer = grpc.server(ThreadPoolExecutor(4)), Control()
    beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(servicer, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}", servicer
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL (out of memory?)"),
        ("raise MemoryError('no room for libtensorflow')", "no room for libtensorflow"),
    ],
)
def test_a_worker_that_dies_before_it_connects_is_told_to_the_runner(
    control: tuple[str, Control], code: str, told: str
) -> None:
    address, servicer = control
    worker = worker_pool.Worker("7-1", address, code=code)
    worker.start()
    worker_id, answer = servicer.heard.get(timeout=60)
    assert (worker_id, answer.instruction_id) == ("7-1", "first")
    error = beam_options.find_marked(answer.error)
    assert error is not None and "the SDK worker 7-1 on" in error.what and told in str(error.got)
    worker.stop()


def test_a_worker_that_is_stopped_or_ends_well_is_not_stood_in_for(
    control: tuple[str, Control],
) -> None:
    address, servicer = control
    for code in ("import time; time.sleep(600)", "pass"):
        worker = worker_pool.Worker("7-2", address, code=code)
        worker.start()
        time.sleep(0.2)
        worker.stop()
    assert servicer.heard.empty()


def test_a_runner_that_is_gone_is_no_trouble() -> None:
    stopped = threading.Event()
    fault = worker_pool.explain_death("1-1", 1, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_pool, "_CONNECT_S", 0.3)
        with pytest.raises(grpc.FutureTimeoutError):
            worker_pool.stand_in("localhost:1", "1-1", fault, stopped=stopped)


def test_the_pool_starts_and_stops_real_workers_and_ends_in_a_script(
    control: tuple[str, Control], tmp_path: Path
) -> None:
    """Started with SIGINT ignored, as in the background of a script, it ends on SIGINT."""
    address, servicer = control
    log = tmp_path / "log"
    with log.open("wb") as file:
        # By a shell, not by preexec_fn: that forks, and gRPC's own thread may abort in the child.
        ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
        words = [sys.executable, "-m", "framebank.pipelines.jobs.worker_pool", "--service_port=0"]
        pool = subprocess.Popen([*ignoring, *words], cwd=ROOT, stderr=file)
    try:
        deadline = time.monotonic() + 60
        while "waiting for runners" not in log.read_text():
            assert pool.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        port = log.read_text().split("localhost:")[1].split()[0]
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            endpoint = endpoints_pb2.ApiServiceDescriptor(url=address)
            request = beam_fn_api_pb2.StartWorkerRequest(worker_id="8-1", control_endpoint=endpoint)
            assert stub.StartWorker(request, timeout=60).error == ""
            worker_id, answer = servicer.heard.get(timeout=60)
            assert worker_id == "8-1" and "<framebank-error>" not in answer.error  # the worker's
            assert children(pool.pid)
            stub.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="8-1"), timeout=60)
            assert not children(pool.pid)
            request.worker_id = "8-2"
            assert stub.StartWorker(request, timeout=60).error == ""
            (worker,) = children(pool.pid)
        pool.send_signal(signal.SIGINT)
        assert pool.wait(timeout=30) == 0
        assert not Path("/proc", worker).exists()
    finally:
        pool.kill()
        pool.wait()


def children(pid: int) -> list[str]:
    """Return the live children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return found


def test_a_port_that_is_taken_is_told() -> None:
    pool, server, port = worker_pool.serve("localhost:0")
    try:
        with pytest.raises(UsageError, match="cannot listen"):
            worker_pool.serve(f"localhost:{port}")
    finally:
        server.stop(None).wait()
        pool.close()
