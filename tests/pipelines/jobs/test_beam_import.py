"""Beam without what a job in this process has no use for, and whole where that cannot be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ROOT

JOB = """
import sys
from framebank.features.tensorflow_import import own_process
from framebank.pipelines.jobs import beam_import

{change}
own_process()
beam_import.import_beam(in_process={in_process})
import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

with beam.Pipeline(runner="BundleBasedDirectRunner") as pipeline:
    made = pipeline | beam.Create([("a", 1), ("a", 2)]) | beam.GroupByKey()
    made | beam.Map(lambda one: print(sorted(one[1])))
found = ["apache_beam.io.gcp.gcsfilesystem" in sys.modules, "pandas" in sys.modules]
print(found, None in sys.modules.values())
import pandas
"""


@pytest.mark.parametrize(
    ("in_process", "change", "whole"),
    [
        (True, "", False),
        (False, "", True),
        (True, "beam_import._OPTIONAL = ('apache_beam.coders',)", True),  # no version has it so
    ],
)
def test_beam_runs_a_job_however_it_was_imported(
    in_process: bool, change: str, whole: bool
) -> None:
    code = JOB.format(change=change, in_process=in_process)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[1, 2]", f"[{whole}, {whole}] False"]
