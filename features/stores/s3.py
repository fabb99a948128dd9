"""Objects in S3 and what speaks its protocol (s3://), by plain calls of boto3.

The same functions as `features/stores/gcs.py`. Credentials and endpoint come from where boto3 looks
(AWS_ENDPOINT_URL for a server of your own). An object's ETag tells its versions apart.

What S3 states of an object's bytes is a checksum of the whole or, when it was uploaded in parts,
one of the checksums of these ("composite", with -N at its end). Without either the ETag says it:
the MD5 of the bytes, or that of the MD5s of the parts, unless the object is encrypted with a key of
KMS or of the customer, or lies in a directory bucket.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, cast

import google_crc32c

from framebank.features.errors import FramebankError, JobError, UsageError
from framebank.features.stores import objects
from framebank.features.stores.objects import CHUNK_BYTES, Answer, split
from framebank.features.stores.tensorflow_files import HOW_TO_INSTALL, s3_endpoint

_ONE_PUT_BYTES = 64 << 20  # larger uploads go in parts
_BROKEN_READS = 6  # connections that may break within one body
_MD5_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")


class _Crc32:
    def __init__(self) -> None:
        self._sum = 0

    def update(self, data: Any, /) -> None:
        self._sum = zlib.crc32(data, self._sum)

    def digest(self) -> bytes:
        return self._sum.to_bytes(4, "big")


# Field of the answer → how it is made. CRC64NVME is left out: nothing here computes it quickly.
_ALGORITHMS: dict[str, Callable[[], Any]] = {
    "ChecksumCRC32C": google_crc32c.Checksum,
    "ChecksumCRC32": _Crc32,
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumSHA1": hashlib.sha1,
}


@functools.lru_cache(maxsize=1)
def _client_of(pid: int, endpoint: str | None) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as err:
        raise UsageError(
            "s3:// needs the package boto3",
            todo=f'pip install "framebank[s3]"; or, to train only: {HOW_TO_INSTALL}',
        ) from err
    config = Config(
        connect_timeout=objects.CONNECT_TIMEOUT_S,
        read_timeout=objects.ANSWER_TIMEOUT_S,
        retries={"max_attempts": 1, "mode": "standard"},  # `_call` tries again, and says so
    )
    return boto3.client("s3", config=config)


def _status(err: Exception) -> int:
    response = getattr(err, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _call(path: str, doing: str, method: str, **fields: Any) -> dict[str, Any]:
    """Call the service about an object or `Prefix`, again after 429, 5xx and broken connections.

    Raises Answer for 404, 409, 412 and 416, which the callers know what to make of.
    """
    client = _client_of(os.getpid(), s3_endpoint())
    patience = objects.patience_of(s3_endpoint() or "s3")
    from botocore import exceptions as boto
    from google.api_core import exceptions as api

    def retryable(err: Exception) -> bool:
        if isinstance(err, boto.ClientError):
            return _status(err) == 429 or _status(err) >= 500
        return isinstance(err, boto.HTTPClientError | boto.ConnectionError)

    bucket, name = split(path)
    where = {"Bucket": bucket} if "Prefix" in fields else {"Bucket": bucket, "Key": name}
    try:
        call = functools.partial(getattr(client, method), **where, **fields)
        answer = patience.retry(path, retryable=retryable)(call)()
        patience.reached = True
        return cast(dict[str, Any], answer)
    except boto.ClientError as err:
        patience.reached = True
        if _status(err) in (404, 409, 412, 416):
            raise Answer(_status(err)) from err
        raise _error(path, err, doing) from err
    # ValueError: an endpoint that is no address
    except (api.RetryError, boto.BotoCoreError, ValueError) as err:
        raise _error(path, getattr(err, "cause", None) or err, doing) from err


def _error(path: str, err: Exception, doing: str) -> FramebankError:
    from botocore import exceptions as boto

    got = objects.first_line(err)
    if isinstance(err, boto.NoCredentialsError | boto.PartialCredentialsError):
        todo = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return UsageError("no credentials for S3", got=got, todo=todo)
    if _status(err) in (400, 401, 403):
        todo = "grant this account to list, get, put and delete objects of the bucket"
        return UsageError(f"cannot {doing} {path}", got=got, todo=todo)
    todo = "check the network and AWS_ENDPOINT_URL, then run the command again"
    return JobError(f"cannot {doing} {path}", got=got, todo=todo)


def read(path: str, start: int, length: int | None) -> bytes | None:
    """Return bytes [start, start + length) of an object, None where there is no such object."""
    end = "" if length is None else start + length - 1
    part = {} if start == 0 and length is None else {"Range": f"bytes={start}-{end}"}
    try:
        return b"".join(_bodies(path, part))
    except Answer as answer:
        return b"" if answer.status == 416 else None


def _bodies(path: str, part: dict[str, str]) -> Iterator[bytes]:
    for attempt in range(_BROKEN_READS):
        answer = _call(path, "read", "get_object", **part)
        from botocore import exceptions as boto

        try:
            yield answer["Body"].read()
            return
        except (boto.HTTPClientError, boto.IncompleteReadError, boto.FlexibleChecksumError) as err:
            if attempt == _BROKEN_READS - 1:  # before that nothing was given out yet
                raise _error(path, err, "read") from err


def download(path: str, target: BinaryIO, *, generation: str) -> None:
    """Copy one version of an object to an open file, pinned to its ETag, and hold it against what
    the store states of its bytes."""
    with objects.downloading(path):
        about = _look(path, ChecksumMode="ENABLED")
        objects.check_listed(path, _etag(about) if about else None, generation)
        assert about is not None
        size_bytes, etag = int(about["ContentLength"]), about["ETag"]

        def get(start: int, length: int) -> bytes:
            part = {"Range": f"bytes={start}-{start + length - 1}", "IfMatch": etag}
            return b"".join(_bodies(path, part))

        stated = stated_checksum(about, bucket=split(path)[0])
        if stated is None:
            objects.copy(size_bytes, get, target)
            return
        for part_sizes in _part_sizes(path, size_bytes, stated):
            target.seek(0)
            found = copy_summed(stated, part_sizes, get, target)
            if found == stated.value:
                return
    objects.check_sum(path, stated.name, got=found.hex(), stated=stated.value.hex())


def copy_summed(
    stated: Stated, part_sizes: list[int], get: Callable[[int, int], bytes], target: BinaryIO
) -> bytes:
    """Copy an object to an open file, and return the checksum of what came as `stated` is made."""
    digests, start = [], 0
    for size_bytes in part_sizes:
        digest = stated.make()
        objects.copy(size_bytes, get, target, digest.update, start=start)
        digests.append(digest)
        start += size_bytes
    if stated.parts:
        digest = stated.make()
        digest.update(b"".join(part.digest() for part in digests))
    return cast(bytes, digest.digest())


def _part_sizes(path: str, size_bytes: int, stated: Stated) -> Iterator[list[int]]:
    """Yield what the sizes of an object's parts may be: all but the last like the first, as long as
    that fits, then those that the store states of each."""
    if not stated.parts:
        yield [size_bytes]
        return

    def size_of(number: int) -> int:
        # Not pinned, as some servers hold that against the part; what is read is.
        return int(_call(path, "look at", "head_object", PartNumber=number)["ContentLength"])

    guess = equal_parts(size_of(1), size_bytes=size_bytes, parts=stated.parts)
    if guess:
        yield guess
    exact = [size_of(number) for number in range(1, stated.parts)]
    exact.append(size_bytes - sum(exact))
    if exact != guess:
        yield exact


@dataclasses.dataclass(frozen=True)
class Stated:
    """A checksum that the store states: its `name`, its bytes, and of how many parts (0: whole)."""

    name: str
    make: Callable[[], Any]
    value: bytes
    parts: int


def stated_checksum(about: Mapping[str, Any], *, bucket: str) -> Stated | None:
    """Return what the answer to HEAD says of an object's bytes, None where that is nothing."""
    etag = _MD5_ETAG.fullmatch(str(about.get("ETag", "")).strip('"'))
    parts = int(etag[2] or 0) if etag else 0
    for field, make in _ALGORITHMS.items():
        value, _, number = (about.get(field) or "").partition("-")
        whole = not parts or about.get("ChecksumType") == "FULL_OBJECT"
        # Of parts, and the server does not say whether this is too: then the ETag has to do.
        if value and (number or whole or about.get("ChecksumType") == "COMPOSITE"):
            of_parts = int(number or (0 if whole else parts))
            name = field.removeprefix("Checksum")
            return Stated(name, make, base64.b64decode(value), of_parts)
    encrypted = about.get("ServerSideEncryption") not in (None, "", "AES256")
    if encrypted or about.get("SSECustomerAlgorithm") or bucket.endswith("--x-s3"):
        return None
    return None if etag is None else Stated("MD5", hashlib.md5, bytes.fromhex(etag[1]), parts)


def equal_parts(first_bytes: int, *, size_bytes: int, parts: int) -> list[int] | None:
    """Return the sizes of parts of which all but the last are like the first; None where that
    cannot be."""
    last_bytes = size_bytes - first_bytes * (parts - 1)
    return [first_bytes] * (parts - 1) + [last_bytes] if 0 < last_bytes <= first_bytes else None


def check_writing(path: str) -> None:
    """Raise UsageError where boto3 is missing, before anything is made."""
    _client_of(os.getpid(), s3_endpoint())


def upload(path: str, file: BinaryIO, size_bytes: int, *, generation: str | None) -> None:
    """Write an object whole, over its `generation` only ("": where none is); raises Answer."""
    condition = {} if generation is None else {"IfNoneMatch": "*"}
    if generation:
        condition = {"IfMatch": f'"{generation}"'}
    if size_bytes > _ONE_PUT_BYTES:
        _upload_parts(path, file, condition)
    else:
        _call(path, "write", "put_object", Body=file.read(), **condition)


def _upload_parts(path: str, file: BinaryIO, condition: dict[str, str]) -> None:
    """Upload in parts; nothing appears before all of them are there, and nothing stays behind."""
    upload = {"UploadId": _call(path, "write", "create_multipart_upload")["UploadId"]}
    parts: list[dict[str, Any]] = []
    try:
        while body := file.read(CHUNK_BYTES):
            number = len(parts) + 1
            fields = {"PartNumber": number, "Body": body, **upload}
            etag = _call(path, "write", "upload_part", **fields)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        whole = {"MultipartUpload": {"Parts": parts}, **upload, **condition}
        _call(path, "write", "complete_multipart_upload", **whole)
    except BaseException:
        with contextlib.suppress(FramebankError, Answer):
            _call(path, "write", "abort_multipart_upload", **upload)
        raise


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, ETag) of an object, None where there is none."""
    about = _look(path) if split(path)[1] else None
    return None if about is None else (int(about["ContentLength"]), _etag(about))


def _look(path: str, **fields: Any) -> dict[str, Any] | None:
    """Return the answer to HEAD, None where there is no object."""
    try:
        return _call(path, "look at", "head_object", **fields)
    except Answer:
        return None


def _etag(about: dict[str, Any]) -> str:
    return str(about["ETag"]).strip('"')


def list_objects(
    prefix: str, *, limit: int | None = None, deep: bool = True
) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, ETag) of the objects whose name starts with `prefix`, by name."""
    bucket, start = split(prefix)
    fields: dict[str, Any] = {"Prefix": start}
    if limit is not None:
        fields["MaxKeys"] = min(limit, 1000)
    while True:
        try:
            page = _call(prefix, "list", "list_objects_v2", **fields)
        except Answer as answer:
            raise objects.no_bucket(prefix, "list") from answer
        for item in page.get("Contents", ()):
            if objects.is_listed(item["Key"], start, deep=deep):
                yield f"s3://{bucket}/{item['Key']}", int(item["Size"]), _etag(item)
        if limit is not None or not page.get("IsTruncated"):
            return
        fields["ContinuationToken"] = page["NextContinuationToken"]


def delete(path: str) -> bool:
    """Delete one object; returns False where there was none."""
    if stat(path) is None:
        return False
    with contextlib.suppress(Answer):
        _call(path, "delete", "delete_object")
    return True
