"""A job on Dataflow seen from its submitter: where it is, how it failed, and what a dry run shows.

A job's graph is told as Beam's own client would send it (projects.locations.jobs.create), so that
what --dry_run prints is what a submission sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.runners.runner import PipelineResult

from framebank.features.errors import JobError

_CONSOLE = "https://console.cloud.google.com/dataflow/jobs"


def job_link(result: PipelineResult) -> str:
    """Return the address of the job's page in Google's console."""
    cloud = result._options.view_as(GoogleCloudOptions)
    return f"{_CONSOLE}/{cloud.region}/{result.job_id()}?project={cloud.project}"


def submitted_text(result: PipelineResult) -> str:
    """Return what to print of a job that nobody waits for, or that was not submitted at all."""
    if not hasattr(result, "job_id"):  # of --dry_run
        return json.dumps(describe_job(result.job), indent=2)
    cloud = result._options.view_as(GoogleCloudOptions)
    at = f"--region={cloud.region} --project={cloud.project}"
    return (
        f"submitted {cloud.job_name} as job {result.job_id()}\n"
        f"  {job_link(result)}\n"
        f"  follow:  gcloud dataflow jobs describe {result.job_id()} {at}\n"
        f"  cancel:  gcloud dataflow jobs cancel {result.job_id()} {at}\n"
        "  afterwards: `framebank inspect CACHE`, or the same command again for what is missing"
    )


def job_error(error: Exception, result: PipelineResult | None) -> JobError:
    """Return a job's failure in few words: its state, the service's last error and its link."""
    if result is None or not getattr(result, "has_job", False):
        return JobError(
            "Dataflow did not take the job",
            got=f"{type(error).__name__}: {error}"[:600],
            todo="check --project, --region, the buckets and the rights of the account",
        )
    state = getattr(getattr(result, "_job", None), "current_state", None)
    told = getattr(result._runner, "last_error_msg", None) or "the service says no more"
    return JobError(
        "the job on Dataflow failed",
        got=f"{getattr(state, 'name', 'unknown').removeprefix('JOB_STATE_')}: {told[:1500]}",
        todo=f"see {job_link(result)}; what was committed is kept, the same command goes on",
    )


def describe_job(job: Any) -> dict[str, Any]:
    """Return what `apiclient.Job` would send, without the serialised code.

    `steps` has every transform that does something, in order; the images are of their environments.
    """
    from apache_beam.runners.dataflow.internal import apiclient
    from google.protobuf import json_format

    pipeline = job.proto_pipeline
    environment = apiclient.Environment(
        packages=[],
        options=job.options,
        environment_version=apiclient._FNAPI_ENVIRONMENT_MAJOR_VERSION,
        proto_pipeline_staged_url=job.google_cloud_options.staging_location + "/pipeline.pb",
        proto_pipeline=pipeline,
    ).proto
    sent = json_format.MessageToDict(environment._pb)
    head = json_format.MessageToDict(job.proto._pb)
    pool = sent["workerPools"][0]
    return {
        "job": head["name"],
        "type": head["type"],
        "labels": head.get("labels", {}),
        "project": job.google_cloud_options.project,
        "region": job.google_cloud_options.region,
        "staging": job.google_cloud_options.staging_location,
        "packages": _packages(pipeline),
        "main_session": sent["sdkPipelineOptions"]["options"].get("save_main_session", False),
        "experiments": sent.get("experiments", []),
        "service_options": sent.get("serviceOptions", []),
        "workers": {
            "images": sorted(
                {each["containerImage"] for each in pool["sdkHarnessContainerImages"]}
            ),
            "machine": pool.get("machineType", "chosen by Dataflow"),
            "disk_gb": pool["diskSizeGb"],
            "threads": pool["numThreadsPerWorker"],
            "first": pool.get("numWorkers"),
            "most": pool["autoscalingSettings"]["maxNumWorkers"],
        },
        "steps": list(_steps(pipeline.components, pipeline.root_transform_ids)),
    }


def _packages(pipeline: Any) -> list[str]:
    from apache_beam.portability.api import beam_runner_api_pb2 as api

    names = {
        api.ArtifactStagingToRolePayload.FromString(part.role_payload).staged_name
        for environment in pipeline.components.environments.values()
        for part in environment.dependencies
    }
    return sorted(names)


def _steps(parts: Any, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the transforms without parts, each with its resource hints by short name."""
    for key in keys:
        transform = parts.transforms[key]
        if transform.subtransforms:
            yield from _steps(parts, transform.subtransforms)
            continue
        hints = parts.environments[transform.environment_id].resource_hints
        step: dict[str, Any] = {"name": transform.unique_name, "urn": transform.spec.urn}
        if hints:
            step["hints"] = {urn.split(":")[-2]: hints[urn].decode() for urn in sorted(hints)}
        yield step
