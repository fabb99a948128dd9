"""features/cores.py: a container's quota bounds the cores, the machine's count does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from framebank.features import cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ],
)
def test_the_quota_of_a_container(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores._container_quota(tmp_path) == expected


def test_never_more_than_the_machine_nor_less_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    mine = len(os.sched_getaffinity(0))
    for quota, expected in (("1000", 1), ("99900000", mine), ("max", mine)):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
        assert cores.usable_cores() == expected
