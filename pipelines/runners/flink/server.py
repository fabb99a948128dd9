"""Beam's job server for Flink: the Java and the jar that it needs, and starting it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
import zipfile
from pathlib import Path

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
)

from framebank.features.errors import JobError, UsageError
from framebank.features.stores.objects import first_line
from framebank.pipelines.jobs.servers import JobServer, free_port, start_server

JAR_VARIABLE = "FRAMEBANK_FLINK_JOB_SERVER_JAR"
_GIVE_JAR = f"give a jar that you have, by --flink_job_server_jar=PATH or {JAR_VARIABLE}"
_LEAST_JAVA = 11
_HEAD_S = 5.0


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
    from apache_beam.utils.subprocess_server import JavaJarServer

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
    from apache_beam.utils.subprocess_server import JavaJarServer

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
