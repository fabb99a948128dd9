"""Objects in S3 and what speaks its protocol (s3://), by plain calls of boto3.

The same functions as `features/stores/gcs.py`. Credentials and endpoint come from where boto3 looks
(AWS_ENDPOINT_URL for a server of your own). An object's ETag tells its versions apart. boto3 needs
the extra `s3`; Beam's own file systems are not used, since `inspect`, `train` and `ask` have no
Beam, and since they know no conditional writes.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from framebank.features.errors import FramebankError, JobError, UsageError, VideoRejected
from framebank.features.stores.retrying import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, patience_of
from framebank.features.stores.s3_checksums import Stated, Summed, equal_parts, stated_checksum
from framebank.features.stores.temporary import Spool
from framebank.features.stores.tensorflow_files import HOW_TO_INSTALL

_SPOOL_BYTES = 32 << 20  # an upload is held in memory up to here, then in a temporary file
_CHUNK_BYTES = 8 << 20
_ONE_PUT_BYTES = 64 << 20  # larger uploads go in parts
_BROKEN_READS = 6  # connections that may break within one body


def split(path: str) -> tuple[str, str]:
    """Return (bucket, object name) of s3://BUCKET/NAME; the name may be empty."""
    name, _, rest = path.removeprefix("s3://").partition("/")
    if not path.startswith("s3://") or not name:
        raise UsageError("not the address of an object", got=path, expected="s3://BUCKET/NAME")
    return name, rest


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
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=ANSWER_TIMEOUT_S,
        retries={"max_attempts": 1, "mode": "standard"},  # `_call` tries again, and says so
    )
    return boto3.client("s3", config=config)


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _status(err: Exception) -> int:
    response = getattr(err, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _call(path: str, doing: str, method: str, **fields: Any) -> dict[str, Any]:
    """Call the service, again after 429, 5xx and broken connections.

    Raises _Answer for 404, 409, 412 and 416, which the callers know what to make of.
    """
    client = _client_of(os.getpid(), _endpoint())
    patience = patience_of(_endpoint() or "s3")
    from botocore import exceptions as boto
    from google.api_core import exceptions as api
    from google.api_core import retry

    def retryable(err: Exception) -> bool:
        if isinstance(err, boto.ClientError):
            return _status(err) == 429 or _status(err) >= 500
        return isinstance(err, boto.HTTPClientError | boto.ConnectionError)

    try:
        judge = patience.attempt(path, retryable=retryable)
        pause_s = patience.longest_pause_s()
        again = retry.Retry(predicate=judge, initial=0.5, maximum=pause_s, timeout=patience.limit_s)
        answer = again(lambda: getattr(client, method)(**fields))()
        patience.reached()
        return cast(dict[str, Any], answer)
    except boto.ClientError as err:
        patience.reached()
        if _status(err) in (404, 409, 412, 416):
            raise _Answer(_status(err)) from err
        raise _error(path, err, doing) from err
    except api.RetryError as err:
        raise _error(path, err.cause if isinstance(err.cause, Exception) else err, doing) from err
    except (boto.BotoCoreError, ValueError) as err:  # ValueError: an endpoint that is no address
        raise _error(path, err, doing) from err


class _Answer(Exception):
    """A status that is no fault."""

    def __init__(self, status: int) -> None:
        self.status = status


def _error(path: str, err: Exception, doing: str) -> FramebankError:
    from botocore import exceptions as boto

    got = (str(err).splitlines() or [type(err).__name__])[0][:300]
    if isinstance(err, boto.NoCredentialsError | boto.PartialCredentialsError):
        todo = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return UsageError("no credentials for S3", got=got, todo=todo)
    if _status(err) in (400, 401, 403):
        todo = "grant this account to list, get, put and delete objects of the bucket"
        return UsageError(f"cannot {doing} {path}", got=got, todo=todo)
    todo = "check the network and AWS_ENDPOINT_URL, then run the command again"
    return JobError(f"cannot {doing} {path}", got=got, todo=todo)


def _no_bucket(path: str, doing: str) -> UsageError:
    return UsageError(f"cannot {doing} {path}", got="no such bucket", todo="check the name")


def read(path: str, start: int, length: int | None) -> bytes | None:
    """Return bytes [start, start + length) of an object, None where there is no such object."""
    bucket, name = split(path)
    if length == 0:
        return None if stat(path) is None else b""
    end = "" if length is None else start + length - 1
    part = {} if start == 0 and length is None else {"Range": f"bytes={start}-{end}"}
    try:
        return b"".join(_bodies(path, bucket, name, part))
    except _Answer as answer:
        if answer.status == 416:
            return b""
        return None


def _bodies(path: str, bucket: str, name: str, part: dict[str, str]) -> Iterator[bytes]:
    for attempt in range(_BROKEN_READS):
        answer = _call(path, "read", "get_object", Bucket=bucket, Key=name, **part)
        from botocore import exceptions as boto

        try:
            yield answer["Body"].read()
            return
        except (boto.HTTPClientError, boto.IncompleteReadError, boto.FlexibleChecksumError) as err:
            if attempt == _BROKEN_READS - 1:  # before that nothing was given out yet
                raise _error(path, err, "read") from err


def download(path: str, target: BinaryIO, *, generation: str) -> None:
    """Copy one version of an object to an open file, pinned to its ETag, and hold it against what
    the store states of its bytes (`s3_checksums`).

    Raises VideoRejected "missing" for an object that is gone, "forbidden" for one that this account
    may not read, "unreadable" for one that changed or whose bytes do not have its checksum;
    JobError where the service does not answer.
    """
    bucket, name = split(path)
    try:
        try:
            about = _call(
                path, "look at", "head_object", Bucket=bucket, Key=name, ChecksumMode="ENABLED"
            )
        except _Answer as answer:
            raise VideoRejected("open", "missing", f"{path} does not exist") from answer
        if generation and str(about["ETag"]).strip('"') != generation:
            raise _changed(path)
        stated = stated_checksum(about, bucket=bucket)
        sizes = _part_sizes(path, about, stated, guess=True)
        got = _copy(path, about, stated, sizes, target)
        if stated and got != stated.value and stated.parts:
            exact = _part_sizes(path, about, stated, guess=False)
            if exact != sizes:  # parts of several sizes: once more
                target.seek(0)
                got = _copy(path, about, stated, exact, target)
    except _Answer as answer:
        raise _changed(path) from answer
    except UsageError as err:
        raise VideoRejected("open", "forbidden", f"{path}: {err.got}") from err
    if stated and got != stated.value:
        text = (
            f"{path}: the bytes that came have {stated.name} {got.hex()}, not {stated.value.hex()}"
        )
        raise VideoRejected("open", "unreadable", text)


def _copy(
    path: str,
    about: dict[str, Any],
    stated: Stated | None,
    part_sizes: Sequence[int],
    target: BinaryIO,
) -> bytes:
    """Copy an object by ranges of it; return their checksum, b"" where none is stated."""
    bucket, name = split(path)
    size_bytes, summed = int(about["ContentLength"]), None
    if stated is not None:
        summed = Summed(stated, part_sizes)
    for start in range(0, size_bytes, _CHUNK_BYTES):
        end = min(start + _CHUNK_BYTES, size_bytes) - 1
        part = {"Range": f"bytes={start}-{end}", "IfMatch": about["ETag"]}
        for body in _bodies(path, bucket, name, part):
            if summed is not None:
                summed.update(memoryview(body))
            view = memoryview(body)
            while view:
                view = view[target.write(view) :]
    return b"" if summed is None else summed.value()


def _part_sizes(
    path: str, about: dict[str, Any], stated: Stated | None, *, guess: bool
) -> list[int]:
    """Return the sizes of an object's parts: asked for one by one, or, as a `guess`, like the first
    as long as that fits."""
    if stated is None or not stated.parts:
        return []
    bucket, name = split(path)

    def size_of(number: int) -> int:
        # Not pinned, as some servers hold that against the part; what is read is.
        one = {"Bucket": bucket, "Key": name, "PartNumber": number}
        return int(_call(path, "look at", "head_object", **one)["ContentLength"])

    size_bytes = int(about["ContentLength"])
    if guess and (sizes := equal_parts(size_of(1), size_bytes=size_bytes, parts=stated.parts)):
        return sizes
    return [size_of(number) for number in range(1, stated.parts + 1)]


def _changed(path: str) -> VideoRejected:
    text = f"{path} changed or went away while the job ran; the next run takes it afresh"
    return VideoRejected("open", "unreadable", text)


@contextlib.contextmanager
def open_write(path: str, *, create_only: bool) -> Iterator[BinaryIO]:
    """Open for writing; one upload to the final name when the block ends without error.

    Raises FileExistsError when `create_only` and the object exists.
    """
    bucket, name = split(path)
    with Spool(max_size=_SPOOL_BYTES) as spool:
        yield cast(BinaryIO, spool)
        size_bytes = spool.tell()
        spool.seek(0)
        condition = {"IfNoneMatch": "*"} if create_only else {}
        try:
            if size_bytes > _ONE_PUT_BYTES:
                _upload_parts(path, cast(BinaryIO, spool), condition)
            else:
                body = spool.read()
                _call(path, "write", "put_object", Bucket=bucket, Key=name, Body=body, **condition)
        except _Answer as answer:
            if answer.status == 404:
                raise _no_bucket(path, "write") from answer
            if not _is_ours(path, cast(BinaryIO, spool), size_bytes):
                raise FileExistsError(path) from answer


def _is_ours(path: str, spool: BinaryIO, size_bytes: int) -> bool:
    """Return whether the object in the way holds just these bytes: our own, its answer lost."""
    found = stat(path)
    if found is None or found[0] != size_bytes:
        return False
    spool.seek(0)
    return all(
        read(path, start, _CHUNK_BYTES) == spool.read(_CHUNK_BYTES)
        for start in range(0, size_bytes, _CHUNK_BYTES)
    )


def _upload_parts(path: str, spool: BinaryIO, condition: dict[str, str]) -> None:
    """Upload in parts; nothing appears before all of them are there, and nothing stays behind."""
    bucket, name = split(path)
    where = {"Bucket": bucket, "Key": name}
    upload = {
        **where,
        "UploadId": _call(path, "write", "create_multipart_upload", **where)["UploadId"],
    }
    parts: list[dict[str, Any]] = []
    try:
        while body := spool.read(_CHUNK_BYTES):
            number = len(parts) + 1
            fields = {"PartNumber": number, "Body": body, **upload}
            etag = _call(path, "write", "upload_part", **fields)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        whole = {"MultipartUpload": {"Parts": parts}, **upload, **condition}
        _call(path, "write", "complete_multipart_upload", **whole)
    except BaseException:
        with contextlib.suppress(FramebankError, _Answer):
            _call(path, "write", "abort_multipart_upload", **upload)
        raise


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, ETag) of an object, None where there is none."""
    bucket, name = split(path)
    if not name:
        return None
    try:
        about = _call(path, "look at", "head_object", Bucket=bucket, Key=name)
    except _Answer:
        return None
    return int(about["ContentLength"]), str(about["ETag"]).strip('"')


def list_objects(prefix: str, *, limit: int | None = None) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, ETag) of each object whose name starts with `prefix`, by name.

    Page by page: a million of them never sit in one list.
    """
    bucket, start = split(prefix)
    fields: dict[str, Any] = {"Bucket": bucket, "Prefix": start}
    if limit is not None:
        fields["MaxKeys"] = min(limit, 1000)
    while True:
        try:
            page = _call(prefix, "list", "list_objects_v2", **fields)
        except _Answer as answer:
            raise _no_bucket(prefix, "list") from answer
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):  # the console's make-believe folders
                etag = str(item["ETag"]).strip('"')
                yield f"s3://{bucket}/{item['Key']}", int(item["Size"]), etag
        if limit is not None or not page.get("IsTruncated"):
            return
        fields["ContinuationToken"] = page["NextContinuationToken"]


def delete(path: str) -> bool:
    """Delete one object; returns False where there was none."""
    bucket, name = split(path)
    if stat(path) is None:
        return False
    with contextlib.suppress(_Answer):
        _call(path, "delete", "delete_object", Bucket=bucket, Key=name)
    return True


def replace_if(path: str, data: bytes, *, generation: str) -> bool:
    """Write an object over its `generation` ("": where there is none); False if it has another."""
    bucket, name = split(path)
    condition = {"IfMatch": f'"{generation}"'} if generation else {"IfNoneMatch": "*"}
    try:
        _call(path, "write", "put_object", Bucket=bucket, Key=name, Body=data, **condition)
    except _Answer:  # also 404: deleted since
        return read(path, 0, None) == data  # our own, whose answer was lost
    return True
