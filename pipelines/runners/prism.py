"""Prism, Beam's portable runner in Go: found on this machine, never downloaded.

Beam would fetch a missing one from GitHub, with long retries where that cannot be reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from apache_beam.options.pipeline_options import (
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
)

from framebank.features.errors import UsageError
from framebank.pipelines.jobs import environments
from framebank.pipelines.jobs.environments import Workers
from framebank.pipelines.jobs.servers import JobServer, free_port, start_server

_BEAM_CACHE = "~/.apache_beam/cache/prism/bin"
_HELP_S = 5.0


def prepare(options: PipelineOptions) -> Workers:
    """Set Prism's defaults in `options`, check its parts, and return where the workers run.

    Raises UsageError for a missing binary and for a pool that does not answer.
    """
    portable = options.view_as(PortableOptions)
    if not portable.environment_type:
        portable.environment_type = "LOOPBACK"
    here = True
    if portable.job_endpoint:
        here = environments.check_endpoint(portable.job_endpoint)
    else:
        _check_is_prism(find_binary(options))
    return environments.find_workers(options, runner_here=here)


def find_binary(options: PipelineOptions) -> str:
    """Return the path of Prism; raises UsageError that says what to install."""
    given = options.view_as(PrismRunnerOptions).prism_location
    if given:
        path, todo = os.path.expanduser(given), "give the path of the program `prism`"
        if not os.path.isfile(path):
            got = f"no file {path}"
        elif not os.access(path, os.X_OK):
            got, todo = f"{path} is not executable", f"chmod +x, or {todo}"
        else:
            return path
        raise UsageError("--prism_location is not right", got=got, todo=todo)
    beside = Path(sys.executable).parent
    folders = [beside, beside.parent / "built", Path(_BEAM_CACHE).expanduser()]
    found = shutil.which("prism") or shutil.which("prism", path=os.pathsep.join(map(str, folders)))
    if found is None:
        from apache_beam.version import __version__ as version

        package = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{version}"
        raise UsageError(
            "Prism, which --runner PrismRunner needs, is not installed",
            got="no `prism` on PATH or beside Python",
            todo=f"run `go install {package}` (Go 1.26), or give --prism_location=PATH",
        )
    return found


def _check_is_prism(path: str) -> None:
    reason = "its -h does not tell of -job_port"
    try:
        told = subprocess.run(
            [path, "-h"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_HELP_S
        ).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        told, reason = b"", str(error)
    if b"job_port" not in told:
        raise UsageError(
            f"{path} is not Prism", got=reason, todo="give --prism_location=PATH of Beam's Prism"
        )


def start(options: PipelineOptions, folder: str) -> JobServer:
    """Start Prism with its temporary files in `folder`; raises JobError when it does not start."""
    prism = options.view_as(PrismRunnerOptions)
    port = options.view_as(JobServerOptions).job_port or free_port()
    kind = "text" if prism.prism_log_kind == "console" else prism.prism_log_kind
    command = [
        find_binary(options),
        *("--job_port", str(port)),
        *("--log_level", prism.prism_log_level, "--log_kind", kind),
        "--serve_http=false",
    ]
    return start_server(
        command, port=port, name="Prism", folder=folder, extra_env={"TMPDIR": folder}
    )
