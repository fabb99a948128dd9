"""What calls `framebank retrain` on a schedule: Kubernetes, Airflow and cron, each as its own
program reads it. Airflow runs its DAG in an environment of its own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import venv
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from framebank import cli
from framebank.train.retrain.config import read_config
from tests import ROOT
from tests.made import built

INFRA = ROOT / "infra"
AIRFLOW = "3.3.2"
_INSTALL_LIMIT_S = 400


def parse(words: list[str]) -> argparse.Namespace:
    """Parse a `framebank` command line as the command does; fails on a mistake."""
    module = importlib.import_module(cli.COMMANDS[words[1]].module)
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    module.add_arguments(parser)
    return parser.parse_args(words[2:])


@pytest.mark.parametrize("name", ["airflow/retrain.py", "cron/retrain.crontab"])
def test_the_head_says_the_commands_that_use_the_file(name: str) -> None:
    lines = (INFRA / name).read_text().splitlines()
    head = lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]
    assert any(re.match(r"#   [a-z(]", line) for line in head)
    for line in head:
        if line.startswith("#   framebank "):
            parse(shlex.split(line[4:]))
    assert max(map(len, lines)) <= 120


def test_the_cron_job_calls_the_command_with_a_config_that_is_one(tmp_path: Path) -> None:
    text = (INFRA / "kubernetes/jobs/retrain.yaml").read_text()
    settings, job = yaml.safe_load_all(text)
    for document in (settings, job):
        kubernetes_validate.validate(document, "1.32", strict=True)
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    asked = parse([*container["command"], *container["args"]])
    folder, _, name = asked.config.rpartition("/")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts[folder]]["configMap"]["name"] == settings["metadata"]["name"]
    path = tmp_path / name
    path.write_text(settings["data"][name])
    assert read_config(str(path)).registry == "gs://BUCKET/registry"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_crontab_has_one_line_that_calls_the_command() -> None:
    lines = (INFRA / "cron/retrain.crontab").read_text().splitlines()
    (line,) = [line for line in lines if line and not line.startswith("#")]
    *times, command = line.split(maxsplit=5)
    assert all(re.fullmatch(r"\*|\d+", part) for part in times) and "%" not in command
    words = shlex.split(command.split(" 2>&1", 1)[0])
    assert Path(words[0]).is_absolute() and parse(["framebank", *words[1:]])


def airflow() -> Path:
    """Return the command of an Airflow that is installed apart from everything else."""
    folder = built.folder() / f"airflow-{AIRFLOW}"
    with built.alone("airflow"):
        if not (folder / "installed").exists():
            venv.create(folder, with_pip=True, clear=True)
            words = [*built.installing(folder / "bin/python"), f"apache-airflow=={AIRFLOW}"]
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, timeout=_INSTALL_LIMIT_S
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"Airflow is not installed within {_INSTALL_LIMIT_S} s")
            if done.returncode != 0:
                pytest.skip(f"Airflow cannot be installed here: {done.stderr.strip()[-300:]}")
            (folder / "installed").touch()
    return folder / "bin/airflow"


def test_airflow_runs_the_dag(tmp_path: Path) -> None:
    """The task finds a `framebank` that leaves word of how it was called."""
    program = airflow()
    (tmp_path / "bin").mkdir()
    called = tmp_path / "called"
    fake = tmp_path / "bin/framebank"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" framebank "$@" > {called}\n')
    fake.chmod(0o755)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{program.parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(INFRA / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_VAR_FRAMEBANK_RETRAIN_CONFIG": "gs://a b/retrain.toml",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *words], env=environment, capture_output=True, text=True, timeout=200
        )

    assert run("db", "migrate").returncode == 0
    done = run("dags", "test", "framebank_retrain")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = parse(called.read_text().splitlines())
    assert asked.config == "gs://a b/retrain.toml"
