"""A bar on a terminal, lines elsewhere; how long the rest takes, and that nothing moves."""

from __future__ import annotations

import builtins
import io
import itertools
import sys
import types

import pytest

from framebank.features import progress
from framebank.features.progress import Bar, Pace, Seen, Stall, TimeLeft, left_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    return now_s


def test_lines_come_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("verify", total=3) as bar:
        bar.update(1, "1 of 3")
        clock[0] += 5.0
        bar.update(2, "2 of 3")
        bar.update(3, "3 of 3")
        bar.say("done")
    assert capsys.readouterr().err.splitlines() == ["verify: 2 of 3", "verify: done"]


def test_a_bar_is_drawn_on_a_terminal_and_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar("plan", total=4) as bar:
        bar.update(2, "2 of \x1b[31m[4]" + "x" * 80, now=True)
        bar.say("a line that stays")
    said = stream.getvalue()
    assert "2 of \\x1b[31m[4]" in said and "\x1b[31m[4]" not in said
    assert "━" in said and "plan: a line that stays" in said
    assert said.endswith("\x1b[2K")  # the bar's line is wiped


def test_a_notebook_has_a_bar_where_it_has_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    class ZMQInteractiveShell:
        """What IPython calls its shell in a notebook."""

    found = progress.importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    for widgets in (None, object()):
        monkeypatch.setattr(
            progress.importlib.util,
            "find_spec",
            lambda name, widgets=widgets: widgets if name == "ipywidgets" else found(name),
        )
        assert Bar("extract", total=1).is_drawn == (widgets is not None)


def test_a_closed_stream_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Bar("extract", total=1) as bar:
        bar.update(1, "1 of 1", now=True)


def test_the_time_left_does_not_count_the_start_up() -> None:
    """Half a minute of it made 14:30 out of 15 seconds."""
    pace = Pace()
    assert pace.left_s(0, 100, 0.0) is None
    assert pace.left_s(0, 100, 30.0) is None
    assert pace.left_s(4, 100, 32.0) is None  # the first of them: since when, nobody knows
    assert pace.left_s(8, 100, 33.0) is None  # a second of work tells little
    assert pace.left_s(5, 100, 60.0) is None  # and so does one video
    assert pace.left_s(52, 100, 44.0) == pytest.approx(12.0)
    assert pace.left_s(100, 100, 56.0) == 0.0


def test_the_time_left_is_steady_where_shards_are_committed_in_bursts() -> None:
    left, told = TimeLeft(), []
    for second in range(0, 601, 5):  # one unit a second, of which 64 are safe at once
        told.append(left.note(second // 64 * 64, 1000, float(second)))
    found = [seconds for seconds in told if seconds is not None]
    assert len(found) > 90
    jumps = [after - (before - 5) for before, after in itertools.pairwise(found)]
    assert max(map(abs, jumps)) < 45  # without it 200
    assert abs(found[-1] - 400) < 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "5 s"), (42.0, "40 s"), (58.0, "1 min 0 s"), (93.0, "1 min 30 s"),
     (1234.0, "21 min 0 s"), (9000.0, "2 h 30 min")],
)  # fmt: skip
def test_a_time_left_is_told_as_finely_as_it_is_known(seconds: float, text: str) -> None:
    assert left_text(seconds) == text


def test_a_job_that_stands_still_is_told_of_every_five_minutes() -> None:
    stall = Stall("look at X")
    said = [stall.note(work, now_s) for work, now_s in ((0, 0), (0, 299), (3, 300), (3, 599))]
    assert said == [None] * 4
    assert stall.note(3, 600) == "nothing has moved for 5 minutes: look at X"
    assert stall.note(3, 899) is None
    assert stall.note(3, 900) == "nothing has moved for 10 minutes: look at X"
    assert stall.note(4, 901) is None and stall.note(4, 1200) is None


def test_lines_say_what_left_and_what_stands_still(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    looks = [(0, 130.0), (10, 140.0), (60, 165.0), (60, 165.0 + 301)]

    class Source:
        line_every_s, total, hint = 0.0, 100, "look at X"

        def look(self) -> Seen:
            done, clock[0] = looks.pop(0)
            return Seen(done, f"{done} of 100", done)

    class Stop:
        def wait(self, timeout: float) -> bool:
            return not looks

    progress._watch(Source(), "extract", Stop())  # type: ignore[arg-type]
    assert capsys.readouterr().err.splitlines() == [
        "extract: 0 of 100",
        "extract: 10 of 100",
        "extract: 60 of 100, about 20 s left",
        "extract: 60 of 100",  # of what stands still nobody knows
        "extract: nothing has moved for 5 minutes: look at X",
    ]
