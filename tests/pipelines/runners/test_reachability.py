"""Paths that workers cannot see, and places where nothing can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from framebank.features.errors import UsageError
from framebank.pipelines.runners import reachability
from tests.attackers.small_disks import run_with


def test_a_manifest_may_be_here_and_its_videos_not() -> None:
    reachability.check_remote("INPUT", ["list.csv", "gs://bucket/clips"])
    with pytest.raises(UsageError, match=r"a/b\.mp4"):
        reachability.check_remote("a video of a manifest", ["gs://bucket/a.mp4", "a/b.mp4"])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    reachability.check_writable(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []
    small = tmp_path / "small"
    small.mkdir()
    module = "framebank.pipelines.runners.reachability"
    code = f"import sys; from {module} import check_writable; check_writable(sys.argv[1])"
    said = run_with({small: "ro"}, "-c", code, small / "cache").stderr
    assert (
        f"cannot write into {small}/cache\n  got:      the file system is read-only: {small}"
        in said
    )
    assert "rights" not in said and "permission" not in said
