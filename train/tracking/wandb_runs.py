"""A run as Weights & Biases has it: config, curves of each model by its epochs, summary, artifacts.

Where to is their own affair: WANDB_MODE=offline keeps it in WANDB_DIR/wandb (`wandb sync` sends it
later), WANDB_PROJECT is `framebank` where it is not set. Nothing is sent to anybody else. A server
that does not answer at the start makes the run an offline one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framebank.features.errors import UsageError
from framebank.train.tracking.facts import model_files, plain
from framebank.train.tracking.trackers import FINISHED, Row, Tracker

_BEGIN_S, _END_S = 30.0, 300.0
_QUIET = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}


class WandbRun:
    """One run, by the library's own process; standard output and the code are left alone."""

    def __init__(self) -> None:
        self._run: Any = None
        self._defined: set[str] = set()
        self._facts: dict[str, str] = {}
        self._place = ""

    def check(self) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import wandb

        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise UsageError(
                "--track wandb: Weights & Biases does not know who you are here",
                got="no WANDB_API_KEY, and nobody is logged in",
                todo="wandb login, or set WANDB_MODE=offline and `wandb sync` later",
            )

    def begin(self, name: str, kind: str, options: Row, known_as: str | None) -> str:
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
            init_timeout=_BEGIN_S, finish_timeout=_END_S,
        )  # fmt: skip
        words: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT") or "framebank",
            "name": name,
            "job_type": kind,
            "config": dict(options),
            "settings": settings,
        }
        if known_as is not None:
            words |= {"id": known_as, "resume": "allow"}
        try:
            self._run = wandb.init(**words)
        except (wandb.errors.CommError, TimeoutError):
            self._run = wandb.init(**words, mode="offline")
        # An offline run has no address.
        kept = f"{self._run.dir.removesuffix('/files')} (wandb sync sends it)"
        self._place = str(self._run.url or kept)
        return str(self._run.id)

    def epoch(self, row: Row) -> None:
        run, label = self._begun(), str(row["model"])
        if label not in self._defined:
            # Models are fitted one after another, and each has epochs of its own.
            run.define_metric(f"{label}/epoch", hidden=True)
            run.define_metric(f"{label}/*", step_metric=f"{label}/epoch")
            self._defined.add(label)
        run.log({f"{label}/{name}": value for name, value in row.items() if name != "model"})

    def tell(self, figures: Mapping[str, float], facts: Mapping[str, str]) -> None:
        run = self._begun()
        for name, value in figures.items():
            run.summary[name] = value
        self._facts |= facts
        run.config.update({"lineage": self._facts}, allow_val_change=True)

    def files(self, paths: Sequence[Path], folder: str) -> None:
        self._artifact(paths, folder, {})

    def model(self, folder: Path) -> None:
        self._artifact(model_files(folder), "model", self._facts)

    def _artifact(self, paths: Sequence[Path], kind: str, facts: Mapping[str, Any]) -> None:
        import wandb

        run = self._begun()
        name = plain(f"{run.name}-{kind}").replace("/", "_").replace(" ", "_")
        made = wandb.Artifact(name, type=kind, metadata=dict(facts))
        for path in paths:
            made.add_file(str(path))
        run.log_artifact(made)

    def end(self, state: str) -> None:
        self._begun().finish(exit_code=0 if state == FINISHED else 1)

    def place(self) -> str:
        return self._place

    def _begun(self) -> Any:
        if self._run is None:
            raise ConnectionError("no run could be begun")
        return self._run


def make() -> Tracker:
    return WandbRun()
