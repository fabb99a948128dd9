"""Paths that workers cannot see, and places where nothing can be written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from features.errors import FramebankError, UsageError
from pipelines import places


def test_a_manifest_may_be_here_and_its_videos_not() -> None:
    places.check_remote("INPUT", ["list.csv", "gs://bucket/clips"])
    with pytest.raises(UsageError, match=r"a/b\.mp4"):
        places.check_remote("a video of a manifest", ["gs://bucket/a.mp4", "a/b.mp4"])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    places.check_writable(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("making a read-only disk needs the right to mount")
    try:
        with pytest.raises(FramebankError, match="cannot write into"):
            places.check_writable(str(small / "cache"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
