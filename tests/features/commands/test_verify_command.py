"""`framebank verify`: its exit status and what it prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from framebank.features import progress
from framebank.features.commands import verify_command
from tests.made.made_cache import make_cache


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verify_command.add_arguments(parser)
    return verify_command.run(parser.parse_args(words), [])


def test_a_sound_cache_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_cache(str(tmp_path))
    assert _run(str(tmp_path)) == 0
    assert "intact, no faults (3 shards, 5 records, 17 frames" in capsys.readouterr().out
    assert _run(str(tmp_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sound"] is True and found["faults"] == []


def test_a_fault_ends_with_1_and_has_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    make_cache(str(tmp_path))
    shard = tmp_path / "shards/r1-1.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-9])
    (tmp_path / "shards/x.tfrecord").write_bytes(b"")
    assert _run(str(tmp_path)) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("fault: ") and "'d.mp4'" in lines[0]
    assert any(line.startswith("remark: ") and "x.tfrecord" in line for line in lines)
    assert "3 faults" in lines[-1]
    assert "verified 3 of 3 shards" in captured.err
    assert _run(str(tmp_path), "--json") == 1
    assert json.loads(capsys.readouterr().out)["sound"] is False
