"""What the object stores do alike: addresses, reads by ranges, uploads that wait, errors, retries.

How long a service is waited for, and why: infra/decisions/0005.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, BinaryIO, cast

from framebank.features.errors import JobError, UsageError, VideoRejected
from framebank.features.stores.temporary import Spool
from framebank.features.terminal import say

# Scheme → what its addresses look like.
FORMS = {
    "gs": "gs://BUCKET/NAME",
    "s3": "s3://BUCKET/NAME",
    "az": "az://ACCOUNT/CONTAINER/NAME",
    "http": "http://HOST/PATH",
    "https": "https://HOST/PATH",
}
CHUNK_BYTES = 8 << 20  # of one request
_SPOOL_BYTES = 32 << 20  # an upload is held in memory up to here, then in a temporary file
_UPLOADS = 3  # of one object: an upload in parts may be forgotten by the service on its way
_READS = 20  # of an object that changes while it is read
CONNECT_TIMEOUT_S = 4.0
ANSWER_TIMEOUT_S = 60.0
FIRST_CONTACT_S = 3.5  # of refused or broken connections, before anything was ever answered
LIMIT_S = 180.0  # of one call, with all its retries
_SAY_AFTER_S = 10.0


class Answer(Exception):
    """A status that is no fault: 404, 409, 412 or 416."""

    def __init__(self, status: int) -> None:
        self.status = status


class Patience:
    """What one process knows of one service; safe to use from several threads."""

    def __init__(self) -> None:
        self.reached = False  # whether the service ever answered
        self._said_s = float("-inf")
        self._lock = threading.Lock()

    def retry(self, path: str, *, retryable: Callable[[Exception], bool]) -> Any:
        """Return what has one call about `path` tried again: a decorator of google.api_core."""
        from google.api_core.retry import Retry

        start_s = time.monotonic()

        def again(error: Exception) -> bool:
            if not retryable(error):
                return False
            waited_s = time.monotonic() - start_s
            if status_of(error):
                self.reached = True
            if not self.reached and waited_s > FIRST_CONTACT_S:
                return False
            self._say(path, error, waited_s)
            return True

        longest_s = 20.0 if self.reached else 1.0
        return Retry(predicate=again, initial=0.5, maximum=longest_s, timeout=LIMIT_S)

    def _say(self, path: str, error: Exception, waited_s: float) -> None:
        with self._lock:
            now_s = time.monotonic()
            if waited_s < _SAY_AFTER_S or now_s - self._said_s < _SAY_AFTER_S:
                return
            self._said_s = now_s
        say(
            f"{path}: no good answer for {waited_s:.0f} s ({first_line(error)[:120]}); "
            f"trying again until {LIMIT_S:.0f} s"
        )


@functools.cache
def patience_of(service: str) -> Patience:
    """Return this process's patience with a service, by its address."""
    return Patience()


def status_of(error: Exception) -> int:
    """Return the HTTP status that an error carries, 0 where nothing answered."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def split(path: str) -> tuple[str, str]:
    """Return (bucket, object name) of an address; the name may be empty."""
    bucket, _, name = path.partition("://")[2].partition("/")
    return bucket, name


def check_address(path: str) -> None:
    """Raise UsageError for an address without its bucket, container or host."""
    scheme, _, rest = path.partition("://")
    needed = FORMS[scheme].count("/") - 2
    if "" in [*rest.split("/"), ""][:needed]:
        raise UsageError("not the address of an object", got=path, expected=FORMS[scheme])


def first_line(err: BaseException) -> str:
    """Return what an error says, in one line that is not too long."""
    return (str(err).splitlines() or [type(err).__name__])[0][:300]


def no_bucket(path: str, doing: str) -> UsageError:
    """Return the error for a bucket that is not there."""
    return UsageError(f"cannot {doing} {path}", got="no such bucket", todo="check the name")


def is_listed(name: str, prefix: str, *, deep: bool) -> bool:
    """Tell whether an object is one of a listing, and no make-believe folder of the console's."""
    return not name.endswith("/") and (deep or "/" not in name[len(prefix) :])


class _RangeReader(io.RawIOBase):
    def __init__(self, size_bytes: int, read: Callable[[int, int], bytes]) -> None:
        self._size_bytes, self._read, self._place = size_bytes, read, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size_bytes}
        self._place = max(0, start[whence] + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size_bytes - self._place)
        if length <= 0:
            return 0
        data = self._read(self._place, length)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def open_ranges(size_bytes: int, read: Callable[[int, int], bytes]) -> BinaryIO:
    """Return a file with seeks that reads ahead: `read` gets bytes [start, start + length)."""
    return cast(BinaryIO, io.BufferedReader(_RangeReader(size_bytes, read), CHUNK_BYTES))


def copy(
    size_bytes: int,
    read: Callable[[int, int], bytes],
    target: BinaryIO,
    update: Callable[[bytes], object] = lambda data: None,
    *,
    start: int = 0,
) -> None:
    """Copy `size_bytes` of an object from `start` on to an open file by ranges, and hand the bytes
    to `update` as well."""
    end = start + size_bytes
    for place in range(start, end, CHUNK_BYTES):
        data = read(place, min(CHUNK_BYTES, end - place))
        update(data)
        view = memoryview(data)
        while view:
            view = view[target.write(view) :]


def changed(path: str) -> VideoRejected:
    """Return the error for a clip that is no longer what was listed."""
    text = f"{path} changed or went away while the job ran; the next run takes it again"
    return VideoRejected("open", "unreadable", text)


def check_listed(path: str, found: str | None, generation: str) -> None:
    """Raise VideoRejected for a clip that is gone, or is not of the generation that was listed."""
    if found is None:
        raise VideoRejected("open", "missing", f"{path} does not exist")
    if generation and found != generation:
        raise changed(path)


@contextlib.contextmanager
def downloading(path: str) -> Iterator[None]:
    """Tell what stands in the way of a download as what is wrong with the clip."""
    try:
        yield
    except Answer as answer:
        raise changed(path) from answer
    except UsageError as err:
        raise VideoRejected("open", "forbidden", f"{path}: {err.got}") from err


def check_sum(path: str, name: str, *, got: str, stated: str) -> None:
    """Raise VideoRejected for bytes that do not have the checksum that is stated of them."""
    if got != stated:
        text = f"{path}: the bytes that came have {name} {got}, not {stated}"
        raise VideoRejected("open", "unreadable", text)


@contextlib.contextmanager
def open_write(store: ModuleType, path: str, *, create_only: bool) -> Iterator[BinaryIO]:
    """Open for writing; raises FileExistsError when `create_only` and the object exists."""
    store.check_writing(path)
    with Spool(max_size=_SPOOL_BYTES) as spool:
        file = cast(BinaryIO, spool)
        yield file
        size_bytes = file.seek(0, os.SEEK_END)
        # Looked at first, since not every server that speaks a protocol heeds its conditions.
        if create_only and store.stat(path) is not None:
            raise FileExistsError(errno.EEXIST, "it exists", path)
        for left in reversed(range(_UPLOADS)):
            try:
                file.seek(0)
                store.upload(path, file, size_bytes, generation="" if create_only else None)
                return
            except Answer as answer:
                # An upload whose answer was lost is tried again, and then finds its own object in
                # the way, or finds that the service has forgotten the upload.
                if _holds(store, path, file, size_bytes):
                    return
                if answer.status != 404:
                    raise FileExistsError(errno.EEXIST, "it exists", path) from answer
                if not left:
                    raise no_bucket(path, "write") from answer


def _holds(store: ModuleType, path: str, file: BinaryIO, size_bytes: int) -> bool:
    """Return whether an object holds just the bytes of `file`."""
    file.seek(0)
    starts = range(0, size_bytes + 1, CHUNK_BYTES)  # and one byte more, which must not be there
    return all(store.read(path, start, CHUNK_BYTES) == file.read(CHUNK_BYTES) for start in starts)


def read_with_generation(store: ModuleType, path: str) -> tuple[bytes | None, str]:
    """Return (content, generation) of an object, (None, "") where there is none."""
    for _ in range(_READS):
        before = store.stat(path)
        if before is None:
            return None, ""
        data = store.read(path, 0, None)
        if data is not None and store.stat(path) == before:
            return data, before[1]
    raise JobError(f"{path} changes too quickly to be read", todo="run the same command again")


def replace_if(store: ModuleType, path: str, data: bytes, *, generation: str) -> bool:
    """Write an object over its `generation` ("": where there is none); False if it has another."""
    store.check_writing(path)
    found = store.stat(path)  # first, since not every server heeds the condition
    if (found[1] if found else "") == generation:
        try:
            store.upload(path, io.BytesIO(data), len(data), generation=generation)
        except Answer as answer:
            if answer.status == 404 and not generation:
                raise no_bucket(path, "write") from answer
        else:
            return True
    return bool(store.read(path, 0, None) == data)  # our own, whose answer was lost
