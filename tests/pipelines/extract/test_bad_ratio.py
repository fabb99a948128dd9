"""Which quarantined videos count: those that no run has accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.cache.sidecar import CatalogRow
from framebank.features.errors import JobError
from framebank.pipelines.extract.bad_ratio import check, unaccepted_runs


def summary(cache: Path, run_id: str, bad: int, inputs: int, **more: Any) -> None:
    fields = {"run_id": run_id, "quarantined": bad, "already_quarantined": 0, "inputs": inputs}
    (cache / "runs").mkdir(exist_ok=True)
    (cache / "runs" / f"{run_id}.json").write_text(json.dumps(fields | more))


def rows(**counts: int) -> list[CatalogRow]:
    return [
        CatalogRow(f"{run}{n}", "/x", 1, "1", "k", "quarantined", 1, run, "t", "s")
        for run, count in counts.items()
        for n in range(count)
    ]


def left(cache: Path, *, limit: float = 0.2, of: dict[str, int], **counts: int) -> Any:
    return unaccepted_runs(str(cache), of, limit=limit, rows=rows(**(counts or of)))


def test_what_a_run_accepted_counts_no_more(tmp_path: Path) -> None:
    assert left(tmp_path, of={}) == (0, [])
    summary(tmp_path, "good", 10, 100)
    summary(tmp_path, "bad", 30, 100)
    assert left(tmp_path, of={"good": 10}) == (0, [])  # a folder that holds only the bad ones
    assert left(tmp_path, of={"good": 3}) == (0, [])
    assert left(tmp_path, of={"bad": 30}) == (30, ["bad"])  # the same command again fails again
    assert left(tmp_path, of={"bad": 30}, limit=0.3) == (0, [])
    assert left(tmp_path, of={"good": 3, "bad": 2}, good=10, bad=30) == (2, [])


def test_a_run_with_a_limit_of_its_own_accepted_by_that(tmp_path: Path) -> None:
    summary(tmp_path, "lax", 30, 100, allowed_bad_ratio=0.5, unaccepted=5)
    summary(tmp_path, "worse", 30, 100, allowed_bad_ratio=0.3, unaccepted=5)
    assert left(tmp_path, of={"lax": 30}) == (0, [])
    assert left(tmp_path, of={"worse": 30}) == (30, ["worse"])


def test_a_run_that_never_ended_is_accepted_with_the_one_that_went_on(tmp_path: Path) -> None:
    assert left(tmp_path, of={"killed": 4}) == (4, ["killed"])
    summary(tmp_path, "next", 1, 100, unaccepted=4, judged_runs=["killed"])
    assert left(tmp_path, of={"killed": 4, "next": 1}) == (0, [])
    summary(tmp_path, "next", 1, 10, unaccepted=4, judged_runs=["killed"])  # which failed too
    assert left(tmp_path, of={"killed": 4, "next": 1}) == (5, ["killed", "next"])


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10_000, '{"run_id": "r", "inputs": null}'])
def test_a_summary_that_nobody_can_read_accepts_nothing(tmp_path: Path, text: str) -> None:
    summary(tmp_path, "r", 1, 100)
    (tmp_path / "runs" / "r.json").write_text(text)
    assert left(tmp_path, of={"r": 1}) == (1, ["r"])


def test_the_limit_itself_is_within_it() -> None:
    check(20, 100, limit=0.2, cache="c")
    check(0, 0, limit=0.0, cache="c")
    with pytest.raises(JobError, match=r"21 of 100 \(21%\)"):
        check(21, 100, limit=0.2, cache="c")
