"""What cannot work is refused before anything starts: one message, in seconds, nothing written."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.pipelines.jobs import environments
from framebank.pipelines.runners import gate
from tests.attackers.small_disks import run_with
from tests.made import forked
from tests.servers.fake_flink import EMPTY_JAR, fake_flink, serving

LIMIT_S = 10.0
FLINK = ("--runner", "FlinkRunner")
ENGINE = argparse.Namespace(wait=False, accelerator=None, shared_disk=False)
UBER = ("--flink_submit_uber_jar", "--flink_job_server_jar={jar}")  # needs no Java here
EXTERNAL = ("--environment_type=EXTERNAL", "--environment_config=localhost:50000")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield addresses: a Flink with its task managers elsewhere, one of no Flink, and a jar."""
    jar = tmp_path_factory.mktemp("jar") / "server.jar"
    jar.write_bytes(EMPTY_JAR)
    with fake_flink(hosts=("192.0.2.1",)) as cluster, serving(lambda method, path: None) as port:
        yield {"flink": cluster.address, "other": f"localhost:{port}", "jar": str(jar)}


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """Return an environment with no Java, no Prism, no job server and no credentials."""
    left_out = ("JAVA_HOME", "STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith("FRAMEBANK_")
    }
    return kept | {"PATH": str(tmp_path), "HOME": str(tmp_path), "NO_GCE_CHECK": "true"}


def refused(words: list[str], environment: dict[str, str]) -> str:
    """Run `framebank` with these words, and return the one message that it refuses them with."""
    forked.ready()
    start = time.monotonic()
    done = forked.run("-m", "framebank", *words, env=environment)
    took_s = time.monotonic() - start
    assert done.returncode == 2, done.stderr
    assert took_s < LIMIT_S
    lines = done.stderr.splitlines()
    assert lines[0].startswith("framebank: "), done.stderr
    assert all(line.startswith(("  got:", "  expected:", "  to do:")) for line in lines[1:])
    assert "  to do:" in done.stderr and done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*FLINK, "--flink_master=localhost:1", *EXTERNAL), "no Flink cluster answers"),
        ((*FLINK, "--flink_master={other}", *EXTERNAL), "is no Flink cluster"),
        ((*FLINK, "--flink_master={flink}", *UBER, *EXTERNAL), "INPUT is on this machine"),
        (FLINK, "needs Java"),
        (("--runner", "PortableRunner", "--job_endpoint=localhost:1"), "no job server answers"),
    ],
)
def test_a_submission_that_cannot_work(
    clips: Path,
    tmp_path: Path,
    servers: dict[str, str],
    bare: dict[str, str],
    words: tuple[str, ...],
    told: str,
) -> None:
    cache = tmp_path / "cache"
    own = ["extract", str(clips), "--cache", str(cache), "--weights", "random:0"]
    assert told in refused([*own, *(word.format(**servers) for word in words)], bare)
    assert not cache.exists()


def test_a_missing_prism_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="go install"):
        prepare("--runner", "PrismRunner", cache=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--streaming",), "without an end"),
        (("--direct_num_workers=-3",), "out of range"),
        (("--s3_endpoint_url", "http://localhost"), "AWS_ENDPOINT_URL"),
    ],
)
def test_an_option_of_beam_that_no_job_of_ours_has(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        prepare(*words, cache=str(tmp_path / "cache"))


def test_a_missing_job_server_is_told(
    clips: Path, tmp_path: Path, servers: dict[str, str], bare: dict[str, str]
) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\necho 'openjdk version \"17.0.15\"' >&2\n")
    (tmp_path / "java").chmod(0o755)
    words = ["extract", str(clips), "--cache", str(tmp_path / "cache"), *FLINK]
    jar = f"--flink_job_server_jar=http://{servers['other']}/job-server.jar"
    assert "FRAMEBANK_FLINK_JOB_SERVER_JAR" in refused([*words, jar], bare)


def test_a_bucket_without_credentials_or_right_or_existence(
    clips: Path, tmp_path: Path, bare: dict[str, str]
) -> None:
    words = ["extract", str(clips), "--cache", "gs://somebodys/cache", "--weights", "random:0"]
    assert "no credentials" in refused(words, bare)
    for status, told in ((403, "grant this account"), (404, "no such bucket")):
        with serving(lambda method, path, status=status: status) as port:
            emulated = bare | {"STORAGE_EMULATOR_HOST": f"http://localhost:{port}"}
            assert told in refused(words, emulated)
    silent = bare | {"STORAGE_EMULATOR_HOST": "http://localhost:1"}
    assert "somebodys" in refused(words, silent)


def test_score_passes_the_same_gate(
    tmp_path: Path, servers: dict[str, str], bare: dict[str, str]
) -> None:
    places = {name: str(tmp_path / name) for name in ("model", "cache", "questions", "out")}
    words = ["score", *(word for name, path in places.items() for word in (f"--{name}", path))]
    engine = (*FLINK, "--flink_master={flink}", *UBER, *EXTERNAL)
    words += [word.format(**servers) for word in engine]
    assert "--model is on this machine" in refused(words, bare)
    assert list(tmp_path.iterdir()) == []


def prepare(*words: str, **more: Any) -> gate.Submission:
    given = {name: more.pop(name) for name in vars(ENGINE) if name in more}
    fields: dict[str, Any] = {"places": {}, "cache": "cache"}
    return gate.prepare(argparse.Namespace(**vars(ENGINE) | given), words, **(fields | more))


@pytest.mark.parametrize("name", ["DirectRunner", "direct", "FnApiRunner"])
def test_the_local_runner_is_always_the_same(name: str) -> None:
    for submission in (prepare(), prepare("--runner", name)):
        assert submission.runner.endswith("fn_api_runner.FnApiRunner")
        assert submission.in_process and submission.waits and not submission.workers_elsewhere


def test_runners_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="Unexpected pipeline runner: nonsense"):
        prepare("--runner", "nonsense")
    with pytest.raises(UsageError, match="address of a job server"):
        prepare("--runner=PortableRunner")
    with pytest.raises(UsageError, match="--accelerator is for Dataflow"):
        prepare(accelerator="nvidia-tesla-t4")


def test_prism_is_found_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "prism"
    program.write_text("no program")
    words = ("--runner=PrismRunner", f"--prism_location={program}")
    with pytest.raises(UsageError, match="not executable"):
        prepare(*words)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(UsageError, match="is not Prism"):
        prepare(*words)
    program.write_text("#!/bin/sh\necho ' -job_port int' >&2\n")
    submission = prepare(*words)
    assert submission.in_process and not submission.workers_elsewhere
    assert prepare("--runner=prism").in_process  # on PATH
    with pytest.raises(UsageError, match="no worker pool answers"):
        prepare(*words, "--environment_type=EXTERNAL", "--environment_config=localhost:1")
    docker = ("--environment_type=DOCKER", "--environment_config=registry/framebank")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(environments, "_DOCKER", str(tmp_path / "docker.sock"))
    with pytest.raises(UsageError, match="not on this machine"):
        prepare(*words, *docker)
    monkeypatch.setenv("DOCKER_HOST", "tcp://localhost:1")
    with pytest.raises(UsageError, match=r"--cache is on this machine") as told:
        prepare(*words, *docker, places={"--cache": ["here"]})
    assert "--shared-disk" in str(told.value)
    with pytest.raises(UsageError, match=r"no program /no/boot"):
        boot = '--environment_config={"command": "/no/boot"}'
        prepare(*words, "--environment_type=PROCESS", boot)
    assert prepare(*words, *docker, places={"--cache": ["here"]}, shared_disk=True)


def test_a_manifest_may_be_here_and_its_videos_not() -> None:
    gate.check_remote("INPUT", ["list.csv", "gs://bucket/clips"])
    with pytest.raises(UsageError, match=r"a/b\.mp4"):
        gate.check_remote("a video of a manifest", ["gs://bucket/a.mp4", "a/b.mp4"])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    gate.check_writable(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
    small = tmp_path / "small"
    small.mkdir()
    module = "framebank.pipelines.runners.gate"
    code = f"import sys; from {module} import check_writable; check_writable(sys.argv[1])"
    said = run_with({small: "ro"}, "-c", code, small / "cache").stderr
    assert (
        f"cannot write into {small}/cache\n  got:      the file system is read-only: {small}"
        in said
    )
    assert "rights" not in said and "permission" not in said
