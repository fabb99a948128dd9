"""What is checked of a submission to Dataflow: parts, options, places, credentials.

Each mistake is one message, and nothing is asked of the network but for credentials.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    TestOptions,
    WorkerOptions,
)

from framebank.features import threads
from framebank.features.errors import UsageError
from framebank.pipelines.jobs import beam_options

_CREDENTIALS_S = 7.0
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_JOB_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"gs://[a-z0-9][-_a-z0-9.]+[a-z0-9](/.*)?")


def check(options: PipelineOptions, *, wait: bool) -> None:
    """Raise UsageError for what cannot work; sets what follows from other options."""
    _check_installed()
    test = options.view_as(TestOptions)
    test.dry_run = beam_options.read_dry_run(test.dry_run)
    _check_conflicts(options, wait=wait)
    _check_cloud(options)
    _check_workers(options)


def is_prime(options: PipelineOptions) -> bool:
    """Return whether the job is for Dataflow Prime, which chooses machines by hints."""
    experiment = options.view_as(DebugOptions).lookup_experiment("enable_prime")
    return "enable_prime" in services(options) or bool(experiment)


def is_dry_run(options: PipelineOptions) -> bool:
    """Return whether the job is only to be shown."""
    return bool(options.view_as(TestOptions).dry_run)


def staging_places(options: PipelineOptions) -> tuple[str, ...]:
    """Return where the submission puts the packages, and the job its temporary files."""
    cloud = options.view_as(GoogleCloudOptions)
    return tuple(filter(None, dict.fromkeys((cloud.staging_location, cloud.temp_location))))


def services(options: PipelineOptions) -> list[str]:
    """Return the options for the service itself."""
    return list(options.view_as(GoogleCloudOptions).dataflow_service_options or [])


def _check_installed() -> None:
    with contextlib.suppress(ModuleNotFoundError):  # of google.cloud
        if importlib.util.find_spec("google.cloud.dataflow_v1beta3") is not None:
            return
    raise UsageError(
        "--runner DataflowRunner needs Beam's parts for Google Cloud",
        todo='pip install "framebank[gcp]"',
    )


def _check_conflicts(options: PipelineOptions, *, wait: bool) -> None:
    setup, cloud = options.view_as(SetupOptions), options.view_as(GoogleCloudOptions)
    standard = options.view_as(StandardOptions)
    experiments = options.view_as(DebugOptions).experiments or []
    several = "use_multiple_sdk_containers" in experiments
    accelerated = any(text.startswith("worker_accelerator") for text in services(options))
    dry_wait, prime_flexrs = wait and is_dry_run(options), is_prime(options) and cloud.flexrs_goal
    one_process = "leave it out: one SDK process a worker, since each holds a network"
    give_ours = "give --accelerator TYPE[:COUNT], which sets it"
    nothing_to_wait = "leave one out: nothing is submitted that could be waited for"
    refused = (
        (setup.save_main_session, "--save_main_session", "leave it out: no code is in __main__"),
        (cloud.template_location, "--template_location", "see `framebank template build --help`"),
        (standard.streaming, "--streaming", "leave it out: this is a batch job"),
        (cloud.update, "--update", "leave it out: only streaming jobs are updated"),
        (several, "--experiments=use_multiple_sdk_containers", one_process),
        (accelerated, "worker_accelerator as a service option", give_ours),
        (dry_wait, "--wait with --dry_run", nothing_to_wait),
        (prime_flexrs, "--flexrs_goal with Prime", "leave one out: Prime has no FlexRS"),
    )
    for is_given, what, todo in refused:
        if is_given:
            raise UsageError(f"{what} is not for Framebank on Dataflow", todo=todo)
    setup.save_main_session = False


def _check_cloud(options: PipelineOptions) -> None:
    cloud = options.view_as(GoogleCloudOptions)
    cloud.region = cloud.region or os.environ.get("CLOUDSDK_COMPUTE_REGION")
    cloud.temp_location = cloud.temp_location or cloud.staging_location
    cloud.staging_location = cloud.staging_location or cloud.temp_location
    for name, pattern, like in (
        ("project", _PROJECT, "the project's id, like my-project-1 (not its number or title)"),
        ("region", _REGION, "a region, like europe-west4"),
        ("temp_location", _BUCKET, "a place for temporary files, like gs://bucket/temp"),
        ("staging_location", _BUCKET, "a place for the packages, like gs://bucket/staging"),
    ):
        value = getattr(cloud, name)
        if not value:
            raise UsageError(f"DataflowRunner needs --{name}", expected=like)
        if not pattern.fullmatch(value):
            raise UsageError(f"--{name} is not right", got=value, expected=like)
    if cloud.job_name and not _JOB_NAME.fullmatch(cloud.job_name):
        like = "at most 63 of a-z, 0-9 and -, a letter first, no - at the end"
        raise UsageError("--job_name is not right", got=cloud.job_name, expected=like)


def _check_workers(options: PipelineOptions) -> None:
    workers, debug = options.view_as(WorkerOptions), options.view_as(DebugOptions)
    for view, name in (
        (workers, "num_workers"),
        (workers, "max_num_workers"),
        (workers, "disk_size_gb"),
        (debug, "number_of_worker_harness_threads"),
    ):
        value = getattr(view, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be above 0", got=value)
    most = workers.max_num_workers
    if workers.num_workers and most and workers.num_workers > most:
        raise UsageError("--num_workers is above --max_num_workers", got=workers.num_workers)


def check_credentials(options: PipelineOptions) -> None:
    """Raise UsageError without credentials where the job needs any."""
    if options.view_as(GoogleCloudOptions).no_auth or is_dry_run(options):
        return
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:  # in a thread, since off Google's machines it asks the network for one, again and again
        threads.begin(google.auth.default).result(_CREDENTIALS_S)
    except (GoogleAuthError, OSError, ValueError) as error:  # OSError: a TimeoutError too
        raise UsageError(
            "no credentials for Google Cloud",
            todo="run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key",
        ) from error
