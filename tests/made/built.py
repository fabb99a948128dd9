"""Programs that tests run against: made once, kept in .venv/built, or found where a variable says.

Each function returns a path, or skips the test with the reason why the program cannot be had.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

BEAM = "2.77.0"
_PRISM = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{BEAM}"
_FAKE_GCS_SERVER = "github.com/fsouza/fake-gcs-server@v1.56.1"
# Its versions from 2 on lack the suffix that Go wants; this is 7.x of August 2026.
_GOOGLE = "github.com/hashicorp/terraform-provider-google@v1.20.1-0.20260828184646-f3721fb45fa3"
_JAR = f"beam-runners-flink-1.20-job-server-{BEAM}.jar"
_MAVEN = "https://repo.maven.apache.org/maven2/org/apache/beam/beam-runners-flink-1.20-job-server"
_BUILD_LIMIT_S, _TFIO_LIMIT_S = 900, 600


def folder() -> Path:
    """Return the folder that keeps what was built, between test runs."""
    path = ROOT / ".venv" / "built"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other test runs from building the same thing meanwhile."""
    with (folder() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def given(variable: str) -> Path | None:
    """Return the path in an environment variable; a path to nowhere fails the test."""
    text = os.environ.get(variable)
    if not text:
        return None
    path = Path(text)
    assert path.exists(), f"{variable}: there is no {path}"
    return path


def prism() -> Path:
    """Return Beam's Prism runner: FRAMEBANK_PRISM, or built with Go."""
    return given("FRAMEBANK_PRISM") or _go_program("prism", _PRISM)


def fake_gcs_server() -> Path:
    """Return a server that speaks Google's object storage: FRAMEBANK_FAKE_GCS_SERVER, or built."""
    return given("FRAMEBANK_FAKE_GCS_SERVER") or _go_program("fake-gcs-server", _FAKE_GCS_SERVER)


def terraform_provider_google() -> Path:
    """Return Terraform's provider for Google: FRAMEBANK_TERRAFORM_PROVIDER_GOOGLE, or built."""
    given_one = given("FRAMEBANK_TERRAFORM_PROVIDER_GOOGLE")
    return given_one or _go_program("terraform-provider-google", _GOOGLE)


def _go_program(name: str, package: str) -> Path:
    path, failure = _build_go_program(name, package)
    if path is None:
        pytest.skip(failure)
    return path


@functools.lru_cache
def _build_go_program(name: str, package: str) -> tuple[Path | None, str]:
    path = folder() / name
    with alone(name):
        if path.exists():
            return path, ""
        if not (go := shutil.which("go")):
            return None, f"building {name} needs Go, which is not installed"
        command = [go, "install", package]
        try:
            made = subprocess.run(
                command,
                env=os.environ | {"GOBIN": str(folder()), "GOFLAGS": "-trimpath"},
                capture_output=True,
                text=True,
                timeout=_BUILD_LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return None, f"`{' '.join(command)}` took more than {_BUILD_LIMIT_S} s"
    last = (made.stderr.strip().splitlines() or [""])[-1]
    return (path, "") if path.exists() else (None, f"`{' '.join(command)}` failed: {last}")


def installing(python: Path) -> list[str | Path]:
    """Return the words that install what follows them into an environment: uv's, sooner than by
    pip, where this environment has it."""
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        return [uv, "pip", "install", "--quiet", "--python", python]
    return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def tfio(*make: str) -> Path:
    """Return the environment of `make tfio`; `make` are more words for make, such as a target."""
    if shutil.which("make") is None:
        pytest.skip("`make` is not installed")
    with alone("tfio"):
        done = subprocess.run(
            ["make", "tfio", *make, f"PYTHON={sys.executable}"],
            cwd=ROOT, capture_output=True, text=True, timeout=_TFIO_LIMIT_S,
        )  # fmt: skip
    if done.returncode and re.search("[Cc]onnection|No matching distribution", done.stderr):
        pytest.skip(f"`make tfio` cannot get its packages: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return ROOT / ".venv-tfio"


def job_server_jar() -> Path:
    """Return Beam's job server for Flink 1.20: FRAMEBANK_FLINK_JOB_SERVER_JAR, cache, or Maven."""
    cached = Path("~/.apache_beam/cache/jars", _JAR).expanduser()
    if found := given("FRAMEBANK_FLINK_JOB_SERVER_JAR"):
        return found
    if cached.exists():
        return cached
    path, failure = _fetch_job_server_jar()
    if path is None:
        pytest.skip(failure)
    return path


@functools.lru_cache
def _fetch_job_server_jar() -> tuple[Path | None, str]:
    path, url = folder() / _JAR, f"{_MAVEN}/{BEAM}/{_JAR}"
    with alone(_JAR):
        if path.exists():
            return path, ""
        part = path.with_suffix(".part")
        try:
            with urllib.request.urlopen(url, timeout=20) as answer, part.open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
        except (urllib.error.URLError, OSError) as error:
            part.unlink(missing_ok=True)
            why = f"the Maven registry does not give Beam's Flink job server ({error})"
            return None, f"{why}; FRAMEBANK_FLINK_JOB_SERVER_JAR names one"
        part.replace(path)
        return path, ""


def flink_home() -> Path:
    """Return an unpacked Flink 1.20: FRAMEBANK_FLINK_HOME, or made from PyPI's distribution."""
    if found := given("FRAMEBANK_FLINK_HOME"):
        return found
    from tests.servers import flink_cluster

    target = folder() / "flink"
    with alone("flink"):
        return flink_cluster.build_home(target)


def _build_all() -> None:
    """Make, or find, all of the above in the order in which the tests ask for them."""
    wanted = [fake_gcs_server]
    wanted += [terraform_provider_google] if shutil.which("terraform") else []
    wanted += [prism, *((job_server_jar, flink_home) if shutil.which("java") else ()), tfio]
    for make in wanted:
        # Whoever needs it tries again, and says what is wrong.
        with contextlib.suppress(pytest.skip.Exception, Exception):
            make()


def start_building() -> subprocess.Popen[bytes]:
    """Start to build everything in the background, behind all that a test does; who needs a thing
    waits for it (`alone`). It has a process group of its own, to be killed when the tests end."""
    words = ["nice", "-n", "19", sys.executable, "-m", __name__]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    given = {"stderr": subprocess.DEVNULL, "cwd": ROOT, "start_new_session": True}
    return subprocess.Popen(words, **quiet, **given)


if __name__ == "__main__":
    _build_all()
