"""Runs a command where a folder is a small disk or one that cannot be written: in a mount namespace
of its own, so that nothing of it is seen outside."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@functools.cache
def _can_mount() -> bool:
    made = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return made.returncode == 0


def run_with(
    mounts: dict[Path, str], *words: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, and a tmpfs of these options (size=64k, ro) at each path."""
    if sys.platform != "linux" or not _can_mount():
        pytest.skip("small and read-only disks need the right to mount")
    script = "".join(
        f"mount -t tmpfs -o {options} none {path} && " for path, options in mounts.items()
    )
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", script + '"$@"', "bash", sys.executable, *map(str, words)],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
