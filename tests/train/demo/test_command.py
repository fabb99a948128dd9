"""The demo's own part: its folder, its weights, the commands it runs and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from framebank.features.commands.steps import Steps
from framebank.features.errors import JobError, UsageError
from framebank.train.demo import clips, page
from framebank.train.demo.command import (
    add_arguments,
    demo_commands,
    run,
)
from framebank.train.demo.page import direction_table
from tests import ROOT

# Stands in for the command `framebank`: notes what it is told and prints what the real one would.
STUB = """
import json, pathlib, sys, time
words = sys.argv[1:]
with open("calls.jsonl", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words[0] == pathlib.Path("fails").read_text():
    print("framebank: no room on the disk", file=sys.stderr)
    sys.exit(1)
if words[0] == pathlib.Path("hangs").read_text():
    time.sleep(60)
kind = {"by_type": {"direction": {"accuracy": 0.5, "judged": 10}}}
said = {
    "train": {"by_type": {"direction": {"accuracy": 0.9, "judged": 10}},
              "baselines": {"order_blind": kind, "question_only": kind}},
    "ask": {"video": words[-2], "question": words[-1],
            "answers": [{"answer": "loading", "probability": 0.75}]},
}
print(json.dumps(said.get(words[0], {})))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder whose `python -m framebank` is the stub, with clips and page left out."""
    (tmp_path / "framebank.py").write_text(STUB)
    for name in ("fails", "hangs"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)

    def make_clips(folder: Path, *, count: int, seed: int, report: object) -> list[Any]:
        return clips.plan_clips(count, seed=seed)

    def write_page(out: Path, result: page.DemoResult) -> Path:
        (out / "index.html").write_text(json.dumps(result.commands))
        return out / "index.html"

    monkeypatch.setattr(clips, "make_clips", make_clips)
    monkeypatch.setattr(page, "write_page", write_page)
    return tmp_path


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(["--clips", "40", *words]), [])


def _calls(place: Path) -> list[list[str]]:
    return [json.loads(line) for line in (place / "calls.jsonl").read_text().splitlines()]


def test_demo_runs_the_other_commands_and_prints_a_table(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--weights", "random:0") == 0
    calls = _calls(place)
    assert [words[0] for words in calls] == ["extract", "train", "score", "ask"]
    assert "random:0" in calls[0] and "uniform=8" in calls[0]
    said = capsys.readouterr()
    assert "90.0%" in said.out and "50.0%" in said.out and "index.html" in said.out
    assert "order-blind" in said.out and "question only" in said.out
    assert "random:0" in said.out and "RANDOM" in said.err
    held_out = Path(calls[3][-2]).stem
    plan = next(p for p in clips.plan_clips(40) if p.clip_id == held_out)
    assert plan.split == "test" and f"the truth is {plan.answer}" in said.out
    assert _run("--weights", "random:0") == 0  # and again, in its own folder


def test_a_step_that_fails_ends_the_demo(place: Path) -> None:
    (place / "fails").write_text("train")
    with pytest.raises(JobError, match="'train'") as caught:
        _run("--weights", "random:0")
    assert caught.value.exit_status == 1
    assert [words[0] for words in _calls(place)] == ["extract", "train"]


def test_a_folder_of_other_things_is_left_alone(place: Path) -> None:
    mine = place / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="other things"):
        _run("--out", str(mine))
    with pytest.raises(UsageError, match="is a file"):
        _run("--out", str(mine / "thesis.txt"))
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    (mine / "demo.json").write_text("{}")
    with pytest.raises(UsageError, match="not what the demo wrote"):
        _run("--out", str(mine))


def test_other_options_need_another_folder(place: Path) -> None:
    assert _run("--weights", "random:0", "--out", "d") == 0
    with pytest.raises(UsageError, match="--seed 0"):
        _run("--weights", "random:0", "--out", "d", "--seed", "1")
    with pytest.raises(UsageError, match="--weights random:0"):
        _run("--weights", "random:1", "--out", "d")
    assert _run("--out", "d") == 0  # goes on with the weights that it began with
    assert "random:0" in _calls(place)[-4]


@pytest.mark.parametrize("words", [("--clips", "7"), ("--seed", "-1"), ("--epochs", "0")])
def test_bad_numbers_are_refused_before_anything_is_written(
    place: Path, words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError):
        _run(*words)
    assert not (place / "framebank-demo").exists()


def test_without_a_network_the_weights_are_random(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("FRAMEBANK_WEIGHTS_URL", "http://127.0.0.1:9")  # nobody listens there
    for name in ("XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.setenv(name, str(place / name))
    assert _run() == 0
    assert "random:0" in _calls(place)[0]
    said = capsys.readouterr().err
    assert "not reachable" in said and "RANDOM" in said
    assert (
        json.loads((place / "framebank-demo" / "demo.json").read_text())["framebank demo"][
            "weights"
        ]
        == "random:0"
    )


def test_sigterm_reaches_the_step(place: Path) -> None:
    (place / "hangs").write_text("extract")
    code = (
        "import sys; sys.path.pop(0)  # where the stub is\n"
        "from framebank.features.commands.steps import Steps\n"
        "try: Steps('demo').run('extract', ['extract'])\n"
        "except Exception as error: sys.exit(error.exit_status)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        deadline = time.monotonic() + 20
        while not (place / "calls.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


def test_commands_are_what_a_user_would_type(tmp_path: Path) -> None:
    commands = demo_commands(tmp_path, weights="imagenet", epochs=3)
    assert {words[0] for words in commands.values()} == set(commands)
    steps = Steps("demo")
    assert steps.typed == [] and steps.seconds == {}


def test_direction_table_takes_what_there_is() -> None:
    metrics = {"by_type": {"direction": {"accuracy": 1.0, "judged": 4}}, "baselines": {}}
    assert direction_table(metrics) == [("model", 1.0, 4)]
