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

from features import temporary

ROOT = Path(__file__).resolve().parent.parent
_KILLED = """
import os, pathlib, signal
from features import temporary
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
            while not over.is_set():  # as features/progress.py does
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
    with pytest.raises(FileNotFoundError):
        temporary.live_folder()
    assert temporary.remove_dead() == 0
