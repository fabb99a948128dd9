"""Flink: what is checked and set before a job goes to it.

Defaults that Framebank sets, each unless the user did:
- `--execution_mode_for_batch=BATCH_FORCED`: a failure makes one subtask run again, not the job.
- `--parallelism`: Beam's is 1. With more than there are slots a job waits for ever.
- `--flink_version`: Beam's is the newest that it knows, not the cluster's.
"""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
)

from framebank.features.errors import UsageError
from framebank.pipelines.jobs import environments
from framebank.pipelines.jobs.environments import Workers
from framebank.pipelines.runners.flink import rest, server
from framebank.pipelines.runners.flink.rest import Cluster

LOCAL = ("[local]", "[auto]")
_LOCAL_VERSION = "1.20"


def prepare(
    options: PipelineOptions, words: Sequence[str]
) -> tuple[Workers, Cluster | None, list[str]]:
    """Check a submission to Flink, and set what it needs in `options`.

    Returns the workers, the cluster (None: the job server's own), and what to say. Raises
    UsageError: no Java, no job server, no cluster at the address, too few slots, workers that
    nobody starts.
    """
    flink = options.view_as(FlinkRunnerOptions)
    endpoint = options.view_as(PortableOptions).job_endpoint
    here = environments.check_endpoint(endpoint) if endpoint else True
    cluster, notes = None, []
    if flink.flink_master.strip() in LOCAL:
        _set_local(options, words, endpoint)
    else:
        cluster = rest.ask_cluster(flink.flink_master.strip())
        notes = _set_cluster(options, words, cluster)
        here = cluster.here
    workers = environments.find_workers(options, runner_here=here)
    if not endpoint:
        if cluster is None or not flink.flink_submit_uber_jar:
            server.find_java(options)
        flink.flink_job_server_jar = server.find_jar(options)
    return workers, cluster, notes


def default_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return options to add to the user's: those that Beam's Python side passes on as words."""
    forced = "--execution_mode_for_batch=BATCH_FORCED"
    return () if _names(words, "execution_mode_for_batch") else (forced,)


def _names(words: Sequence[str], option: str) -> bool:
    return any(word.split("=")[0] == f"--{option}" for word in words)


def _set_local(options: PipelineOptions, words: Sequence[str], endpoint: str | None) -> None:
    """A Flink inside the job server: one of ours, or one that listens at `endpoint`."""
    flink, portable = options.view_as(FlinkRunnerOptions), options.view_as(PortableOptions)
    if not _names(words, "flink_version"):
        flink.flink_version = _LOCAL_VERSION
    if not portable.environment_type:
        portable.environment_type = "LOOPBACK"
    if endpoint:  # its server knows its cluster
        return
    flink.flink_master = "[local]"  # "[auto]" would look around for a cluster
    if flink.parallelism < 1:
        flink.parallelism = 1  # one subtask keeps all cores busy; each more has decoders of its own


def _set_cluster(options: PipelineOptions, words: Sequence[str], cluster: Cluster) -> list[str]:
    flink = options.view_as(FlinkRunnerOptions)
    if cluster.minor not in flink.PUBLISHED_FLINK_VERSIONS:
        raise UsageError(
            "this version of Flink is not one that Beam runs on",
            got=f"Flink {cluster.version} at {cluster.url}",
            expected=f"one of {', '.join(flink.PUBLISHED_FLINK_VERSIONS)}",
        )
    if _names(words, "flink_version") and flink.flink_version != cluster.minor:
        raise UsageError(
            "--flink_version is not the cluster's",
            got=flink.flink_version,
            expected=f"{cluster.minor}, or leave it out",
        )
    flink.flink_master, flink.flink_version = cluster.url, cluster.minor
    notes = [*_set_parallelism(flink, cluster), f"the job is watched at {cluster.url}"]
    kind, managers = environments.environment_type(options), len(cluster.hosts)
    if kind is None:  # Beam means DOCKER, which a task manager mostly cannot start
        raise UsageError(
            "a Flink cluster needs to be told where its workers are: --environment_type is missing",
            got=f"--flink_master={cluster.url} alone, for which Beam would start Docker",
            expected="EXTERNAL with a worker pool beside each task manager, or LOOPBACK where the "
            "cluster reaches this machine",
            todo="--environment_type=EXTERNAL --environment_config=localhost:50000",
        )
    # Two task managers give their workers the same ids: in one pool they hang, or do all twice.
    several = flink.parallelism != 1
    if several and kind == "LOOPBACK" and managers > 1:
        raise UsageError(
            "LOOPBACK serves one task manager only",
            got=f"{managers} task managers at {cluster.url}",
            todo="use --environment_type=EXTERNAL with a pool beside each, or --parallelism=1",
        )
    if several and kind == "EXTERNAL" and len(set(cluster.hosts)) < managers:
        raise UsageError(
            "one worker pool cannot serve two task managers",
            got=f"task managers on {', '.join(sorted(cluster.hosts))}",
            expected="each on a machine or in a network namespace of its own, with its own pool",
            todo="start them so (infra/flink), or use --parallelism=1",
        )
    return notes


def _set_parallelism(flink: FlinkRunnerOptions, cluster: Cluster) -> list[str]:
    managers = len(cluster.hosts)
    if managers == 0 or cluster.slots == 0:
        raise UsageError(
            f"the Flink cluster at {cluster.url} has no task manager",
            got=f"{managers} task managers, {cluster.slots} slots",
            todo="start one (bin/taskmanager.sh start), then run the same command again",
        )
    if flink.parallelism > cluster.slots:
        raise UsageError(
            "--parallelism is more than the cluster has slots: the job would wait for ever",
            got=f"--parallelism={flink.parallelism}",
            expected=f"at most {cluster.slots} ({managers} task managers)",
            todo="leave it out, or start more task managers",
        )
    busy = cluster.slots - cluster.free_slots
    notes = []
    if flink.parallelism < 1:
        flink.parallelism = cluster.free_slots or cluster.slots
        for_them = f"{cluster.slots} slots on {managers} task manager{'s' if managers > 1 else ''}"
        others = f", {busy} of them busy" if busy else ""
        notes.append(f"--parallelism={flink.parallelism}, for {for_them}{others}")
    if cluster.free_slots < flink.parallelism:
        notes.append(f"{busy} of {cluster.slots} slots are busy: the job waits until they are free")
    return notes
