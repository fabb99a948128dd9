"""Downloads from S3 are held against what the store states, in every form of it: on moto."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import google_crc32c
import pytest

from framebank.features.errors import VideoRejected
from framebank.features.stores import objects, s3, storage
from tests.servers.bucket_servers import BUCKET, environment, serve

MIB = 1 << 20
DATA = bytes(range(256)) * (13 * MIB // 256)  # two parts of 5 MiB and a rest; two ranges


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    boto3 = pytest.importorskip("boto3")
    with (
        serve("moto", tmp_path_factory.mktemp("moto")) as server,
        environment(**server.environment),
    ):
        yield boto3.client("s3")


def upload(client: Any, key: str, sizes: list[int], **fields: Any) -> None:
    """Upload DATA in parts of these sizes."""
    where = {"Bucket": BUCKET, "Key": key}
    where["UploadId"] = client.create_multipart_upload(**where, **fields)["UploadId"]
    parts, start = [], 0
    for number, size in enumerate(sizes, start=1):
        body = DATA[start : start + size]
        answer = client.upload_part(**where, PartNumber=number, Body=body, **fields)
        sums = {name: text for name, text in answer.items() if name.startswith("Checksum")}
        parts.append({"PartNumber": number, "ETag": answer["ETag"], **sums})
        start += size
    assert start == len(DATA)
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


def put(client: Any, key: str, **fields: Any) -> None:
    client.put_object(Bucket=BUCKET, Key=key, Body=DATA, **fields)


CRC32C = base64.b64encode(google_crc32c.Checksum(DATA).digest()).decode()
FORMS = {
    "whole": lambda client, key: put(client, key),
    "CRC32C": lambda client, key: put(client, key, ChecksumCRC32C=CRC32C),
    "SHA256": lambda client, key: put(client, key, ChecksumAlgorithm="SHA256"),
    "SHA1": lambda client, key: put(client, key, ChecksumAlgorithm="SHA1"),
    "parts": lambda client, key: upload(client, key, [5 * MIB, 5 * MIB, 3 * MIB]),
    "uneven": lambda client, key: upload(client, key, [6 * MIB, 5 * MIB, 2 * MIB]),
    "composite": lambda client, key: upload(
        client, key, [5 * MIB, 5 * MIB, 3 * MIB], ChecksumAlgorithm="SHA256"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_right_bytes_pass_and_wrong_ones_do_not(
    client: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FORMS[form](client, form)
    path, copy = f"s3://{BUCKET}/{form}", io.BytesIO()
    found = storage.find(path)
    assert found is not None
    storage.download(path, copy, generation=found.generation)
    assert copy.getvalue() == DATA

    def flipped(*args: Any) -> Iterator[bytes]:
        for body in bodies(*args):
            yield body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]

    bodies = s3._bodies
    monkeypatch.setattr(s3, "_bodies", flipped)  # a line that changes a bit and keeps the length
    with pytest.raises(VideoRejected, match="the bytes that came have") as rejected:
        storage.download(path, io.BytesIO(), generation=found.generation)
    assert rejected.value.error_class == "unreadable"


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"ChecksumSHA1": "AAAA-3"}, ("SHA1", 3)),
        ({"ChecksumSHA1": "AAAA", "ChecksumType": "COMPOSITE"}, ("SHA1", 2)),
        ({"ChecksumCRC32": "AAAA", "ChecksumType": "FULL_OBJECT"}, ("CRC32", 0)),
        ({"ChecksumCRC32": "AAAA"}, ("MD5", 2)),  # of the parts or of the whole? moto says neither
        ({"ChecksumCRC64NVME": "AAAA"}, ("MD5", 2)),
    ],
)
def test_a_checksum_of_parts_is_told_from_one_of_the_whole(
    about: dict[str, str], told: tuple[str, int]
) -> None:
    stated = s3.stated_checksum(about | {"ETag": f'"{"0" * 32}-2"'}, bucket="b")
    assert stated is not None and (stated.name, stated.parts) == told


def test_what_states_nothing_of_the_bytes_is_not_taken_for_a_checksum() -> None:
    etag = {"ETag": '"' + "0" * 32 + '"'}
    assert s3.stated_checksum(etag, bucket="b") is not None
    for about, bucket in (
        (etag | {"ServerSideEncryption": "aws:kms"}, "b"),
        (etag | {"SSECustomerAlgorithm": "AES256"}, "b"),
        (etag, "name--usw2-az1--x-s3"),
        ({"ETag": '"0x8D"'}, "b"),
        ({}, "b"),
    ):
        assert s3.stated_checksum(about, bucket=bucket) is None


def test_the_sum_does_not_depend_on_how_the_bytes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(250)) * 40
    sizes = [3000, 3000, 4000]
    parts = [data[:3000], data[3000:6000], data[6000:]]
    right = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).digest()
    stated = s3.Stated("MD5", hashlib.md5, right, 3)
    for step in (1, 7, 3000, 4096, 10_000):
        monkeypatch.setattr(objects, "CHUNK_BYTES", step)
        copy = io.BytesIO()
        summed = s3.copy_summed(stated, sizes, lambda at, length: data[at : at + length], copy)
        assert summed == right and copy.getvalue() == data, step
    assert s3.equal_parts(5, size_bytes=12, parts=3) == [5, 5, 2]
    assert s3.equal_parts(5, size_bytes=16, parts=3) is None
