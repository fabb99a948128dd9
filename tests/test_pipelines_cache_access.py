"""What a run says and removes of the runs before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from features import storage
from pipelines.cache_access import remove_leftovers
from tests.bucket_servers import environment, serve


def test_a_run_that_has_not_ended_is_named_and_its_plan_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve("gcp-storage-emulator", tmp_path) as server, environment(**server.environment):
        cache = f"{server.bucket}/cache"
        live, ended = "20260102T030405000000-ab12", "20260101T030405000000-cd34"
        for run_id in (live, ended):
            storage.write_atomic(f"{cache}/runs/{run_id}.plan-00000.jsonl", b"{}\n")
        storage.write_atomic(f"{cache}/runs/{ended}.json", b"{}")
        assert remove_leftovers(cache) == 1
        assert storage.exists(f"{cache}/runs/{live}.plan-00000.jsonl")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert live in said[0] and "2026-01-02 03:04:05 UTC" in said[0]
