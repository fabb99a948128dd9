"""Imports Beam for a job whose workers are threads of this process, without what such a job has no
use for (`infra/decisions/0020-start.md`)."""

from __future__ import annotations

import contextlib
import importlib
import sys

from framebank.features.tensorflow_import import absent, is_own_process

# What Beam imports where it is installed, and does without where it is not: data frames, notebooks,
# the services of Google, and file systems of its own (Framebank's are `features.stores`).
_OPTIONAL = (
    "IPython",
    "pandas",
    "google.cloud.dataflow",
    "apache_beam.io.aws.s3filesystem",
    "apache_beam.io.azure.blobstoragefilesystem",
    "apache_beam.io.gcp.bigquery",
    "apache_beam.io.gcp.gcsfilesystem",
    "apache_beam.io.gcp.pubsub",
    "apache_beam.io.hadoopfilesystem",
)


def import_beam(*, in_process: bool) -> None:
    """Import Beam, where all that comes is a job `in_process` of a command in a third of the time;
    all of it where one of Beam's versions cannot be had so."""
    if in_process and is_own_process() and "apache_beam" not in sys.modules:
        with contextlib.suppress(Exception), absent(*_OPTIONAL):
            importlib.import_module("apache_beam")
            return
        for name in [name for name in sys.modules if name.partition(".")[0] == "apache_beam"]:
            del sys.modules[name]
    importlib.import_module("apache_beam")
