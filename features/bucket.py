"""Objects in Google Cloud Storage (gs://), by plain calls of google-cloud-storage.

STORAGE_EMULATOR_HOST points the client at an emulator, then without credentials. The client is
made on first use and once per process, since a connection does not survive a fork.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from features.errors import FramebankError, JobError, UsageError

_SPOOL_BYTES = 32 << 20  # an upload is held in memory up to here, then in a temporary file
_READ_CHUNK_BYTES = 8 << 20  # a whole number of 256 KiB, as the service asks


def split(path: str) -> tuple[str, str]:
    """Return (bucket, object name) of gs://BUCKET/NAME; the name may be empty."""
    name, _, rest = path.removeprefix("gs://").partition("/")
    if not path.startswith("gs://") or not name:
        raise UsageError("not the address of an object", got=path, expected="gs://BUCKET/NAME")
    return name, rest


@functools.lru_cache(maxsize=1)
def _client_of(pid: int, emulator: str | None) -> Any:
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


def _error(path: str, err: Exception, doing: str) -> FramebankError:
    """Return what to raise for a failure of the service that is not 'not found'."""
    code = getattr(err, "code", None)
    lines = str(err).splitlines()
    got = (lines[0] if lines else type(err).__name__)[:300]
    if code in (401, 403):
        todo = "grant this account the role Storage Object User on the bucket"
        return UsageError(f"cannot {doing} {path}", got=got, todo=todo)
    if code == 404:
        return UsageError(f"cannot {doing} {path}", got="no such bucket", todo="check the name")
    return JobError(
        f"cannot {doing} {path}", got=got, todo="check the network, then run the command again"
    )


@contextlib.contextmanager
def _explained(path: str, doing: str) -> Iterator[None]:
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    try:
        yield
    except (api.NotFound, api.PreconditionFailed, api.RequestRangeNotSatisfiable):
        raise
    except (api.GoogleAPIError, auth.GoogleAuthError, requests.RequestException) as err:
        raise _error(path, err, doing) from err


def read(path: str, start: int, length: int | None) -> bytes | None:
    """Return bytes [start, start + length) of an object, None where there is no such object."""
    client = _client()
    from google.api_core import exceptions as api

    bucket, name = split(path)
    if length == 0:
        return None if stat(path) is None else b""
    end = None if length is None else start + length - 1
    blob = client.bucket(bucket).blob(name)
    try:
        with _explained(path, "read"):
            whole = start == 0 and end is None
            data = (
                blob.download_as_bytes() if whole else blob.download_as_bytes(start=start, end=end)
            )
    except api.NotFound:
        return None
    except api.RequestRangeNotSatisfiable:
        return b""
    return cast(bytes, data)


@contextlib.contextmanager
def open_read(path: str) -> Iterator[BinaryIO]:
    """Open an object for reading in chunks; it must exist."""
    client = _client()
    from google.api_core import exceptions as api

    bucket, name = split(path)
    blob = client.bucket(bucket).blob(name)
    try:
        with _explained(path, "read"), blob.open("rb", chunk_size=_READ_CHUNK_BYTES) as stream:
            yield cast(BinaryIO, stream)
    except api.NotFound as err:
        raise JobError(f"cannot read {path}", got="it was deleted while it was read") from err


@contextlib.contextmanager
def open_write(path: str, *, create_only: bool) -> Iterator[BinaryIO]:
    """Open for writing; one upload to the final name when the block ends without error.

    Raises FileExistsError when `create_only` and the object exists.
    """
    client = _client()
    from google.api_core import exceptions as api

    bucket, name = split(path)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        yield cast(BinaryIO, spool)
        size = spool.tell()
        try:
            with _explained(path, "write"):
                client.bucket(bucket).blob(name).upload_from_file(
                    spool,
                    rewind=True,
                    size=size,
                    content_type="application/octet-stream",
                    checksum="crc32c",
                    if_generation_match=0 if create_only else None,
                )
        except api.PreconditionFailed as err:
            raise FileExistsError(path) from err
        except api.NotFound as err:
            raise _error(path, err, "write") from err


def stat(path: str) -> tuple[int, str] | None:
    """Return (size_bytes, generation) of an object, None where there is none."""
    bucket, name = split(path)
    if not name:
        return None
    with _explained(path, "look at"):
        blob = _client().bucket(bucket).get_blob(name)
    return None if blob is None else (int(blob.size), str(blob.generation))


def list_objects(prefix: str, *, limit: int | None = None) -> Iterator[tuple[str, int, str]]:
    """Yield (path, size_bytes, generation) of each object whose name starts with `prefix`."""
    client = _client()
    from google.api_core import exceptions as api

    bucket, start = split(prefix)
    fields = "items(name,size,generation),nextPageToken"
    try:
        with _explained(prefix, "list"):
            for blob in client.list_blobs(bucket, prefix=start, max_results=limit, fields=fields):
                if not blob.name.endswith("/"):  # the console's make-believe folders
                    yield f"gs://{bucket}/{blob.name}", int(blob.size), str(blob.generation)
    except api.NotFound as err:
        raise _error(prefix, err, "list") from err


def delete(path: str) -> bool:
    """Delete one object; returns False where there was none."""
    client = _client()
    from google.api_core import exceptions as api

    bucket, name = split(path)
    try:
        with _explained(path, "delete"):
            client.bucket(bucket).blob(name).delete()
    except api.NotFound:
        return False
    return True
