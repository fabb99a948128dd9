"""What Dataflow needs before a job is submitted to it: its checks, its defaults, its GPUs.

The edge of what has been run: job graphs by --dry_run, and whole submissions by the real
DataflowRunner to a server on this machine that speaks the service's protocol, with what it stages
installed in a bare environment. Dataflow itself, its GPUs and Prime were not within reach; what is
done for them here follows https://cloud.google.com/dataflow/docs (gpu, guides/right-fitting).
"""

from __future__ import annotations

import importlib.util
import re
import secrets
import time
from pathlib import Path

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from framebank import HOME, __version__
from framebank.features.errors import UsageError
from framebank.features.stores import disk, storage
from framebank.pipelines.runners.dataflow import checks
from framebank.pipelines.runners.dataflow.checks import is_prime, services
from framebank.pipelines.runners.dataflow.machines import GPUS, MACHINE, gpu_text, parse_accelerator

_THREADS = 2  # one shard is decoded while the other's last frames are computed
_WORKERS = 10
_SYSTEM_GB = 30  # an image with CUDA
_STAGED_GB_PER_THREAD = 10  # features/decoders/clip_staging.py, 8 GiB ahead
# Measured: 1.1 GiB resident for inception_v3 in float32 with batches of 32, and 20 MiB for each
# more thread. The decoders come on top, and what a large clip's frames take; the rest is reserve.
_MIN_RAM = "8GB"
_ONE_PROCESS = "no_use_multiple_sdk_containers"


def prepare(options: PipelineOptions, *, accelerator: str | None, wait: bool = False) -> list[str]:
    """Check a submission and set what the user left open; returns what to say of it.

    `accelerator` is TYPE or TYPE:COUNT. Raises UsageError; takes less than ten seconds.
    """
    checks.check(options, wait=wait)
    gpu = None if accelerator is None else parse_accelerator(accelerator)
    _set_workers(options, gpu)
    _set_package(options, gpu)
    checks.check_credentials(options)
    workers, cloud = options.view_as(WorkerOptions), options.view_as(GoogleCloudOptions)
    threads = options.view_as(DebugOptions).number_of_worker_harness_threads
    where = workers.sdk_container_image or options.view_as(SetupOptions).setup_file
    machine = workers.machine_type or "machines that Prime chooses"
    return [
        f"Dataflow in {cloud.region}: at most {workers.max_num_workers} workers, {machine}, "
        f"{threads} threads, {workers.disk_size_gb} GB of disk; Framebank comes from {where}"
    ]


def resource_hints(options: PipelineOptions, *, accelerator: str | None) -> dict[str, str]:
    """Return Beam's resource hints for the step that decodes and infers.

    Any hint turns right fitting on, which FlexRS does not have and which must not be used together
    with worker_accelerator. So a GPU goes into the hints on Prime only.
    """
    if options.view_as(GoogleCloudOptions).flexrs_goal or (accelerator and not is_prime(options)):
        return {}
    if accelerator is None:
        return {"min_ram": _MIN_RAM}
    return {"min_ram": _MIN_RAM, "accelerator": gpu_text(*parse_accelerator(accelerator))}


def name_job(options: PipelineOptions, name: str, *, command: str) -> None:
    """Name the job after `name` unless it has a name, and label it by what made it."""
    cloud = options.view_as(GoogleCloudOptions)
    cloud.job_name = (
        cloud.job_name or f"{name}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    )
    given = list(cloud.labels or [])
    version = re.sub(r"[^a-z0-9_-]", "-", __version__.lower())
    for key, value in (("framebank-version", version), ("framebank-command", command)):
        if not any(key in label for label in given):
            given.append(f"{key}={value}")
    cloud.labels = given


def _set_workers(options: PipelineOptions, gpu: tuple[str, int] | None) -> None:
    workers, debug = options.view_as(WorkerOptions), options.view_as(DebugOptions)
    _set_machine(options, gpu)
    if gpu is not None and not is_prime(options):
        if hints := options.view_as(StandardOptions).resource_hints:
            raise UsageError(
                "--resource_hint and --accelerator exclude each other except on Prime",
                got=str(hints),
                todo="leave one out, or add --dataflow_service_options=enable_prime",
            )
        options.view_as(GoogleCloudOptions).dataflow_service_options = [
            *services(options),
            f"worker_accelerator={gpu_text(*gpu)}",
        ]
    threads = debug.number_of_worker_harness_threads or _THREADS
    debug.number_of_worker_harness_threads = threads
    workers.disk_size_gb = workers.disk_size_gb or _SYSTEM_GB + _STAGED_GB_PER_THREAD * threads
    workers.max_num_workers = workers.max_num_workers or max(_WORKERS, workers.num_workers or 1)
    debug.experiments = list(debug.experiments or [])
    debug.add_experiment(_ONE_PROCESS)


def _set_machine(options: PipelineOptions, gpu: tuple[str, int] | None) -> None:
    workers = options.view_as(WorkerOptions)
    if is_prime(options):
        if workers.machine_type:
            todo = "leave it out: Prime chooses machines by resource hints"
            raise UsageError("Dataflow Prime takes no --machine_type", todo=todo)
        return
    chosen = GPUS[gpu[0]] if gpu else None
    workers.machine_type = workers.machine_type or (chosen.machine if chosen else MACHINE)
    if gpu and chosen and not workers.machine_type.startswith(chosen.machines):
        raise UsageError(
            f"--machine_type does not take {gpu[0]}",
            got=workers.machine_type,
            expected=f"one of {chosen.machines[0]}*, like {chosen.machine}",
        )


def _set_package(options: PipelineOptions, gpu: tuple[str, int] | None) -> None:
    """See to it that the workers have Framebank: in their image, or packaged from a checkout."""
    setup, image = options.view_as(SetupOptions), options.view_as(WorkerOptions).sdk_container_image
    if gpu is not None and not image:
        raise UsageError(
            "--accelerator needs an image with CUDA, which Beam's own has not",
            todo="build infra/docker/worker-gpu.Dockerfile and give --sdk_container_image=IMAGE",
        )
    if image and not setup.setup_file:
        return
    given = setup.setup_file
    script = Path(given) if given else Path(HOME, "setup.py")
    if not script.is_file():
        raise UsageError(
            "the workers would have no Framebank",
            got=f"no file {given}" if given else "Framebank runs here from no checkout",
            todo="give --sdk_container_image=IMAGE (infra/docker), or a checkout's --setup_file",
        )
    if script.name != "setup.py":
        raise UsageError("--setup_file is not right", got=given, expected="the path of a setup.py")
    if importlib.util.find_spec("setuptools") is None:
        raise UsageError("packaging needs setuptools", todo="pip install setuptools build")
    if err := disk.why_unwritable(str(script.resolve().parent)):
        raise UsageError(
            "packaging writes beside setup.py, and cannot",
            got=f"{err.strerror}: {err.filename}",
            todo="use a checkout that can be written, or give --sdk_container_image=IMAGE",
        )
    setup.setup_file = str(script.resolve())
    # The package alone asks for what reading a cache needs; workers take the rest by this list.
    listed = script.parent / "infra" / "docker" / "worker-cpu.txt"
    if not listed.is_file():
        return
    if own := setup.requirements_file:
        if lacking := sorted(_names(str(listed)) - _names(own)):
            raise UsageError(
                "the workers would lack libraries",
                got=f"--requirements_file={own} without {', '.join(lacking)}",
                todo=f"add the lines of {listed} to it, or give --sdk_container_image=IMAGE",
            )
        return
    setup.requirements_file = str(listed)
    setup.requirements_cache = "skip"  # each worker's pip fetches them, as it did by the package


def _names(path: str) -> set[str]:
    text = storage.read_bytes(path).decode("utf-8", "replace")
    return {name.lower() for name in re.findall(r"^[\w.-]+", text, re.MULTILINE)}
