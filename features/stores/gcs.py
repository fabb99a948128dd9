"""Objects in Google Cloud Storage (gs://), by plain calls of google-cloud-storage.

STORAGE_EMULATOR_HOST points the client at an emulator, then without credentials. The client is made
once per process, since a connection does not survive a fork. Retries: infra/decisions/0005.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import google_crc32c

from framebank.features.errors import FramebankError, JobError, UsageError, needing
from framebank.features.stores import objects
from framebank.features.stores.objects import Answer, split

_TIMEOUT = (objects.CONNECT_TIMEOUT_S, objects.ANSWER_TIMEOUT_S)


@functools.lru_cache(maxsize=1)
def _client_of(pid: int, emulator: str | None) -> Any:
    # Without credentials the libraries ask whether this is a machine of Google's, three times for
    # three seconds each; one second is plenty where it is one.
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "2")
    with needing("gs://", extra="gcp"):
        from google.auth import exceptions
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client
    if emulator:
        return Client(project="emulator", credentials=AnonymousCredentials())
    try:
        return Client()
    except (exceptions.GoogleAuthError, OSError) as err:
        raise UsageError(
            "no credentials for Google Cloud Storage",
            got=str(err).splitlines()[0],
            todo="run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key",
        ) from err


def _client() -> Any:
    return _client_of(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST"))


def _blob(path: str, **fields: Any) -> Any:
    bucket, name = split(path)
    return _client().bucket(bucket).blob(name, **fields)


def _error(path: str, err: Exception, doing: str) -> FramebankError:
    """Return what to raise for a failure of the service that is not 'not found'."""
    from google.api_core import exceptions as api

    if isinstance(err, api.RetryError) and isinstance(err.cause, Exception):
        err = err.cause
    code, got = objects.status_of(err), objects.first_line(err)
    if code in (401, 403):
        todo = "grant this account the role Storage Object User on the bucket"
        return UsageError(f"cannot {doing} {path}", got=got, todo=todo)
    if code == 404:
        return objects.no_bucket(path, doing)
    where = os.environ.get("STORAGE_EMULATOR_HOST")
    asked = f" (STORAGE_EMULATOR_HOST={where})" if where else ""
    todo = "check the network, then run the command again"
    return JobError(f"cannot {doing} {path}{asked}", got=got, todo=todo)


@contextlib.contextmanager
def _asking(path: str, doing: str) -> Iterator[dict[str, Any]]:
    """Yield how long the library is to wait and to try again for what is asked in the block.

    What the service answers is told as Answer, UsageError, JobError.
    """
    _client()  # first, since it says which package is missing
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from google.cloud.storage.retry import DEFAULT_RETRY

    patience = objects.patience_of(os.environ.get("STORAGE_EMULATOR_HOST", "gs"))
    try:
        retry = patience.retry(path, retryable=DEFAULT_RETRY._predicate)
        yield {"timeout": _TIMEOUT, "retry": retry}
        patience.reached = True
    except (api.NotFound, api.PreconditionFailed, api.RequestRangeNotSatisfiable) as err:
        patience.reached = True
        raise Answer(int(err.code)) from err
    except (
        api.GoogleAPIError,
        auth.GoogleAuthError,
        requests.RequestException,
        InvalidResponse,
        DataCorruption,
        ConnectionError,
    ) as err:
        raise _error(path, err, doing) from err


def _look(path: str) -> Any:
    """Return the library's object with all that the service states of it, None for no object."""
    bucket, name = split(path)
    with _asking(path, "look at") as how:
        return _client().bucket(bucket).get_blob(name, **how)


def read(path: str, start: int, length: int | None) -> bytes | None:
    """Return bytes [start, start + length) of an object, None where there is no such object."""
    end = None if length is None else start + length - 1
    try:
        return _get(path, start=start or None, end=end)
    except Answer as answer:
        return b"" if answer.status == 416 else None


def _get(path: str, **fields: Any) -> bytes:
    with _asking(path, "read") as how:
        get = how["retry"](_blob(path).download_as_bytes)
        return cast(bytes, get(**fields, timeout=_TIMEOUT, retry=None))


def download(path: str, target: BinaryIO, *, generation: str) -> None:
    """Copy one generation of an object to an open file, and hold it against its checksum."""
    _client()  # no credentials at all are no fault of the clip
    summed = google_crc32c.Checksum()
    with objects.downloading(path):
        about = _look(path)
        objects.check_listed(path, about and str(about.generation), generation)
        # The bytes as they are stored, whatever their encoding, of just this generation.
        fields = {
            "if_generation_match": about.generation, "raw_download": True, "checksum": None
        }  # fmt: skip

        def get(start: int, length: int) -> bytes:
            return _get(path, start=start, end=start + length - 1, **fields)

        objects.copy(int(about.size), get, target, summed.update)
    if about.crc32c:
        got = base64.b64encode(summed.digest()).decode()
        objects.check_sum(path, "crc32c", got=got, stated=about.crc32c)


def check_writing(path: str) -> None:
    """Raise UsageError where there are no credentials, before anything is made."""
    _client()


def upload(path: str, file: BinaryIO, size_bytes: int, *, generation: str | None) -> None:
    """Write an object whole, over its `generation` only ("": where none is); raises Answer."""
    with _asking(path, "write") as how:
        _blob(path, chunk_size=objects.CHUNK_BYTES).upload_from_file(
            file,
            rewind=True,
            size=size_bytes,
            if_generation_match=None if generation is None else int(generation or 0),
            content_type="application/octet-stream",
            checksum="crc32c",
            **how,
        )


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, generation) of an object, None where there is none."""
    about = _look(path) if split(path)[1] else None
    return None if about is None else (int(about.size), str(about.generation))


def list_objects(
    prefix: str, *, limit: int | None = None, deep: bool = True
) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, generation) of the objects whose name starts with `prefix`."""
    bucket, start = split(prefix)
    try:
        with _asking(prefix, "list") as how:
            found = _client().list_blobs(
                bucket,
                prefix=start,
                max_results=limit,
                fields="items(name,size,generation),nextPageToken",
                **how,
            )
            for blob in found:
                if objects.is_listed(blob.name, start, deep=deep):
                    yield f"gs://{bucket}/{blob.name}", int(blob.size), str(blob.generation)
    except Answer as answer:
        raise objects.no_bucket(prefix, "list") from answer


def delete(path: str) -> bool:
    """Delete one object; returns False where there was none."""
    try:
        with _asking(path, "delete") as how:
            _blob(path).delete(**how)
    except Answer:
        return False
    return True
