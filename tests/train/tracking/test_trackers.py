"""What trackers are told, in order, and that none of them can hurt the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.train.tracking import trackers as module
from framebank.train.tracking.facts import figures, lineage, text
from framebank.train.tracking.trackers import FAILED, FINISHED, STOPPED, TRACKED, Trackers


class Noted:
    """A tracker that notes what it is told, and fails where `fails` says so."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails = lambda what: False

    def _note(self, *what: Any) -> None:
        if self.fails(what[0]):
            raise ConnectionError(f"no {what[0]}\nat all")
        self.told.append(what)

    def check(self) -> None: ...

    def begin(self, name: str, kind: str, options: Mapping[str, Any], known: str | None) -> str:
        self._note("begin", name, kind, dict(options), known)
        return "run-1"

    def epoch(self, row: Mapping[str, Any]) -> None:
        self._note("epoch", row["epoch"])

    def tell(self, told: Mapping[str, float], facts: Mapping[str, str]) -> None:
        self._note("tell", dict(told), dict(facts))

    def files(self, paths: Sequence[Path], folder: str) -> None:
        self._note("files", [path.name for path in paths], folder)

    def model(self, folder: Path) -> None:
        self._note("model", folder.name)

    def end(self, state: str) -> None:
        self._note("end", state)

    def place(self) -> str:
        return "here"


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    its = Noted()
    monkeypatch.setattr(module, "make_tracker", lambda name: its)
    return its


def finished(folder: Path) -> Path:
    """Write what `framebank train` leaves of a model, as far as trackers read it."""
    folder.mkdir()
    (folder / "metrics.json").write_text('{"accuracy": 0.5, "interval": [0.25, 0.75], "n": [1]}')
    (folder / "lineage.json").write_text('{"cache": "c", "runs": ["r1", "r2"], "spec": {}}')
    rows = [{"model": "lstm", "epoch": epoch, "loss": 1.0} for epoch in (1, 2)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_run_is_told_in_order_and_noted_in_its_folder(noted: Noted, tmp_path: Path) -> None:
    said: list[str] = []
    folder = finished(tmp_path / "model")
    with Trackers(["mlflow"], kind="train", options={"a": 1}, say=said.append) as its:
        its.begin("model", {"b": 2}, folder=folder)
        its.epoch({"model": "lstm", "epoch": 1})
        its.model(folder)
    assert [what[0] for what in noted.told] == ["begin", "epoch", "tell", "model", "end"]
    assert noted.told[0] == ("begin", "model", "train", {"a": 1, "b": 2}, None)
    numbers = {"accuracy": 0.5, "interval/low": 0.25, "interval/high": 0.75}
    assert noted.told[2] == ("tell", numbers, {"cache": "c", "runs": "r1, r2"})
    assert noted.told[-1] == ("end", FINISHED) and said == ["mlflow has this run: here"]
    assert json.loads((folder / TRACKED).read_text()) == {"mlflow": {"run": "run-1", "whole": True}}
    again = Trackers(["mlflow"], say=said.append)
    again.whole_model(folder, {})
    again.end()
    assert len(noted.told) == 5 and said[-1] == "mlflow knows this model: run-1"


@pytest.mark.parametrize(
    ("error", "state"), [(ValueError("x"), FAILED), (KeyboardInterrupt(), STOPPED)]
)
def test_a_run_that_does_not_end_well_is_told_so_and_gone_on_with(
    noted: Noted, tmp_path: Path, error: BaseException, state: str
) -> None:
    its = Trackers(["wandb"])
    with pytest.raises(type(error)), its:
        its.begin("model", {}, folder=tmp_path)
        raise error
    assert noted.told[-1] == ("end", state)
    with Trackers(["wandb"]) as its:
        its.begin("model", {}, folder=tmp_path)
    assert noted.told[-2] == ("begin", "model", "", {}, "run-1")


def test_a_tracker_that_takes_nothing_is_told_of_and_gets_all_of_it_later(
    noted: Noted, tmp_path: Path
) -> None:
    said: list[str] = []
    folder = finished(tmp_path / "model")
    noted.fails = lambda what: True
    with Trackers(["mlflow"], say=said.append) as its:
        its.begin("model", {}, folder=folder)
        for epoch in range(9):
            its.epoch({"model": "lstm", "epoch": epoch})
        its.model(folder)
    assert len(said) == 2 and "the run goes on" in said[0]
    assert "does not have all of this run (12 parts of it: ConnectionError: no" in said[1]
    noted.fails = lambda what: what == "files"  # one thing that is never taken keeps no other back
    with Trackers(["mlflow"], say=said.append) as its:
        its.whole_model(folder, {})
        its.files([folder], folder="x")
    whats = ["begin", "epoch", "epoch", "tell", "model", "end"]
    assert [what[0] for what in noted.told] == whats and "(1 parts of it" in said[-1]
    assert not json.loads((folder / TRACKED).read_text())["mlflow"]["whole"]


def test_without_trackers_nothing_is_read_or_written(tmp_path: Path) -> None:
    with Trackers() as its:
        its.begin("model", {}, folder=tmp_path)
        its.epoch({"model": "lstm", "epoch": 1})
        its.model(tmp_path)
        its.whole_model(tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", module.NAMES)
def test_a_library_that_is_not_there_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"--track {name} needs .*\n.*framebank\[{name}\]"):
        Trackers([name])


def test_facts_are_short_and_figures_are_numbers() -> None:
    runs = [f"r{n}" for n in range(30)]
    assert text(runs).endswith("r29 and 6 more") and text(True) == "true"
    told = lineage({"spec": {"backbone": "b", "weights": None}, "versions": {"keras": "3"}})
    assert told == {"backbone": "b", "versions.keras": "3"}
    fields = {"by_type": {"what?<b>": {"accuracy": 1}}, "nan": float("nan"), "yes": True}
    assert figures(fields) == {"by_type/what__b_/accuracy": 1.0}
