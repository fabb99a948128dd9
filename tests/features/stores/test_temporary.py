"""Temporary folders: there while their process lives, gone with the next run after a kill."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from framebank.features.errors import JobError
from framebank.features.stores import temporary
from tests import ROOT
from tests.attackers.small_disks import run_with

_KILLED = """
import os, pathlib, signal
from framebank.features.stores import temporary
folder = temporary.live_folder()
pathlib.Path(folder.path, "clip.mp4").write_bytes(b"0" * 1000)
print(folder.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_lives_until_it_is_closed(root: Path) -> None:
    with temporary.live_folder() as folder:
        assert Path(folder.path).parent == root
        Path(folder.path, "deep").mkdir()
        assert temporary.remove_dead() == 0
        assert Path(folder.path, "deep").is_dir()
    assert list(root.iterdir()) == []
    folder.close()


def test_the_next_run_removes_what_a_killed_one_left(root: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(root)},
        capture_output=True,
        text=True,
    )
    left = Path(killed.stdout.strip())
    assert left.parent == root and (left / "clip.mp4").exists()
    with temporary.live_folder() as mine:
        assert [str(path) for path in root.iterdir()] == [mine.path]
        assert temporary.remove_dead() == 0


def test_it_goes_while_somebody_writes_to_it(root: Path) -> None:
    for _ in range(20):
        folder, over = temporary.live_folder(), threading.Event()
        for number in range(50):
            Path(folder.path, f"{number}.json").touch()

        def write(path: str = folder.path, over: threading.Event = over) -> None:
            number = 0
            while not over.is_set():  # as pipelines/jobs/progress.py does
                number = (number + 1) % 50
                with contextlib.suppress(OSError):
                    part = Path(path, f"{number}.tmp")
                    part.touch()
                    part.replace(Path(path, f"{number}.json"))
                time.sleep(0.0002)

        writer = threading.Thread(target=write)
        writer.start()
        folder.close()
        over.set()
        writer.join()
        assert temporary.remove_dead() == 0 and list(root.iterdir()) == []


def test_nothing_of_anybody_else_is_removed(root: Path) -> None:
    (root / "framebank-cache").mkdir()
    (root / "framebank-cache" / "spec.json").write_text("{}")
    (root / "framebank-error-1.txt").write_text("what went wrong")
    outside = root / "outside"
    outside.mkdir()
    (outside / ".framebank-lives").touch()
    (root / "framebank-link").symlink_to(outside)
    assert temporary.remove_dead() == 0
    assert sorted(path.name for path in root.iterdir()) == [
        "framebank-cache", "framebank-error-1.txt", "framebank-link", "outside",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "absent"))
    with pytest.raises(JobError, match="cannot use the temporary folder"):
        temporary.live_folder()
    assert temporary.remove_dead() == 0


_TAKES_ROOM = """
import sys, tempfile
from framebank.features.cache import catalog
from framebank.features.stores import storage, temporary
from framebank.train.fit.model_folder import _explained

def spool():
    with temporary.Spool(max_size=1 << 16) as file:
        for _ in range(16):
            file.write(bytes(1 << 15))

def model():
    with _explained(sys.argv[2]), tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 20))

def folder():
    folders = [temporary.live_folder() for _ in range(1000)]

def bucket():
    with storage.open_atomic("s3://bucket/name") as file:
        file.write(bytes(40 << 20))

tempfile.gettempdir()  # Python takes another one where there is no room at its start
try:
    globals()[sys.argv[1]]()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("what", ["spool", "model", "folder", "bucket"])
def test_a_full_temporary_folder_is_blamed_and_nothing_else(tmp_path: Path, what: str) -> None:
    small, model = tmp_path / "small", tmp_path / "model"
    for folder in (small, model):
        folder.mkdir()
    options = "size=128k,nr_inodes=64"
    said = run_with({small: options}, "-c", _TAKES_ROOM, what, model, TMPDIR=str(small)).stdout
    told = f"JobError cannot use the temporary folder {small}\n  got:      the disk is full\n"
    assert said.startswith(told), said
    assert "set TMPDIR" in said


def test_a_full_disk_of_the_model_is_not_blamed_on_the_temporary_folder(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    code = _TAKES_ROOM.replace(
        "tempfile.TemporaryFile()", "tempfile.TemporaryFile(dir=sys.argv[2])"
    )
    said = run_with({model: "size=128k"}, "-c", code, "model", model).stdout
    assert said.startswith(f"JobError cannot write to {model}\n  got:      No space left"), said
