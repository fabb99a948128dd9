"""Objects in Google Cloud Storage (gs://), by plain calls of google-cloud-storage.

STORAGE_EMULATOR_HOST points the client at an emulator, then without credentials. The client is
made on first use and once per process, since a connection does not survive a fork. Every call is
tried again after 429, 5xx and broken connections (`features/stores/retrying.py` says for how long);
each of them may be repeated without harm, as an object's content follows from its name.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import google_crc32c

from framebank.features.errors import FramebankError, JobError, UsageError, VideoRejected
from framebank.features.stores.retrying import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Patience,
    patience_of,
)
from framebank.features.stores.temporary import Spool

_SPOOL_BYTES = 32 << 20  # an upload is held in memory up to here, then in a temporary file
_CHUNK_BYTES = 8 << 20  # a whole number of 256 KiB, as the service asks
_UPLOADS = 3  # of one object: an upload in parts may be forgotten by the service on its way
_TIMEOUT = (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)


def split(path: str) -> tuple[str, str]:
    """Return (bucket, object name) of gs://BUCKET/NAME; the name may be empty."""
    name, _, rest = path.removeprefix("gs://").partition("/")
    if not path.startswith("gs://") or not name:
        raise UsageError("not the address of an object", got=path, expected="gs://BUCKET/NAME")
    return name, rest


@functools.lru_cache(maxsize=1)
def _client_of(pid: int, emulator: str | None) -> Any:
    # Without credentials the libraries ask whether this is a machine of Google's, three times for
    # three seconds each; one second is plenty where it is one.
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "2")
    try:
        from google.auth import exceptions
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage
    except ImportError as err:
        raise UsageError(
            "gs:// needs the package google-cloud-storage", todo='pip install "framebank[gcp]"'
        ) from err
    if emulator:
        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    try:
        return storage.Client()
    except (exceptions.GoogleAuthError, OSError) as err:
        raise UsageError(
            "no credentials for Google Cloud Storage",
            got=str(err).splitlines()[0],
            todo="run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key",
        ) from err


def _client() -> Any:
    return _client_of(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST"))


def _patience() -> Patience:
    return patience_of(os.environ.get("STORAGE_EMULATOR_HOST", "gs"))


def _retry(path: str) -> Any:
    """Return the library's retry with our patience."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    patience = _patience()
    judge = patience.attempt(path, retryable=DEFAULT_RETRY._predicate)
    patient = DEFAULT_RETRY.with_predicate(judge).with_timeout(patience.limit_s)
    return patient.with_delay(initial=0.5, maximum=patience.longest_pause_s(), multiplier=2.0)


def _error(path: str, err: Exception, doing: str) -> FramebankError:
    """Return what to raise for a failure of the service that is not 'not found'."""
    from google.api_core import exceptions as api

    if isinstance(err, api.RetryError) and isinstance(err.cause, Exception):
        err = err.cause
    code = getattr(err, "code", None) or getattr(getattr(err, "response", None), "status_code", 0)
    lines = str(err).splitlines()
    got = (lines[0] if lines else type(err).__name__)[:300]
    if code in (401, 403):
        todo = "grant this account the role Storage Object User on the bucket"
        return UsageError(f"cannot {doing} {path}", got=got, todo=todo)
    if code == 404:
        return UsageError(f"cannot {doing} {path}", got="no such bucket", todo="check the name")
    where = os.environ.get("STORAGE_EMULATOR_HOST")
    asked = f" (STORAGE_EMULATOR_HOST={where})" if where else ""
    return JobError(
        f"cannot {doing} {path}{asked}",
        got=got,
        todo="check the network, then run the command again",
    )


@contextlib.contextmanager
def _explained(path: str, doing: str) -> Iterator[None]:
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
        _patience().reached()
    except (api.NotFound, api.PreconditionFailed, api.RequestRangeNotSatisfiable):
        _patience().reached()
        raise
    except (
        api.GoogleAPIError,
        auth.GoogleAuthError,
        requests.RequestException,
        InvalidResponse,
        DataCorruption,
        ConnectionError,
    ) as err:
        raise _error(path, err, doing) from err


def read(path: str, start: int, length: int | None) -> bytes | None:
    """Return bytes [start, start + length) of an object, None where there is no such object."""
    bucket, name = split(path)
    client = _client()
    from google.api_core import exceptions as api

    if length == 0:
        return None if stat(path) is None else b""
    end = None if length is None else start + length - 1
    part = {} if start == 0 and end is None else {"start": start, "end": end}
    blob = client.bucket(bucket).blob(name)
    try:
        with _explained(path, "read"):
            data = _retry(path)(blob.download_as_bytes)(**part, timeout=_TIMEOUT, retry=None)
    except api.NotFound:
        return None
    except api.RequestRangeNotSatisfiable:
        return b""
    return cast(bytes, data)


def download(path: str, target: BinaryIO, *, generation: str) -> None:
    """Copy one generation of an object to an open file, and hold it against its checksum.

    Raises VideoRejected "missing" for an object that is gone, "forbidden" for one that this account
    may not read, "unreadable" for one that changed or whose bytes do not have its checksum;
    JobError where the service does not answer.
    """
    bucket, name = split(path)
    client = _client()
    from google.api_core import exceptions as api

    summed = _Summed(target)
    try:
        with _explained(path, "read"):
            blob = client.bucket(bucket).get_blob(name, timeout=_TIMEOUT, retry=_retry(path))
            if blob is None:
                raise VideoRejected("open", "missing", f"{path} does not exist")
            if generation and str(blob.generation) != generation:
                raise _changed(path)
            # Not by `blob`: a link that a server states may lead elsewhere than to that server.
            _retry(path)(summed.restart_and)(
                client.bucket(bucket).blob(name).download_to_file,
                if_generation_match=blob.generation,
                raw_download=True,  # the bytes as they are stored, whatever their encoding
                checksum=None,
                timeout=_TIMEOUT,
                retry=_retry(path),
            )
    except (api.NotFound, api.PreconditionFailed) as err:
        raise _changed(path) from err
    except UsageError as err:
        raise VideoRejected("open", "forbidden", f"{path}: {err.got}") from err
    if blob.crc32c and summed.crc32c() != blob.crc32c:
        text = f"{path}: the bytes that came have crc32c {summed.crc32c()}, not {blob.crc32c}"
        raise VideoRejected("open", "unreadable", text)


def _changed(path: str) -> VideoRejected:
    text = f"{path} changed or went away while the job ran; the next run takes it afresh"
    return VideoRejected("open", "unreadable", text)


class _Summed:
    """A file to write to that sums what goes through; a retry that starts again seeks to 0."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sum = file, google_crc32c.Checksum()

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._sum.update(data)
        return len(data)

    def restart_and(self, download: Callable[..., object], **fields: Any) -> None:
        """Begin afresh and have `download` write here."""
        self.seek(0)
        download(self, **fields)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = self._file.seek(offset, whence)
        if place == 0:
            self._file.truncate()
            self._sum = google_crc32c.Checksum()
        return place

    def flush(self) -> None:
        self._file.flush()

    def crc32c(self) -> str:
        return base64.b64encode(self._sum.digest()).decode()


@contextlib.contextmanager
def open_write(path: str, *, create_only: bool) -> Iterator[BinaryIO]:
    """Open for writing; one upload to the final name when the block ends without error.

    Raises FileExistsError when `create_only` and the object exists.
    """
    _client()
    from google.api_core import exceptions as api

    with Spool(max_size=_SPOOL_BYTES) as spool:
        yield cast(BinaryIO, spool)
        for left in reversed(range(_UPLOADS)):
            try:
                _upload(path, cast(BinaryIO, spool), create_only=create_only)
                return
            except (api.PreconditionFailed, api.NotFound) as err:
                if _is_ours(path, cast(BinaryIO, spool)):
                    return
                if isinstance(err, api.PreconditionFailed):
                    raise FileExistsError(path) from err
                if not left:
                    raise _error(path, err, "write") from err


def _upload(path: str, spool: BinaryIO, *, create_only: bool) -> None:
    bucket, name = split(path)
    spool.seek(0, os.SEEK_END)
    with _explained(path, "write"):
        _client().bucket(bucket).blob(name, chunk_size=_CHUNK_BYTES).upload_from_file(
            spool,
            rewind=True,
            size=spool.tell(),
            content_type="application/octet-stream",
            checksum="crc32c",
            if_generation_match=0 if create_only else None,
            timeout=_TIMEOUT,
            retry=_retry(path),
        )


def _is_ours(path: str, spool: BinaryIO) -> bool:
    """Return whether there is an object that holds just these bytes.

    An upload whose answer was lost is tried again, and then finds its own object in the way, or
    finds that the service has forgotten the upload.
    """
    bucket, name = split(path)
    with _explained(path, "look at"):
        blob = _client().bucket(bucket).get_blob(name, timeout=_TIMEOUT, retry=_retry(path))
    if blob is None or int(blob.size) != spool.seek(0, os.SEEK_END) or not blob.crc32c:
        return False
    summed = google_crc32c.Checksum()
    spool.seek(0)
    while chunk := spool.read(_CHUNK_BYTES):
        summed.update(chunk)
    return base64.b64encode(summed.digest()).decode() == blob.crc32c


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, generation) of an object, None where there is none."""
    bucket, name = split(path)
    if not name:
        return None
    with _explained(path, "look at"):
        blob = _client().bucket(bucket).get_blob(name, timeout=_TIMEOUT, retry=_retry(path))
    return None if blob is None else (int(blob.size), str(blob.generation))


def list_objects(prefix: str, *, limit: int | None = None) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, generation) of each object whose name starts with `prefix`.

    By name, page by page: a million of them never sit in one list.
    """
    bucket, start = split(prefix)
    client = _client()
    from google.api_core import exceptions as api

    found = client.list_blobs(
        bucket,
        prefix=start,
        max_results=limit,
        fields="items(name,size,generation),nextPageToken",
        timeout=_TIMEOUT,
        retry=_retry(prefix),
    )
    try:
        with _explained(prefix, "list"):
            for blob in found:
                if not blob.name.endswith("/"):  # the console's make-believe folders
                    yield f"gs://{bucket}/{blob.name}", int(blob.size), str(blob.generation)
    except api.NotFound as err:
        raise _error(prefix, err, "list") from err


def delete(path: str) -> bool:
    """Delete one object; returns False where there was none."""
    bucket, name = split(path)
    client = _client()
    from google.api_core import exceptions as api

    try:
        with _explained(path, "delete"):
            client.bucket(bucket).blob(name).delete(timeout=_TIMEOUT, retry=_retry(path))
    except api.NotFound:
        return False
    return True


def replace_if(path: str, data: bytes, *, generation: str) -> bool:
    """Write an object over its `generation` ("": where there is none); False if it has another."""
    bucket, name = split(path)
    client = _client()
    from google.api_core import exceptions as api

    try:
        with _explained(path, "write"):
            client.bucket(bucket).blob(name).upload_from_string(
                data,
                content_type="application/octet-stream",
                checksum="crc32c",
                if_generation_match=int(generation or 0),
                timeout=_TIMEOUT,
                retry=_retry(path),
            )
    except api.PreconditionFailed:
        return read(path, 0, None) == data  # our own, whose answer was lost
    except api.NotFound as err:
        raise _error(path, err, "write") from err
    return True
