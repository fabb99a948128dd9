"""What only the disk does: names taken when a file is whole, locks of the kernel, deep listings."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

import framebank
from framebank.features.errors import JobError, UsageError
from framebank.features.stores import disk, locks, storage
from tests.clips.plain_clips import write_clip


def test_a_file_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with disk.replacing(path) as part:
        part.write_bytes(b"one")
        assert not path.exists() and disk.is_leftover(part.name)
    with pytest.raises(ZeroDivisionError), disk.replacing(path) as part:
        part.write_bytes(b"two")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one" and os.listdir(path.parent) == ["file"]
    (path.parent / ".file.1-0123abcd.tmp").touch()
    (path.parent / ".other.1-0123abcd.tmp").touch()
    disk.remove_leftovers(path)
    assert sorted(os.listdir(path.parent)) == [".other.1-0123abcd.tmp", "file"]


def test_a_held_file_refuses_the_next_one(tmp_path: Path) -> None:
    path, busy = tmp_path / "folder" / ".lock", JobError("another one is at work")
    with (
        disk.locked(path),
        pytest.raises(JobError, match="at work"),
        disk.locked(path, otherwise=busy),
    ):
        raise AssertionError
    with disk.locked(path, otherwise=busy):
        pass


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(disk.fcntl, "flock", flock)
    for taking in (
        disk.locked(tmp_path / ".lock"),
        locks.held(str(tmp_path), what="writing"),
    ):
        with pytest.raises(UsageError, match="keeps no locks") as caught, taking:
            raise AssertionError
        assert str(tmp_path) in str(caught.value.got)
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "a.mp4", frames=2)
    words = ["--weights", "random:0", "--backbone", "mobilenet_v2"]
    cache = str(tmp_path / "cache")
    assert framebank.main(["extract", str(tmp_path / "in"), "--cache", cache, *words]) == 2
    told = capsys.readouterr().err
    assert "keeps no locks" in told and "No locks available" in told and "Traceback" not in told


def test_a_listing_goes_as_deep_as_it_is_asked_to(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/d/e"):
        storage.write_atomic(str(tmp_path / name), b"x")
    (tmp_path / "empty").mkdir()
    paths = {file.path for file in storage.iter_files(str(tmp_path), deep=True)}
    assert paths == {str(tmp_path / name) for name in ("a", "b/c", "b/d/e")}
    assert [file.path for file in storage.iter_files(f"{tmp_path}/")] == [str(tmp_path / "a")]
    assert list(storage.iter_files("")) == []


def test_a_folder_is_empty_but_for_what_a_killed_write_left(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert storage.is_empty(f"{folder}/absent", but="")
    (tmp_path / ".spec.json.1-0123abcd.tmp").touch()
    assert storage.is_empty(folder, but="")
    (tmp_path / "sub").mkdir()
    assert not storage.is_empty(folder, but="")
    storage.remove_folder(f"{folder}/sub")
    assert storage.is_empty(folder, but="")


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(data)
    assert disk.file_hash(tmp_path / "x") == disk.bytes_sha256(data)
    assert disk.file_hash(tmp_path / "x", "md5") == hashlib.md5(data).hexdigest()
    with storage.open_read(str(tmp_path / "x")) as file:
        assert disk.file_hash(file) == hashlib.sha256(data).hexdigest()
