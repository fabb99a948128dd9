"""Tells MLflow and Weights & Biases of a run while it goes on, and never stands in its way.

Each tracker has a thread of its own that delivers in order: a server that does not answer holds up
no step. What it does not take is kept and tried again later and once more at the end; then the run
says what is lacking. The model is whole by then, and the same command given again tells the rest:
TRACKED, in the model's folder, says under which name each tracker knows it, and whether it has all.

Only the process that makes a `Trackers` with names tracks: of several workers the chief's command.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import importlib
import json
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from framebank.features.errors import FramebankError, needing
from framebank.features.stop_signals import TrainingStopped
from framebank.features.stores import json_text, storage
from framebank.features.terminal import printable

TRACKED = "tracking.json"
FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"
_MODULES = {"mlflow": "mlflow_runs", "wandb": "wandb_runs"}
NAMES = tuple(_MODULES)
_UNSAID = (
    "track",
    "json",
    "typed",
    "command",
    "verbosity",
    "init",
    "is_over",
)  # options of no interest
_AGAIN_S = 20.0  # after which a tracker that failed is tried again
_TIMES = 3  # that it may fail in a row at the end
_END_S, _STOP_S = 600.0, 20.0  # that all of them may take at the end, and where it is stopped
_LATER = {  # what becomes of what a tracker does not have
    "train": "Given again, the same command tells it the rest",
    "evaluate": "Given again, the same command tells it all",
    "finetune": "Given again, the same command tells it all but the epochs",
    "retrain": "The registry has it all (framebank models publish)",
}

Say = Callable[[str], None]
Row = Mapping[str, Any]  # of an epoch: "model", "epoch", and numbers


class Tracker(Protocol):
    """One tracker's side of a run. All but `check` may raise whatever its library does."""

    def check(self) -> None:
        """Raise UsageError where it cannot work at all."""

    def begin(self, name: str, kind: str, options: Row, known_as: str | None) -> str:
        """Begin a run, or go on with the one that is `known_as` so; return what it is known as."""

    def epoch(self, row: Row) -> None: ...

    def tell(self, figures: Mapping[str, float], facts: Mapping[str, str]) -> None: ...

    def files(self, paths: Sequence[Path], folder: str) -> None: ...

    def model(self, folder: Path) -> None: ...

    def end(self, state: str) -> None: ...

    def place(self) -> str:
        """Return where the run can be looked at."""


class Trackers:
    """All that are told of one run, none by default; whatever they do, it goes on.

    `names` are of NAMES, `title` what the run is called in place of its folder. Raises UsageError
    where one's library is not installed.
    """

    def __init__(
        self, names: Sequence[str] = (), *, kind: str = "", options: Row | None = None,
        say: Say = lambda text: None, title: str = "",
    ) -> None:  # fmt: skip
        self._kind, self._options, self._say = kind, dict(options or {}), say
        self._title = title
        self._couriers = {
            name: _Courier(name, make_tracker(name), say) for name in dict.fromkeys(names)
        }
        self._state: Path | None = None
        self._known: dict[str, Any] = {}
        self._began = False

    def begin(self, name: str, making: Row, *, folder: Path | None = None) -> None:
        """Begin a run that is made from `making`, or go on with the one that `folder` tells of."""
        if self._began or not self._couriers:
            return
        self._began, self._state = True, folder and folder / TRACKED
        self._known = self._read() if self._known == {} else self._known
        options = {**self._options, **making}
        for one, courier in self._couriers.items():
            courier.start()
            begin = functools.partial(self._begin, one, courier.tracker, self._title or name)
            courier.send(functools.partial(begin, options))

    def _begin(self, one: str, tracker: Tracker, name: str, options: Row) -> None:
        known = (self._known.get(one) or {}).get("run")
        self._note(one, run=tracker.begin(name, self._kind, options, known), whole=False)

    def epoch(self, row: Row) -> None:
        """Tell of an epoch: its "model", its number "epoch", and what was measured."""
        self._send(lambda tracker: tracker.epoch(row))

    def tell(self, figures: Row | None = None, facts: Row | None = None) -> None:
        """Tell figures, as metrics.json has them, and facts of whatever kind."""
        from framebank.train.tracking.facts import figures as numbers
        from framebank.train.tracking.facts import flat, text

        told = {name: text(value) for name, value in flat(facts or {}, joint=".")}
        self._send(lambda tracker: tracker.tell(numbers(figures or {}), told))

    def files(self, paths: Sequence[Path], *, folder: str) -> None:
        """Hand files over, into a `folder` of the run's."""
        self._send(lambda tracker: tracker.files(paths, folder))

    def model(self, folder: Path) -> None:
        """Tell of a finished model all that its folder says, and hand it over."""
        self._send(lambda tracker: _tell_model(tracker, folder))

    def whole_model(self, folder: Path, making: Row) -> None:
        """Tell of a model that was finished before, but for trackers that know all of it."""
        self._state = folder / TRACKED
        self._known = self._read()
        for one in [one for one in self._couriers if (self._known.get(one) or {}).get("whole")]:
            self._say(f"{one} knows this model: {self._known[one].get('run')}")
            del self._couriers[one]
        if not self._couriers:
            return
        self.begin(folder.name, making, folder=folder)
        self._send(lambda tracker: _tell_epochs(tracker, folder))
        self.model(folder)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the run with what became of it."""
        stopped = kind is not None and issubclass(kind, TrainingStopped | KeyboardInterrupt)
        self.end(FINISHED if kind is None else STOPPED if stopped else FAILED)

    def end(self, state: str = FINISHED) -> None:
        """Wait until all is told, or cannot be, and say so. A second call does nothing."""
        couriers, self._couriers = self._couriers, {}
        # Who stops a command soon kills it; what is not told by then is told when it goes on.
        limit_s = time.monotonic() + (_STOP_S if state == STOPPED else _END_S)
        for one, courier in couriers.items() if self._began else ():
            courier.send(functools.partial(courier.tracker.end, state))
            if (left := courier.close(limit_s - time.monotonic())) is None:
                self._note(one, whole=state == FINISHED)
                self._say(f"{one} has this run: {courier.tracker.place()}")
            else:
                self._say(
                    f"WARNING: {one} does not have all of this run ({left}); nothing else is "
                    f"lacking. {_LATER.get(self._kind, _LATER['train'])}"
                )

    def _send(self, deliver: Callable[[Tracker], None]) -> None:
        for courier in self._couriers.values() if self._began else ():
            courier.send(functools.partial(deliver, courier.tracker))

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError, FramebankError):
            if self._state is not None:
                return json_text.parse_object(self._state.read_bytes())
        return {}

    def _note(self, one: str, **fields: Any) -> None:
        with _NOTING, contextlib.suppress(FramebankError):
            self._known[one] = {**(self._known.get(one) or {}), **fields}
            if self._state is not None and self._state.parent.is_dir():
                storage.write_atomic(str(self._state), json.dumps(self._known, indent=1).encode())


_NOTING = threading.Lock()


def _tell_epochs(tracker: Tracker, folder: Path) -> None:
    from framebank.train.tracking.facts import read_history

    for row in read_history(folder):
        tracker.epoch(row)


def _tell_model(tracker: Tracker, folder: Path) -> None:
    from framebank.train.tracking.facts import figures, lineage

    metrics, made = (
        json_text.read_object(str(folder / f"{name}.json")) for name in ("metrics", "lineage")
    )
    told = {name: str(metrics[name]) for name in ("kind", "split", "measure") if name in metrics}
    tracker.tell(figures(metrics), lineage(made) | told)
    tracker.model(folder)


def make_tracker(name: str) -> Tracker:
    """Return the tracker of this name, ready to begin; raises UsageError."""
    with needing(f"--track {name}", extra=name):
        module = importlib.import_module(f"framebank.train.tracking.{_MODULES[name]}")
        tracker: Tracker = module.make()
        tracker.check()
    return tracker


def add_track_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option --track."""
    parser.add_argument(
        "--track", action="append", default=[], choices=NAMES,
        help="tell this tracker of the run (may be given for each): options, figures by epoch, "
        "baselines, the model and what it comes from; where to, its own variables say",
    )  # fmt: skip


def tracked(
    args: argparse.Namespace,
    *,
    kind: str,
    say: Say,
    but: Collection[str] = (),
    more: Row | None = None,
    title: str = "",
) -> Trackers:
    """Return the trackers that the options of a command ask for, which are told of the other
    options, `but` of these, and of `more`. Raises UsageError."""
    unsaid = {*but, *_UNSAID}
    options = {name: value for name, value in vars(args).items() if name not in unsaid}
    options |= more or {}
    return Trackers(args.track, kind=kind, options=options, say=say, title=title)


class _Courier:
    """Delivers to one tracker what it is sent, in order, in a thread of its own."""

    def __init__(self, name: str, tracker: Tracker, say: Say) -> None:
        self.tracker = tracker
        self._name, self._say = name, say
        self._sent: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._again_s, self._fault = 0.0, ""
        # A daemon: a server that never answers does not keep the command from ending.
        self._thread = threading.Thread(target=self._work, name=f"track-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, deliver: Callable[[], None]) -> None:
        self._sent.put(deliver)

    def close(self, limit_s: float) -> str | None:
        """Return None when all was delivered, else why not."""
        self._sent.put(None)
        self._thread.join(max(limit_s, 1.0))
        if self._thread.is_alive():
            return "it did not take it in time"
        return f"{len(self._waiting)} parts of it: {self._fault}" if self._waiting else None

    def _work(self) -> None:
        while (sent := self._sent.get()) is not None:
            self._waiting.append(sent)
            if time.monotonic() >= self._again_s:
                self._deliver()
        self._deliver_last()

    def _deliver(self) -> None:
        while self._waiting:
            if not self._delivered(self._waiting[0]):
                self._again_s = time.monotonic() + _AGAIN_S
                return
            self._waiting.popleft()

    def _deliver_last(self) -> None:
        """Try all that is left once, for of several one alone may be what is not taken."""
        left: collections.deque[Callable[[], None]] = collections.deque()
        while self._waiting and len(left) < _TIMES:
            one = self._waiting.popleft()
            if not self._delivered(one):
                left.append(one)
        self._waiting = left + self._waiting

    def _delivered(self, deliver: Callable[[], None]) -> bool:
        try:
            deliver()
        except Exception as err:  # noqa: BLE001 - libraries and servers of others: the run goes on
            if not self._fault:
                self._say(f"WARNING: {self._name} does not take what it is told; the run goes on")
            lines = str(err).strip().splitlines() or [""]
            self._fault = printable(f"{type(err).__name__}: {lines[0]}")[:300]
            return False
        return True
