import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import framebank
from framebank.features import terminal
from tests import ROOT

RUN = [sys.executable, "-m", "framebank"]


def shell(script: str, *words: object, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line of bash from the checkout; "$@" are the words of a framebank command."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *RUN, *map(str, words)],
        cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "q.csv"
    rows = "".join(f"clip{n}.mp4,what is {n}?,a{n}\n" for n in range(20_000))
    path.write_text("video_id,question,answer\n" + rows)
    return path


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_ends_the_command_as_it_ends_git(
    questions: Path, unbuffered: str
) -> None:
    status = '; echo "${PIPESTATUS[0]}"'
    for words in (["questions", questions], ["--help"], ["inspect", "--help"]):
        found = shell('"$@" | true' + status, *words, unbuffered=unbuffered)
        assert (found.stdout.split(), found.stderr) == (["141"], ""), words
    mistake = shell('"$@" 2>&1 >/dev/null | true' + status, "inspect", "/no", unbuffered=unbuffered)
    assert mistake.stdout.split() == ["141"]
    # Of standard error nothing was taken, and nothing was said there.
    quiet = shell('"$@" 2>&1 >/dev/null | true' + status, "--version", unbuffered=unbuffered)
    assert quiet.stdout.split() == ["0"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_that_cannot_be_written_is_said_once(questions: Path, more: list[str]) -> None:
    found = shell('"$@" > /dev/full', "questions", questions, *more)
    assert found.returncode == 1
    assert found.stderr.startswith("framebank: the output cannot be written\n")
    assert "No space left" in found.stderr and found.stderr.count("\n") == 3


def test_a_closed_output_is_no_fault_of_ours(questions: Path) -> None:
    found = shell('"$@" >&- 2>&-', "questions", questions)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_no_message_hands_control_characters_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj\r"
    (tmp_path / f"{name}.csv").write_text(f"video_id,question,answer\nv,{name},\n")
    for words in (
        ["inspect", str(tmp_path / name)],
        ["questions", str(tmp_path / f"{name}.csv")],
        ["extract", str(tmp_path / name), "--cache", str(tmp_path / "c")],
        [name],
        ["extract", str(tmp_path), "--cache", str(tmp_path / "c"), f"--{name}"],
    ):
        with contextlib.suppress(SystemExit):
            framebank.main(words)
        said = "".join(capsys.readouterr())
        assert "owned" in said, words
        assert not terminal._OBEYED.search(said), words


def test_a_guarded_stream_leaves_text_alone_and_what_draws_reaches_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with terminal.guarded(), terminal.guarded():  # one guard, however often
        print("tab\tnew\nline é 你 👩‍🚒 \u202f", end="")
        print("\x1b[2J\udce9", end="")
        sys.stdout.writelines(["\x07"])
        assert not sys.stdout.isatty()
        terminal.bare(sys.stdout).write("\x1b[1m")
    assert sys.stdout is stream
    assert stream.getvalue() == "tab\tnew\nline é 你 👩‍🚒 \u202f\\x1b[2J\\udce9\\x07\x1b[1m"


_SAID_MEANWHILE = """
import os, sys
from framebank.features import tensorflow_import, terminal
with terminal.guarded(), terminal.waiting("loading"):
    with tensorflow_import._held_stderr():
        os.write(2, b"a greeting\\n")
        print("a warning", file=sys.stderr, flush=True)
        terminal.say("of ours")
        terminal.unheld(sys.stderr).write("drawn\\n")
    terminal.say("later")
"""


def test_what_we_say_is_seen_while_others_are_held_back() -> None:
    command = [sys.executable, "-c", _SAID_MEANWHILE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "framebank: loading", "framebank: of ours", "drawn", "framebank: later"
    ]  # fmt: skip
