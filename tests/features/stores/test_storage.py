"""features/stores/storage.py on a real folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from framebank.features.errors import CacheError, FramebankError, JobError, UsageError
from framebank.features.stores import storage
from tests import ROOT


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "folder" / "file")
    assert storage.write_atomic(path, [b"abc", b"def"])
    assert storage.read_bytes(path) == b"abcdef"
    assert storage.read_bytes(f"file://{path}") == b"abcdef"
    assert storage.read_range(path, 4, 10) == b"ef"
    with storage.open_read(path) as stream:
        stream.seek(2)
        assert stream.read(2) == b"cd"
    assert os.listdir(tmp_path / "new" / "folder") == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    storage.write_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError), storage.open_atomic(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert storage.read_bytes(path) == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_killed_write_leaves_a_leftover_that_is_known_as_one(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from framebank.features.stores import storage\n"
        f"with storage.open_atomic({str(tmp_path / 'x.tfrecord')!r}) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    (name,) = os.listdir(tmp_path)
    assert storage.is_leftover(name) and storage.is_leftover(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.tfrecord", ".x.tmp", "a.index.json", ".hidden.mp4", "x.tmp"])
def test_other_names_are_no_leftovers(name: str) -> None:
    assert not storage.is_leftover(name)


def test_create_only_keeps_what_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "once")
    assert storage.write_atomic(path, b"1", create_only=True)
    assert not storage.write_atomic(path, b"2", create_only=True)
    assert storage.read_bytes(path) == b"1"
    assert os.listdir(tmp_path) == ["once"]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = str(tmp_path / ("ü" * 127))
    storage.write_atomic(path, b"x")
    assert storage.read_bytes(path) == b"x"


def test_list_find_delete(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    (tmp_path / "folder").mkdir()
    files = storage.list_files(str(tmp_path))
    assert [(os.path.basename(file.path), file.size_bytes) for file in files] == [
        ("a", 3), ("b", 3), ("c", 3),
    ]  # fmt: skip
    assert files[0] == storage.find(str(tmp_path / "a"))
    assert storage.list_files(str(tmp_path / "absent")) == []
    assert storage.find(str(tmp_path / "folder")) is None
    assert storage.folder_exists(str(tmp_path / "folder"))
    assert storage.delete(str(tmp_path / "a")) and not storage.delete(str(tmp_path / "a"))


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(storage.FileMissingError, match="no such file"):
        storage.read_bytes(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="no folder"):
        storage.write_atomic(str(tmp_path / "file" / "x"), b"")
    with pytest.raises(UsageError, match="is a folder"):
        storage.write_atomic(str(tmp_path), b"")
    with pytest.raises(UsageError, match="ftp://"):
        storage.read_bytes("ftp://host/x")
    with pytest.raises(UsageError, match="another machine"):
        storage.read_bytes("file://elsewhere/x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk of Linux")
def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    with (
        pytest.raises(JobError, match="the disk is full"),
        storage.open_atomic(str(tmp_path / "x")),
    ):
        Path("/dev/full").write_bytes(b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, JobError, "disk is full"),
        (errno.EROFS, UsageError, "read-only"),
        (errno.EACCES, UsageError, "permission denied"),
        (errno.EIO, JobError, "disk reports a fault"),
        (errno.ENOENT, CacheError, "no such file"),
        (errno.ENOTRECOVERABLE, JobError, "State not recoverable"),
    ],
)
def test_each_errno_has_its_error(number: int, kind: type[FramebankError], words: str) -> None:
    error = storage.storage_error("/c/x", OSError(number, os.strerror(number)), "write")
    assert isinstance(error, kind)
    assert words in str(error) and "cannot write /c/x" in str(error)


@pytest.mark.parametrize(
    ("base", "joined"),
    [("/a/", "/a/b/c"), ("/", "/b/c"), ("", "b/c"), ("a", "a/b/c"), ("gs://x/", "gs://x/b/c")],
)
def test_join(base: str, joined: str) -> None:
    assert storage.join(base, "b", "c") == joined
