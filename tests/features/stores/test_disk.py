"""What only the disk does: names taken when a file is whole, locks of the kernel, deep listings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from framebank.features.errors import JobError
from framebank.features.stores import disk, storage


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
