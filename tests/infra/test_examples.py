"""The tutorial runs as it is written, and so does the notebook, which calls all of the Python API.

The tutorial is read in a folder that is called as the notebook's is, so that clips are drawn and
decoded once.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import framebank as fb
from framebank.train.demo.clips import plan_clips, question_rows
from framebank.train.retrain.config import read_config
from tests import ROOT
from tests.made import forked
from tests.servers.flink_cluster import free_port

EXAMPLES = ROOT / "infra" / "examples"
NOTEBOOK = EXAMPLES / "tour.ipynb"
TUTORIAL = ROOT / "infra" / "docs" / "tutorial.md"


def blocks_of(text: str) -> list[list[str]]:
    """Return the commands of each block of a page that is run."""
    found = re.findall(r"(<!-- not in the test.*?-->\n)?```bash\n(.*?)```", text, flags=re.S)
    return [re.sub(r" *\\\n +", " ", block).splitlines() for skipped, block in found if not skipped]


class Reader:
    """Who reads the tutorial: in a folder with the checkout's `infra`, a terminal, a browser."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, {}
        self.port = str(free_port())
        self.server: forked.Forked | None = None
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        folder.mkdir()
        (folder / "infra").symlink_to(ROOT / "infra")

    said: dict[str, str]  # a command's first two words → what it said last

    def type(self, line: str) -> None:
        words = shlex.split(line.replace("8000", self.port))
        if words[:2] == ["framebank", "serve"]:
            self.server = forked.start(
                "-m", *words, cwd=self.folder, env=self.env, stderr=forked.STDOUT
            )
            self._wait()
            return
        if words[0] == "framebank":
            done = forked.run("-m", *words, cwd=self.folder, env=self.env, timeout=1800)
        else:
            words[0] = sys.executable if words[0] == "python" else words[0]
            done = subprocess.run(
                words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        self.said[" ".join(words[:2])] = done.stdout

    def _wait(self) -> None:
        """Wait until the server says that it is ready."""
        assert self.server is not None
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return
            except OSError:
                assert self.server.poll() is None, self.server.communicate()
                time.sleep(0.2)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    pytest.importorskip("apache_beam")
    found = Reader(tmp_path_factory.mktemp("read") / "tour")
    try:
        for block in blocks_of(TUTORIAL.read_text()):
            for line in block:
                found.type(line)
        yield found
    finally:
        if found.server:
            found.server.kill()


def test_the_tutorial_ends_in_a_served_answer(reader: Reader) -> None:
    answer = json.loads(reader.said["curl -F"])
    assert answer["answers"][0]["answers"][0]["answer"] == "loading"
    assert "loading" in reader.said["framebank ask"].splitlines()[0]
    shown = re.search(r"```text\n(accuracy.*?)\.\.\.", TUTORIAL.read_text(), flags=re.S)
    assert shown and shown[1].splitlines()[0] in reader.said["framebank train"]
    assert (reader.folder / "report" / "report.html").exists()


@functools.lru_cache
def notebook() -> str:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells), "clear the outputs before you commit"
    return "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_the_notebook_calls_every_function() -> None:
    functions = [name for name in fb.__all__ if name[0].islower() and name != "main"]
    assert [name for name in functions if f"fb.{name}(" not in notebook()] == []


def test_the_notebook_runs(reader: Reader) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    found = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        found, timeout=1800, resources={"metadata": {"path": str(reader.folder.parent)}}
    )
    client.execute(env=reader.env | {"EXAMPLES": str(EXAMPLES)})
    outputs = [output for cell in found.cells for output in cell.get("outputs", ())]
    said = "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") + "\n"
        for output in outputs
        if output.get("name") != "stderr"
    )
    for words in (
        "80 clips\n",
        ", 0 quarantined\n<Cache ",
        "faults: []\n",
        "npz 1 files\nparquet 1 files\nwebdataset 1 files\ntfds 1 files\nyt8m 1 files",
        "{'train': 150, 'val': 20, 'test': 40}",
        "210 questions answered",
        "('promoted', 'nothing new')\n",
        "\ntrain: got an unexpected keyword argument 'epoch'",
    ):
        assert words in said, said
    assert (reader.folder / "judged" / "report.html").exists()


def test_the_questions_are_those_about_the_clips_that_are_made() -> None:
    with (EXAMPLES / "questions.csv").open() as file:
        found = list(csv.DictReader(file))
    count = runpy.run_path(str(EXAMPLES / "make_clips.py"))["CLIPS"]
    assert found == [row for plan in plan_clips(count) for row in question_rows(plan)]


def test_retrain_toml_is_read(tmp_path: Path) -> None:
    config = read_config(shutil.copy(EXAMPLES / "retrain.toml", tmp_path))
    assert config.questions == (str(tmp_path / "questions.csv"),)
