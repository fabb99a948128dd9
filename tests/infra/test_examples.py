"""infra/examples: the tour of the Python API runs, and calls all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import framebank as fb
from tests import ROOT

TOUR = ROOT / "infra" / "examples" / "tour.py"


def test_the_tour_calls_every_function() -> None:
    text = TOUR.read_text()
    functions = [name for name in fb.__all__ if name[0].islower() and name != "main"]
    assert [name for name in functions if f"fb.{name}(" not in text] == []


def test_the_tour_runs(tmp_path: Path) -> None:
    pytest.importorskip("apache_beam")
    done = subprocess.run(
        [sys.executable, str(TOUR), str(tmp_path / "tour")],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for said in (
        "40 clips to extract\n40 done, 0 quarantined\n<Cache ",
        "faults: []\nnpz 1 files\nparquet 1 files\nwebdataset 1 files\ntfds 1 files\nyt8m 1 files",
        "{'train': 60, 'val': 20, 'test': 20}",
        "100 questions answered",
        "promoted and then nothing new\n",
        "\ntrain: got an unexpected keyword argument 'epoch'",
    ):
        assert said in done.stdout
    assert (tmp_path / "tour" / "report" / "report.html").exists()
