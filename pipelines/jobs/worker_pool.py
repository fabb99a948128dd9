"""The pool that starts Beam's SDK workers for EXTERNAL environments, and says when one dies.

    python -m framebank.pipelines.jobs.worker_pool --service_port=50000

Beam's own pool (`apache_beam.runners.worker.worker_pool_main`) starts workers and forgets them. A
runner then waits for ever for one that died before it was connected, as of too little memory while
it imports TensorFlow. This one looks after its workers. When one dies unasked, that is in the log;
and the pool connects in its place and answers whatever is asked with what happened. So the runner
tries again, or the job ends with those words.

It listens on this machine's loopback only (`--bind` names another address): who reaches it runs
code here. SIGINT and SIGTERM end it and its workers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from framebank.features import threads
from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.pipelines.jobs.beam_options import mark_for_client

_CALLS = 64  # at a time; each is short
_STOP_S = 5.0
_HEAR_S = 1.0
_CONNECT_S = 20.0
_STAND_IN_S = 600.0
_DATA_STEPS = ("beam:runner:source:v1", "beam:runner:sink:v1")
_WORDS = 5  # of a dead worker, the last lines
# As Beam's pool starts a worker; tied to this process.
_WORKER = """
import signal, sys
from framebank.features.processes import end_with_parent
end_with_parent(int(sys.argv[3]), by=signal.SIGTERM)
from apache_beam.runners.worker.sdk_worker import SdkHarness
SdkHarness(
    sys.argv[1], worker_id=sys.argv[2], state_cache_size=0, data_buffer_time_limit_ms=-1
).run()
"""


class Worker:
    """One SDK worker, from its start to its end, whoever ends it."""

    def __init__(self, worker_id: str, control: str, *, code: str = _WORKER) -> None:
        self._id, self._control, self._code = worker_id, control, code
        self._stopped = threading.Event()
        self._started: queue.Queue[Exception | None] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel ends a child with the thread that started it: this one stays as long.
        self._thread = threading.Thread(target=self._look_after, daemon=True)

    def start(self) -> None:
        """Start it; raises OSError where no process can be had."""
        self._thread.start()
        if error := self._started.get():
            raise error

    def stop(self) -> None:
        """End it, and wait for that."""
        self._stopped.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._thread.join(_STOP_S)

    def _look_after(self) -> None:
        command = [sys.executable, "-c", self._code, self._control, self._id, str(os.getpid())]
        try:
            self._process = process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            self._started.put(error)
            return
        self._started.put(None)
        words: deque[str] = deque(maxlen=_WORDS)
        # Its decoders may hold the pipe open for longer than it lives.
        passing = threading.Thread(target=_pass_on, args=(process, words), daemon=True)
        passing.start()
        status = process.wait()
        passing.join(1.0)
        if not self._stopped.is_set() and status != 0:
            fault = explain_death(self._id, status, list(words))
            _say(str(fault))
            with contextlib.suppress(grpc.RpcError, grpc.FutureTimeoutError):
                stand_in(self._control, self._id, fault, stopped=self._stopped)


def _pass_on(process: subprocess.Popen[bytes], words: deque[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        if text := line.decode(errors="backslashreplace").strip():
            words.append(text)


def explain_death(worker_id: str, status: int, words: Sequence[str]) -> JobError:
    """Return what to tell of a worker that ended with `status` and said `words` at last."""
    how = f"status {status}"
    if status < 0:
        how = f"{signal.Signals(-status).name}" + " (out of memory?)" * (status == -signal.SIGKILL)
    return JobError(
        f"the SDK worker {worker_id} on {socket.gethostname()} died",
        got=f"{how}; its last output: {words[-1][:300] if words else 'none'}",
        todo="see the log of that worker pool; give the pool more memory (the container's limit, "
        "ulimit -v), then run the same command again: what was committed is kept",
    )


def stand_in(
    control: str, worker_id: str, fault: FramebankError, *, stopped: threading.Event
) -> None:
    """Connect to a runner in a dead worker's place, and answer all that it asks with `fault`.

    Ends with `stopped`. Raises grpc.FutureTimeoutError where nobody listens any more, RpcError
    where the runner leaves.
    """
    answers: queue.Queue[Any] = queue.Queue()
    metadata = [("worker_id", worker_id)]
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(control))
        grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
        stub = beam_fn_api_pb2_grpc.BeamFnControlStub(channel)
        stack.callback(answers.put, None)  # gRPC's thread that sends them waits for the next
        call = stub.Control(iter(answers.get, None), metadata=metadata, timeout=_STAND_IN_S)
        threads.begin(lambda: (stopped.wait(_STAND_IN_S), call.cancel()))
        text = str(mark_for_client(fault))
        for request in call:
            if request.HasField("process_bundle"):
                # A runner hears no answer before it has sent its data: Flink waits three minutes.
                for url in _data_urls(stub, request, metadata):
                    _take_data(stack, url, metadata)
            number = request.instruction_id
            answers.put(beam_fn_api_pb2.InstructionResponse(instruction_id=number, error=text))


def _take_data(stack: contextlib.ExitStack, url: str, metadata: Sequence[tuple[str, str]]) -> None:
    """Connect for data, send none, and drop what comes, until the end of `stack`."""
    channel = stack.enter_context(grpc.insecure_channel(url))
    nothing: queue.Queue[Any] = queue.Queue()
    stack.callback(nothing.put, None)
    taken = beam_fn_api_pb2_grpc.BeamFnDataStub(channel).Data(
        iter(nothing.get, None), metadata=metadata, timeout=_STAND_IN_S
    )
    threads.begin(lambda: deque(taken, maxlen=0))  # till the runner closes it


def _data_urls(stub: Any, request: Any, metadata: list[tuple[str, str]]) -> set[str]:
    """Return where a runner expects the data connections of a bundle's worker."""
    asked = beam_fn_api_pb2.GetProcessBundleDescriptorRequest(
        process_bundle_descriptor_id=request.process_bundle.process_bundle_descriptor_id
    )
    found = stub.GetProcessBundleDescriptor(asked, metadata=metadata, timeout=_CONNECT_S)
    ports = (
        beam_fn_api_pb2.RemoteGrpcPort.FromString(step.spec.payload)
        for step in found.transforms.values()
        if step.spec.urn in _DATA_STEPS
    )
    return {port.api_service_descriptor.url for port in ports}


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):  # type: ignore[misc]
    """What a runner calls: `StartWorker` and `StopWorker` of Beam's protocol."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def StartWorker(self, request: Any, context: object) -> Any:  # noqa: N802
        worker = Worker(request.worker_id, request.control_endpoint.url)
        try:
            worker.start()
        except OSError as error:
            _say(f"the SDK worker {request.worker_id} cannot be started: {error}")
            return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
        self._workers[request.worker_id] = worker
        _say(f"started the SDK worker {request.worker_id}")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: object) -> Any:  # noqa: N802
        if worker := self._workers.pop(request.worker_id, None):
            worker.stop()
            _say(f"stopped the SDK worker {request.worker_id}")
        return beam_fn_api_pb2.StopWorkerResponse()

    def close(self) -> None:
        with ThreadPoolExecutor(_CALLS) as enders:
            enders.map(Worker.stop, list(self._workers.values()))


def serve(address: str) -> tuple[WorkerPool, grpc.Server, int]:
    """Listen at HOST:PORT; return (pool, server, port). Raises UsageError where it is taken."""
    server = grpc.server(ThreadPoolExecutor(_CALLS), options=[("grpc.so_reuseport", 0)])
    pool = WorkerPool()
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise UsageError(
            "the worker pool cannot listen",
            got=f"{address} is taken, or no address of this machine",
            todo="end what listens there, or give another --service_port",
        )
    server.start()
    return pool, server, port


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m framebank.pipelines.jobs.worker_pool", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--service_port", type=int, required=True, metavar="PORT")
    parser.add_argument("--bind", default="localhost", metavar="HOST", help="default: %(default)s")
    args = parser.parse_args(argv)
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()  # which a handler may always put into
    # Set, not inherited: a job in the background of a script is started with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: ended.put(number))
    try:
        pool, server, port = serve(f"{args.bind}:{args.service_port}")
    except UsageError as error:
        _say(str(error))
        return error.exit_status
    _say(f"waiting for runners at {args.bind}:{port}")
    # The kernel may hand a signal to another thread; this one, whose part it is to answer, then
    # hears of it when it wakes.
    while True:
        with contextlib.suppress(queue.Empty):
            ended.get(timeout=_HEAR_S)
            break
    server.stop(0)
    pool.close()
    return 0


def _say(text: str) -> None:
    print(f"worker pool: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
