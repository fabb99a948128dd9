"""features/stores/gcs.py against a bucket in memory, and the errors that need no bucket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from framebank.features.errors import FramebankError, UsageError
from framebank.features.stores import gcs, storage
from tests.servers.fake_bucket import FakeBucket, serve_bucket


@pytest.fixture(scope="module")
def clips() -> Iterator[FakeBucket]:
    pytest.importorskip("google.cloud.storage")
    with serve_bucket("clips") as server:
        yield server


def test_what_is_written_is_read_back(clips: FakeBucket) -> None:
    path = "gs://clips/some folder/ünï#code?.bin"
    assert storage.write_atomic(path, [b"abc", b"", b"defgh"])
    assert storage.read_bytes(path) == b"abcdefgh"
    assert storage.read_range(path, 2, 3) == b"cde"
    assert storage.read_range(path, 6, 99) == b"gh"
    assert storage.read_range(path, 99, 2) == b""
    assert storage.read_range(path, 0, 0) == b""
    with storage.open_read(path) as stream:
        assert stream.seek(3) == 3
        assert (stream.read(2), stream.tell(), stream.read()) == (b"de", 5, b"fgh")


def test_a_large_upload_appears_whole(clips: FakeBucket) -> None:
    data = bytes(range(256)) * 50_000  # 12.8 MB: above the client's limit for one request
    storage.write_atomic("gs://clips/large", data)
    assert storage.read_bytes("gs://clips/large") == data
    assert "large" in clips.objects


def test_an_upload_that_fails_half_way_leaves_nothing(clips: FakeBucket) -> None:
    with pytest.raises(ZeroDivisionError), storage.open_atomic("gs://clips/half") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not storage.exists("gs://clips/half")


def test_create_only_keeps_what_is_there(clips: FakeBucket) -> None:
    assert storage.write_atomic("gs://clips/once", b"1", create_only=True)
    assert not storage.write_atomic("gs://clips/once", b"2", create_only=True)
    assert storage.read_bytes("gs://clips/once") == b"1"
    found = storage.find("gs://clips/once")
    storage.write_atomic("gs://clips/once", b"3")
    changed = storage.find("gs://clips/once")
    assert found is not None and changed is not None
    assert found.generation != changed.generation


def test_listing_delete_and_absence(clips: FakeBucket) -> None:
    for number in range(7):
        clips.put(f"many/{number}", b"x" * number)
    clips.put("many/deeper/8", b"")
    clips.put("many/folder/", b"")
    names = [file.path for file in storage.list_files("gs://clips/many")]
    assert names == [f"gs://clips/many/{number}" for number in range(7)]
    assert [size for _, size, _ in gcs.list_objects("gs://clips/many/")] == [*range(7), 0]
    assert storage.folder_exists("gs://clips/many") and not storage.folder_exists("gs://clips/man")
    assert storage.delete("gs://clips/many/0") and not storage.delete("gs://clips/many/0")
    assert storage.find("gs://clips/many/0") is None
    for read in (storage.read_bytes, lambda path: storage.open_read(path).__enter__()):
        with pytest.raises(storage.FileMissingError, match="many/0"):
            read("gs://clips/many/0")


def test_a_bucket_that_is_not_there_is_named(clips: FakeBucket) -> None:
    with pytest.raises(FramebankError, match="gs://other/x"):
        storage.list_files("gs://other/x")


@pytest.mark.parametrize("path", ["gs://", "gs:///name"])
def test_an_address_without_a_bucket_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="gs://BUCKET/NAME"):
        storage.read_bytes(path)


def test_missing_credentials_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.cloud.storage")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(UsageError, match="no credentials") as caught:
        storage.read_bytes("gs://clips/x")
    assert "gcloud auth" in str(caught.value)
