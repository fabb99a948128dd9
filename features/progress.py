"""How far a command is, said on stderr: a bar where one can be drawn, else a line now and then.

A loop that counts tells a `Bar`; what counts elsewhere (a job's workers) is a `Source`, which
`show_progress` looks at. A terminal gets rich's bar, a notebook its widget, where ipywidgets is
installed; a log gets lines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

from framebank.features import terminal

_BAR_EVERY_S = 0.5
_LINE_EVERY_S = 5.0
_VERBOSE_EVERY_S = 1.0
_STALL_S = 300.0  # without any progress, after which that is said, and again after as long
# Before there is as much of either, how long the rest takes is a guess.
_LEAST_WORK_S = 10.0
_LEAST_SHARE = 0.05
_FOLLOW_S = 20.0  # in which what is said of the time left follows most of a change
_OVERDUE = 2.0  # times the longest wait so far
_LEFT_STEPS = ((7200, 600), (600, 60), (60, 10), (0, 5))  # (from that many seconds on, in steps of)


class Bar:
    """One count on its way to `total`; `what` names the command. A line is written every
    `line_every_s` at most, the first after as long; a bar is gone with the end of the block. How
    long the rest takes is said beside, `at_most` where the work may end before."""

    def __init__(
        self,
        what: str,
        *,
        total: float | None,
        line_every_s: float | None = None,
        at_most: bool = False,
    ) -> None:
        self._what, self._total, self._left = what, total, TimeLeft()
        self._about = "at most" if at_most else "about"
        self._stream: TextIO | None = sys.stderr
        self.is_drawn = _can_draw(self._stream)
        lines_s = _LINE_EVERY_S if line_every_s is None else line_every_s
        lines_s = min(lines_s, _VERBOSE_EVERY_S) if terminal.is_verbose() else lines_s
        self.every_s = _BAR_EVERY_S if self.is_drawn else lines_s
        self._said_s = time.monotonic()
        if self.is_drawn:
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn(what, markup=False),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[said]}", markup=False),
                progress.TimeElapsedColumn(),
                console=Console(file=self._stream and terminal.unheld(self._stream)),
                transient=True,
            )
            self._task = self._bar.add_task(what, total=total, said="starting")

    def __enter__(self) -> Bar:
        if self.is_drawn:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.is_drawn:
            self._bar.stop()

    @property
    def is_due(self) -> bool:
        """Tell whether an update would be seen: for those whose words cost something."""
        return time.monotonic() - self._said_s >= self.every_s

    def update(
        self,
        done: float,
        said: str,
        *,
        total: float | None = None,
        through: float | None = None,
        now: bool = False,
    ) -> None:
        """Show `done` of the total and a line about it, where that is due or asked for `now`;
        `total` where it was not known at first. The time left goes by what is `through`, where
        that is ahead of what is done."""
        if terminal.is_quiet() or (not now and not self.is_due):
            return
        self._said_s = time.monotonic()
        self._total = self._total if total is None else total
        if self._total is not None:
            far = done if through is None else through
            left_s = self._left.note(far, self._total, self._said_s)
            said += "" if left_s is None else f", {self._about} {left_text(left_s)} left"
        if self.is_drawn:
            self._bar.update(self._task, completed=done, total=total, said=terminal.printable(said))
        else:
            self.say(said)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if terminal.is_quiet():
            return
        if self.is_drawn:
            self._bar.console.print(terminal.printable(f"{self._what}: {text}"), markup=False)
        elif self._stream is not None:  # closed by the shell
            print(f"{self._what}: {text}", file=terminal.said_on(self._stream), flush=True)


def _can_draw(stream: TextIO | None) -> bool:
    if terminal.is_quiet():
        return False
    if importlib.util.find_spec("rich") is None:  # an environment that only reads
        return False
    if stream is not None and stream.isatty():
        return True
    if "IPython" not in sys.modules or importlib.util.find_spec("ipywidgets") is None:
        return False
    from rich.console import Console

    return Console().is_jupyter


@dataclasses.dataclass(frozen=True)
class Seen:
    """One look at a job: `done` of its units are safe, `said` tells how far it is, `work` grows
    whenever anything moves, `through` are those that are done or soon safe (None: as `done`)."""

    done: int
    said: str
    work: float
    through: int | None = None


class Source(Protocol):
    """What can be looked at; `hint` says what to look at where it stands still."""

    line_every_s: float
    total: int
    hint: str

    def look(self) -> Seen: ...


@contextlib.contextmanager
def show_progress(source: Source, *, what: str = "extract") -> Iterator[None]:
    """Show from a thread how far a job is, how long the rest takes and when nothing moves."""
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(source, what, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=2)


def _watch(source: Source, what: str, stop: threading.Event) -> None:
    stall = Stall(source.hint)
    with Bar(what, total=source.total, line_every_s=source.line_every_s) as bar:
        while not stop.wait(bar.every_s):
            seen, now_s = source.look(), time.monotonic()
            bar.update(seen.done, seen.said, through=seen.through, now=True)
            if stalled := stall.note(seen.work, now_s):
                bar.say(stalled)


class Pace:
    """How quickly something grows since it first did: the time before was the start-up's."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None

    def rate(self, count: float, now_s: float) -> float | None:
        """Return what is added a second, None as long as that is a guess."""
        if count <= 0:
            return None
        if self._start is None:
            self._start = (count, now_s)
        first, since_s = self._start
        spent_s = now_s - since_s
        return (count - first) / spent_s if spent_s >= _LEAST_WORK_S and count > first else None

    def left_s(self, done: float, total: float, now_s: float) -> float | None:
        """Return how long the rest takes at this pace, None as long as that is a guess."""
        rate = self.rate(done, now_s)
        if rate is None or self._start is None or done - self._start[0] < _LEAST_SHARE * total:
            return None
        return (total - done) / rate


class TimeLeft:
    """How long the rest takes, steadily: it counts down as a clock does and follows what the pace
    says within half a minute or so.

    The pace is looked at where something was done since the last look: what is done in bursts
    seems ever slower until the next one. Where that is overdue it is looked at all the same.
    """

    def __init__(self) -> None:
        self._pace = Pace()
        self._left_s, self._at_s = 0.0, math.nan  # as of that time
        self._done, self._moved_s, self._longest_s = 0.0, math.inf, 0.0  # the longest wait so far

    def note(self, done: float, total: float, now_s: float) -> float | None:
        """Return the seconds left after this look, None as long as that is a guess."""
        found_s = self._pace.left_s(done, total, now_s)
        waited_s = now_s - self._moved_s
        moved = done != self._done
        if moved:
            self._longest_s = max(self._longest_s, waited_s)
            self._done, self._moved_s = done, now_s
        if found_s is None:
            return None
        if math.isnan(self._at_s):
            self._left_s, self._at_s = found_s, now_s
        counted_s = max(0.0, self._left_s - (now_s - self._at_s))
        overdue = not moved and waited_s > _OVERDUE * self._longest_s
        if overdue and counted_s < _LEAST_WORK_S:  # of a last long clip nobody knows
            return None
        if moved or overdue:
            follows = -math.expm1(-(now_s - self._at_s) / _FOLLOW_S)
            counted_s += (found_s - counted_s) * follows
            self._left_s, self._at_s = counted_s, now_s
        return counted_s


def left_text(seconds: float) -> str:
    """Return a time left for people, in steps as coarse as it is uncertain."""
    step = next(step for least, step in _LEFT_STEPS if seconds >= least)
    return terminal.time_text(max(step, round(seconds / step) * step))


class Stall:
    """Notices that nothing moves, and says so every `_STALL_S`."""

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._work, self._since_s, self._said_s = -1.0, 0.0, 0.0

    def note(self, work: float, now_s: float) -> str | None:
        """Return what to say after this look, None where something moved or it was said."""
        if work != self._work:
            self._work, self._since_s, self._said_s = work, now_s, now_s
        if now_s - self._said_s < _STALL_S:
            return None
        self._said_s = now_s
        minutes = round((now_s - self._since_s) / 60)
        return f"nothing has moved for {minutes} minutes{': ' * bool(self._hint)}{self._hint}"
