"""The first step of a job, unpickled where there is no Framebank, or another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from framebank.features.errors import UsageError
from framebank.pipelines.jobs import beam_options
from framebank.pipelines.jobs.worker_faults import worker_check
from tests import ROOT

_WORKER = """
import sys
from apache_beam.internal import pickler
check = pickler.loads(sys.stdin.buffer.read())
try:
    print("handed on:", check("plan-0"))
except RuntimeError as error:
    print(error)
"""


def on_a_worker(folder: Path) -> str:
    """Return what a worker says whose packages are those in `folder`."""
    from apache_beam.internal import pickler

    done = subprocess.run(
        [sys.executable, "-c", _WORKER],
        cwd=folder,
        input=pickler.dumps(worker_check()),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def test_the_same_framebank_hands_on() -> None:
    root = ROOT
    assert on_a_worker(root).strip() == "handed on: plan-0"


@pytest.mark.parametrize(
    ("version", "got"), [(None, "No module named 'framebank'"), ("0.0.7", "framebank 0.0.7")]
)
def test_no_framebank_and_another_are_told(tmp_path: Path, version: str | None, got: str) -> None:
    bare = [sys.executable, "-c", "import framebank"]
    if subprocess.run(bare, cwd=tmp_path, capture_output=True).returncode == 0 and not version:
        pytest.skip("Framebank is installed here, so a worker cannot lack it")
    if version:
        for package in ("framebank", "framebank/pipelines"):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").write_text(f"__version__ = '{version}'\n")
    told = beam_options.find_marked(on_a_worker(tmp_path))
    assert isinstance(told, UsageError)
    assert got in str(told.got) and "framebank " in str(told.expected)
