"""A run as MLflow has it: parameters, metrics by epoch, tags, and the model as its loader takes it.

Where to is MLflow's own affair: MLFLOW_TRACKING_URI (without it a database in the folder that one
is in), MLFLOW_EXPERIMENT_NAME (`framebank` without it). Nothing is sent to anybody else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framebank.train.tracking.facts import flat, plain, text
from framebank.train.tracking.mlflow_model import write_model
from framebank.train.tracking.mlflow_settings import MODEL, PREFIX, experiment, quiet_mlflow
from framebank.train.tracking.trackers import FAILED, FINISHED, Row, Tracker

_STATES = {FINISHED: "FINISHED", FAILED: "FAILED"}  # else KILLED
_MOST_PARAMS, _MOST_METRICS, _MOST_TAGS = 100, 1000, 100  # that MLflow takes at once
_PARAM, _TAG = 500, 5000  # characters of a value that every version of MLflow takes


class MlflowRun:
    """One run, by MLflow's client: whatever run is active in this process is left alone."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run: str | None = None
        self._has: frozenset[str] = frozenset()  # parameters, which are told once

    def check(self) -> None:
        quiet_mlflow()
        import mlflow  # noqa: F401 - takes seconds, and is better not done while steps are made

    def begin(self, name: str, kind: str, options: Row, known_as: str | None) -> str:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = self._client or MlflowClient()
        if known_as is not None and self._run is None:
            try:
                found = self._client.get_run(known_as)
                self._client.update_run(known_as, status="RUNNING")
                self._run, self._has = known_as, frozenset(found.data.params)
            except MlflowException as err:
                if err.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        if self._run is None:
            # What is asked for again after a failure is not made twice.
            made = self._client.create_run(experiment(self._client), run_name=name)
            self._run = str(made.info.run_id)
        self._params(options)
        self._client.set_tag(self._run, f"{PREFIX}command", kind)
        return self._run

    def _params(self, options: Row) -> None:
        from mlflow.entities import Param

        told = {plain(name): text(value)[:_PARAM] for name, value in flat(options, joint=".")}
        params = [Param(name, its) for name, its in told.items() if name not in self._has]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run, params=params[start : start + _MOST_PARAMS])

    def epoch(self, row: Row) -> None:
        label = row["model"]
        named = {f"{label}/{name}": value for name, value in row.items()}
        self._metrics(named, step=int(row["epoch"]))

    def _metrics(self, figures: Row, *, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [
            Metric(plain(name), float(value), now, step)
            for name, value in figures.items()
            if isinstance(value, int | float) and not name.endswith("/epoch")
        ]
        for start in range(0, len(found), _MOST_METRICS):
            self._client.log_batch(self._begun(), metrics=found[start : start + _MOST_METRICS])

    def tell(self, figures: Mapping[str, float], facts: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._metrics(figures, step=0)
        tags = [RunTag(PREFIX + plain(name), value[:_TAG]) for name, value in facts.items()]
        for start in range(0, len(tags), _MOST_TAGS):
            self._client.log_batch(self._begun(), tags=tags[start : start + _MOST_TAGS])

    def files(self, paths: Sequence[Path], folder: str) -> None:
        for path in paths:
            self._client.log_artifact(self._begun(), str(path), folder)

    def model(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="framebank-") as temporary:
            target = Path(temporary, MODEL)
            write_model(folder, target)
            self._client.log_artifacts(self._begun(), str(target), MODEL)

    def end(self, state: str) -> None:
        self._client.set_terminated(self._begun(), _STATES.get(state, "KILLED"))

    def place(self) -> str:
        import mlflow

        return f"run {self._run} of {mlflow.get_tracking_uri()}"

    def _begun(self) -> str:
        if self._run is None:
            raise ConnectionError("no run could be begun")
        return self._run


def make() -> Tracker:
    return MlflowRun()
