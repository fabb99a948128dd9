"""What is done of the ways, in DIR/ways.json: what each step took, and what it was made from.

A step that was killed has begun more often than it ended. How long it ran is noted as it runs, so
that a kill loses some seconds of it, and what was killed is not taken for what is quick.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framebank.features.errors import FramebankError, UsageError
from framebank.features.stores import json_text, storage

_FILE = "ways.json"
_BEAT_S = 2.0  # between two notes of how long a step has run


@dataclasses.dataclass
class Step:
    """`seconds` of all runs; `key` names what the result was made from."""

    seconds: float = 0.0
    begun: int = 0
    ended: int = 0
    key: str = ""
    result: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def killed(self) -> bool:
        return self.begun > self.ended


class Ledger:
    """The steps of a folder, written whenever one changes."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Make `folder` that of these options, or go on with it; raises UsageError where it is
        that of others, or holds other things."""
        self._path = folder / _FILE
        self._options = json.loads(json.dumps(dict(options)))
        self.steps: dict[str, Step] = {}
        if storage.exists(str(self._path)):
            self._read()
        elif folder.exists() and any(folder.iterdir()):
            raise UsageError(
                "--cache-dir is a folder with other things in it",
                got=folder,
                expected="a new or empty folder, or that of an earlier `framebank ways`",
                todo="name another",
            )
        else:
            self._write()

    def _read(self) -> None:
        try:
            found = json_text.parse_object(storage.read_bytes(str(self._path)))
            before = dict(found["options"])
            self.steps = {name: Step(**its) for name, its in found["steps"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            todo = "name another --cache-dir, or remove this one"
            raise UsageError(f"{self._path} is damaged", got=err, todo=todo) from err
        differing = [name for name in self._options if before.get(name) != self._options[name]]
        if differing:
            raise UsageError(
                f"{self._path.parent} holds ways of other options",
                got=", ".join(f"{name} {before.get(name)}" for name in differing),
                expected=", ".join(f"{name} {self._options[name]}" for name in differing),
                todo="give the same options to go on, or another --cache-dir",
            )

    def step(self, name: str) -> Step:
        return self.steps.setdefault(name, Step())

    @contextmanager
    def running(self, name: str, *, key: str = "") -> Iterator[Step]:
        """Note that a step begins, how long it has run so far, and that it ended."""
        step = self.step(name)
        if step.key != key:
            step.seconds, step.begun, step.ended, step.result = 0.0, 0, 0, {}
        step.key, step.begun = key, step.begun + 1
        self._write()
        before, started, over = step.seconds, time.monotonic(), threading.Event()

        def note() -> None:
            while not over.wait(_BEAT_S):
                step.seconds = before + time.monotonic() - started
                try:
                    self._write()
                except FramebankError:  # a full disk, say: the end of the step will tell
                    return

        notes = threading.Thread(target=note, daemon=True)
        notes.start()
        try:
            yield step
        finally:
            over.set()
            notes.join()
            step.seconds = before + time.monotonic() - started
            step.ended += 1
            self._write()

    def _write(self) -> None:
        steps = {name: dataclasses.asdict(step) for name, step in self.steps.items()}
        fields = {"options": self._options, "steps": steps}
        storage.write_atomic(str(self._path), json.dumps(fields, indent=1).encode() + b"\n")
