"""storage against object stores that speak the real protocols, sound and faulty."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator

import pytest

from framebank.features.errors import FramebankError, UsageError, VideoRejected
from framebank.features.stores import storage
from tests.servers import bucket_servers
from tests.servers.bucket_servers import BucketServer, environment, free_port, serve
from tests.servers.faulty_proxy import faulty_proxy


@pytest.fixture(scope="module", params=bucket_servers.KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BucketServer]:
    with serve(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(params=["sound", "faulty"])
def bucket(request: pytest.FixtureRequest, server: BucketServer) -> Iterator[str]:
    """Return the address of an empty folder in the bucket, reached well or through bad weather."""
    place = f"{server.bucket}/{request.node.name}"
    if request.param == "sound":
        with environment(**server.environment):
            yield place
        return
    with (
        faulty_proxy(server.url, share=0.2, seed=len(request.node.name)) as proxy,
        environment(**server.through(proxy.url).environment),
    ):
        yield place


def test_what_is_written_is_read_back(bucket: str) -> None:
    path = f"{bucket}/some folder/ünï#code.bin"
    assert storage.write_atomic(path, [b"abc", b"", b"defgh"])
    assert storage.read_bytes(path) == b"abcdefgh"
    assert storage.read_range(path, 2, 3) == b"cde"
    assert storage.read_range(path, 6, 99) == b"gh"
    assert storage.read_range(path, 0, 0) == b""
    with storage.open_read(path) as stream:
        assert stream.seek(3) == 3
        assert (stream.read(2), stream.tell(), stream.read()) == (b"de", 5, b"fgh")


def test_a_large_upload_appears_whole(bucket: str) -> None:
    data = bytes(range(256)) * 80_000  # 20 MB: several parts
    storage.write_atomic(f"{bucket}/large", data)
    assert storage.read_bytes(f"{bucket}/large") == data


def test_an_upload_that_fails_half_way_leaves_nothing(bucket: str) -> None:
    with pytest.raises(ZeroDivisionError), storage.open_atomic(f"{bucket}/half") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not storage.exists(f"{bucket}/half")


def test_create_only_keeps_what_is_there(bucket: str) -> None:
    if "gcp-storage-emulator" in bucket:
        pytest.skip("gcp-storage-emulator does not enforce preconditions")
    path = f"{bucket}/once"
    assert storage.write_atomic(path, b"1", create_only=True)
    assert not storage.write_atomic(path, b"2", create_only=True)
    assert storage.read_bytes(path) == b"1"
    found = storage.find(path)
    storage.write_atomic(path, b"3")
    changed = storage.find(path)
    assert found is not None and changed is not None
    assert found.generation != changed.generation


def test_a_retried_create_finds_its_own_object(bucket: str) -> None:
    """Answers that get lost must not make a writer think that somebody else was first."""
    for number in range(12):
        assert storage.write_atomic(f"{bucket}/own/{number}", b"%d" % number, create_only=True)


def test_listing_delete_and_absence(bucket: str) -> None:
    for number in range(7):
        storage.write_atomic(f"{bucket}/many/{number}", b"x" * number)
    storage.write_atomic(f"{bucket}/many/deeper/8", b"")
    files = storage.list_files(f"{bucket}/many")
    assert [file.path for file in files] == [f"{bucket}/many/{number}" for number in range(7)]
    assert [file.size_bytes for file in files] == [*range(7)]
    assert storage.folder_exists(f"{bucket}/many") and not storage.folder_exists(f"{bucket}/man")
    assert storage.delete(f"{bucket}/many/0")
    assert storage.find(f"{bucket}/many/0") is None
    assert not storage.delete(f"{bucket}/many/0")
    for read in (storage.read_bytes, lambda path: storage.open_read(path).__enter__()):
        with pytest.raises(storage.FileMissingError, match="many/0"):
            read(f"{bucket}/many/0")


def test_a_download_is_pinned_to_what_was_listed(bucket: str) -> None:
    path = f"{bucket}/clip.mp4"
    data = bytes(range(256)) * 40_000
    storage.write_atomic(path, data)
    (listed,) = storage.list_files(bucket)
    copy = io.BytesIO()
    storage.download(path, copy, generation=listed.generation)
    assert copy.getvalue() == data
    storage.write_atomic(path, b"another clip")
    with pytest.raises(VideoRejected, match="changed") as changed:
        storage.download(path, io.BytesIO(), generation=listed.generation)
    assert changed.value.error_class == "unreadable"
    storage.delete(path)
    with pytest.raises(VideoRejected) as missing:
        storage.download(path, io.BytesIO(), generation=listed.generation)
    assert missing.value.error_class == "missing"


def test_a_bucket_that_is_not_there_is_named(server: BucketServer) -> None:
    scheme = server.bucket.partition("://")[0]
    with environment(**server.environment):
        with pytest.raises(FramebankError, match="other-bucket/x"):
            storage.list_files(f"{scheme}://other-bucket/x")
        with pytest.raises(UsageError, match="no such bucket"):
            storage.write_atomic(f"{scheme}://other-bucket/x", b"1")


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_service_that_nobody_runs_is_told_within_seconds(scheme: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    start_s = time.monotonic()
    with (
        environment(STORAGE_EMULATOR_HOST=url, AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="a",
                    AWS_SECRET_ACCESS_KEY="b", AWS_DEFAULT_REGION="us-east-1"),
        pytest.raises(FramebankError, match="cannot read"),
    ):  # fmt: skip
        storage.read_bytes(f"{scheme}://clips/x")
    assert time.monotonic() - start_s < 10


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_service_that_takes_calls_and_says_nothing_is_not_waited_for_in_silence(
    scheme: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framebank.features.stores.objects.LIMIT_S", 4.0)
    monkeypatch.setattr("framebank.features.stores.objects._SAY_AFTER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        proxy_url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with (
            faulty_proxy(proxy_url, share=1.0, faults=("503",)) as proxy,
            environment(STORAGE_EMULATOR_HOST=proxy.url, AWS_ENDPOINT_URL=proxy.url,
                        AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b",
                        AWS_DEFAULT_REGION="us-east-1"),
            pytest.raises(FramebankError, match="cannot read"),
        ):  # fmt: skip
            storage.read_bytes(f"{scheme}://clips/x")
    assert "trying again" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["gs://", "gs:///name", "s3:///name"])
def test_an_address_without_a_bucket_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="://BUCKET/NAME"):
        storage.read_bytes(path)
