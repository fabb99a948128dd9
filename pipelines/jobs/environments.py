"""Where a portable runner's workers run: in this process, on this machine, or somewhere else.

A worker that is elsewhere sees neither this machine's files nor its packages, so what a job may
name, and where its network may be built, depends on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, WorkerOptions
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from framebank.features.errors import UsageError
from framebank.features.stores import json_text

_CONNECT_S = 3.0
_DOCKER = "/var/run/docker.sock"
_TYPES = ("LOOPBACK", "EXTERNAL", "PROCESS", "DOCKER")
POOL_COMMAND = "python -m framebank.pipelines.jobs.worker_pool --service_port=PORT"


@dataclasses.dataclass(frozen=True)
class Workers:
    """`elsewhere`: on other machines or in containers; `in_process`: threads of the submitter."""

    elsewhere: bool
    in_process: bool = False


def environment_type(options: PipelineOptions) -> str | None:
    """Return --environment_type as one of the known kinds; raises UsageError for another."""
    kind = options.view_as(PortableOptions).environment_type
    if kind is None or kind in _TYPES or kind.startswith("beam:env:"):
        return kind
    raise UsageError(
        "no such --environment_type",
        got=kind,
        expected=", ".join(_TYPES),
        todo="see infra/docs/how-to",
    )


def find_workers(options: PipelineOptions, *, runner_here: bool) -> Workers:
    """Return where the workers of a portable runner run, and check what can be checked of them.

    `runner_here` tells whether the runner's own processes are on this machine.
    Raises UsageError for a pool that does not answer and for containers without Framebank.
    """
    kind = environment_type(options)
    if kind == "LOOPBACK":  # wherever the runner is, it calls this process
        return Workers(elsewhere=False, in_process=True)
    if (address := pool_address(options)) is not None:
        host, port = split_address(address, what="--environment_config")
        if not runner_here:
            return Workers(elsewhere=True)  # each of the runner's machines resolves it itself
        if problem := _why_no_server(host, port, is_pool=True):
            raise UsageError(
                f"no worker pool answers at --environment_config {host}:{port}",
                got=problem,
                todo=f"start `{POOL_COMMAND}` first, in an environment that has Framebank",
            )
        return Workers(elsewhere=not is_here(host))
    if kind == "PROCESS":
        _check_process(options, runner_here=runner_here)
        return Workers(elsewhere=not runner_here)
    _check_docker(options, needed_here=runner_here and kind in (None, "DOCKER"))
    return Workers(elsewhere=True)


def pool_address(options: PipelineOptions) -> str | None:
    """Return where a job looks for its worker pool, None where its workers need none."""
    if environment_type(options) != "EXTERNAL":
        return None
    portable = options.view_as(PortableOptions)
    config = portable.environment_config or ""
    if config.lstrip().startswith("{"):
        config = _json_field(config, "url")
    address = config or portable.lookup_environment_option("external_service_address")
    if not address:
        raise UsageError(
            "--environment_type=EXTERNAL needs the address of a worker pool",
            todo=f"start `{POOL_COMMAND}` and give --environment_config=HOST:PORT",
        )
    return str(address)


def _json_field(config: str, name: str) -> str:
    try:
        value = json_text.parse(config).get(name)
    except (ValueError, AttributeError):
        value = None
    if not isinstance(value, str):
        raise UsageError(
            "--environment_config is not right", got=config, expected=f'JSON with "{name}"'
        )
    return value


def _check_process(options: PipelineOptions, *, runner_here: bool) -> None:
    portable = options.view_as(PortableOptions)
    if portable.environment_config:
        command = _json_field(portable.environment_config, "command")
    else:
        command = portable.lookup_environment_option("process_command")
    if not command:
        raise UsageError(
            "--environment_type=PROCESS needs the command that starts a worker",
            todo='give --environment_config=\'{"command": "/opt/apache/beam/boot"}\'',
        )
    if runner_here and shutil.which(command) is None:  # a runner may wait for its worker for ever
        raise UsageError(
            "the command of --environment_type=PROCESS is not there",
            got=f"no program {command} on this machine",
            todo="install Beam's boot program, or use --environment_type=LOOPBACK",
        )


def _check_docker(options: PipelineOptions, *, needed_here: bool) -> None:
    """Beam's own image, which DOCKER means without another one, has no Framebank in it."""
    portable = options.view_as(PortableOptions)
    image = portable.environment_config or portable.lookup_environment_option(
        "docker_container_image"
    )
    if not (image or options.view_as(WorkerOptions).sdk_container_image):
        raise UsageError(
            "--environment_type=DOCKER needs an image that has Framebank in it",
            got="none, and Beam's own has not",
            todo="build one (infra/docker) and give --environment_config=IMAGE",
        )
    places = shutil.which("docker"), os.environ.get("DOCKER_HOST"), os.path.exists(_DOCKER)
    if needed_here and not any(places):
        raise UsageError(
            "--environment_type=DOCKER needs Docker, which is not on this machine",
            got=f"no `docker` on PATH, and no {_DOCKER}",
            todo="install it, or use --environment_type=LOOPBACK",
        )


def check_endpoint(address: str) -> bool:
    """Return whether the job server at --job_endpoint is here; raises UsageError for none."""
    host, port = split_address(address, what="--job_endpoint")
    if problem := _why_no_server(host, port):
        raise UsageError(
            "no job server answers at --job_endpoint",
            got=problem,
            todo="start it, or correct the address",
        )
    return is_here(host)


def split_address(text: str, *, what: str) -> tuple[str, int]:
    """Return (host, port) of HOST:PORT; raises UsageError that names the option `what`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(f"{what} is no address", got=text, expected="HOST:PORT")
    return host.strip("[]"), int(port)


def answers(host: str, port: int, *, timeout_s: float = _CONNECT_S) -> bool:
    """Return whether something takes connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def _why_no_server(host: str, port: int, *, is_pool: bool = False) -> str | None:
    """Return what is wrong with the gRPC server that should be there, None when it answers.

    `is_pool`: it should be one that starts workers.
    """
    if not answers(host, port):
        return f"{host}:{port} cannot be connected to"
    name = f"[{host}]" if ":" in host else host
    with grpc.insecure_channel(f"{name}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
            if is_pool:
                nobody = beam_fn_api_pb2.StopWorkerRequest(worker_id="framebank-asks-for-nobody")
                stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
                stub.StopWorker(nobody, timeout=_CONNECT_S)
        except grpc.FutureTimeoutError:
            return f"what listens at {host}:{port} does not speak gRPC"
        except grpc.RpcError as error:
            return f"what listens at {host}:{port} is no worker pool ({error.code().name})"
    return None


def is_here(host: str) -> bool:
    """Return whether a host is this machine: only its own addresses can be bound."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return True
    return False
