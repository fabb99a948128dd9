"""Flink: what is checked and set before a job goes to it, and Beam's job server for it.

Defaults that Framebank sets, each unless the user did:
- `--execution_mode_for_batch=BATCH_FORCED`: a failure makes one subtask run again, not the job.
- `--parallelism`: Beam's is 1. With more than there are slots a job waits for ever.
- `--flink_version`: Beam's is the newest that it knows, not the cluster's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.utils.subprocess_server import JavaJarServer

from framebank.features.errors import JobError, UsageError
from framebank.features.stores.objects import first_line
from framebank.pipelines.jobs import environments
from framebank.pipelines.jobs.environments import Workers
from framebank.pipelines.jobs.servers import JobServer, free_port, start_server
from framebank.pipelines.runners.flink import rest
from framebank.pipelines.runners.flink.rest import Cluster

LOCAL = ("[local]", "[auto]")
_LOCAL_VERSION = "1.20"
JAR_VARIABLE = "FRAMEBANK_FLINK_JOB_SERVER_JAR"
_GIVE_JAR = f"give a jar that you have, by --flink_job_server_jar=PATH or {JAR_VARIABLE}"
_LEAST_JAVA = 11
_HEAD_S = 5.0


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
            find_java(options)
        flink.flink_job_server_jar = find_jar(options)
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


def find_java(options: PipelineOptions) -> str:
    """Return the java to start; raises UsageError where there is none, or an old one."""
    given = options.view_as(JobServerOptions).job_server_java_launcher
    home = os.environ.get("JAVA_HOME")
    name = os.path.join(home, "bin", "java") if home and given == "java" else given
    path, todo = shutil.which(name), f"install Java {_LEAST_JAVA} to 17, or set JAVA_HOME"
    if path is None:
        raise UsageError("Beam's Flink job server needs Java", got=f"no `{name}`", todo=todo)
    try:
        said = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=_HEAD_S
        ).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{path} does not run", got=str(error), todo=todo) from error
    match = re.search(r'version "(\d+)(?:\.(\d+))?', said)
    if match is None:
        got = (said.strip().splitlines() or ["nothing"])[-1]
        raise UsageError(f"{path} does not tell its version", got=got, todo=todo)
    version = int(match[2] or 0) if match[1] == "1" else int(match[1])
    if version < _LEAST_JAVA:
        raise UsageError("Java is too old for Flink", got=f"Java {version}", todo=todo)
    return path


def find_jar(options: PipelineOptions) -> str:
    """Return the path or address of the job server; raises UsageError where there is none."""
    flink = options.view_as(FlinkRunnerOptions)
    given = flink.flink_job_server_jar
    source = "--flink_job_server_jar" if given else JAR_VARIABLE
    given = given or os.environ.get(JAR_VARIABLE)
    if given:
        return _check_jar(given, source, flink.flink_version)
    url = str(
        JavaJarServer.path_to_beam_jar(f":runners:flink:{flink.flink_version}:job-server:shadowJar")
    )
    folder = options.view_as(JobServerOptions).jar_cache_dir or JavaJarServer.JAR_CACHE
    cached = Path(folder, url.rsplit("/", 1)[-1])
    if cached.exists():
        return str(cached)
    _check_there(url, f"Beam's job server for Flink {flink.flink_version}")
    return url


def _check_jar(given: str, source: str, version: str) -> str:
    path = os.path.expanduser(given)
    if re.match(r"https?://", given):
        _check_there(given, source)
    elif not zipfile.is_zipfile(path):
        got = f"{given} is not a jar" if os.path.isfile(path) else f"no file {given}"
        raise UsageError(f"{source} is not right", got=got, expected="a jar")
    named = re.search(r"flink-(\d+\.\d+)-job-server", os.path.basename(given))
    if named and named[1] != version:
        raise UsageError(
            f"{source} is for another version of Flink",
            got=os.path.basename(given),
            expected=f"Flink {version}",
            todo="give the one of that version, or leave it out",
        )
    return path


def _check_there(url: str, what: str) -> None:
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=_HEAD_S).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{what} cannot be fetched",
            got=f"{url}: {getattr(error, 'reason', None) or error}",
            todo=_GIVE_JAR,
        ) from error


def start(options: PipelineOptions, folder: str) -> JobServer:
    """Start the Java job server with all its files in `folder`; raises JobError if it does not."""
    flink, server = options.view_as(FlinkRunnerOptions), options.view_as(JobServerOptions)
    port = server.job_port or free_port()
    temporary = os.path.join(folder, "java")
    os.makedirs(temporary)
    command = [
        find_java(options),
        *server.job_server_jvm_properties,
        f"-Djava.io.tmpdir={temporary}",
        *("-jar", local_jar(options)),
        *("--flink-master", flink.flink_master),
        *("--artifacts-dir", server.artifacts_dir or os.path.join(folder, "artifacts")),
        *("--job-port", str(port)),
        *("--artifact-port", str(server.artifact_port)),
        *("--expansion-port", str(server.expansion_port)),
    ]
    return start_server(command, port=port, name="Flink-job-server", folder=folder, extra_env={})


def local_jar(options: PipelineOptions) -> str:
    """Return the job server's jar on this machine, fetched into Beam's cache if need be."""
    given = options.view_as(FlinkRunnerOptions).flink_job_server_jar
    try:
        cache = options.view_as(JobServerOptions).jar_cache_dir
        return str(JavaJarServer.local_jar(given, cache))
    except (OSError, RuntimeError) as error:
        raise JobError(
            "Beam's job server for Flink cannot be fetched",
            got=first_line(error),
            todo=_GIVE_JAR,
        ) from error
