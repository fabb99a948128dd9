"""One run at a time in a place: a lock on a disk, a lease in a bucket.

A lease is a small object that its holder writes anew every few seconds; one that does not change
for `STALE_S`, or whose process is gone from this machine, is taken over. It is advisory: a holder
that was cut off for longer goes on and finds that out by its next renewal, so what must not be
written twice is created, and never written over. Why so: infra/decisions/0008.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from framebank.features.errors import FramebankError, UsageError
from framebank.features.processes import is_gone, this_process
from framebank.features.stores import disk, json_text, storage
from framebank.features.terminal import say

RENEW_S = 5.0
STALE_S = 30.0
_SETTLE_S = 0.3  # after which two who wrote at once see the same one of them
_POLL_S = 0.5

_HELD: set[_Lease] = set()


def held(place: str, *, what: str) -> contextlib.AbstractContextManager[None]:
    """Hold a folder on a disk or in a bucket; `what` is what is done there, in words.

    Raises UsageError where another process holds it.
    """
    return _locked(place, what) if storage.is_local(place) else _leased(place, what)


def lease_path(place: str) -> str:
    """Return where the lease on a place in a bucket lies."""
    return storage.join(place, "_lease.json")  # readers of datasets skip _ names


@contextlib.contextmanager
def _locked(folder: str, what: str) -> Iterator[None]:
    with storage.explained(folder, "open"):
        handle = os.open(storage.local_path(folder), os.O_RDONLY)
    try:
        if not disk.lock(handle, folder, wait=False):
            raise _refusal(what, None)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _leased(place: str, what: str) -> Iterator[None]:
    lease = _Lease(lease_path(place), what)
    lease.acquire()
    _HELD.add(lease)
    try:
        yield
    finally:
        lease.release()
        _HELD.discard(lease)


def _refusal(what: str, who: str | None) -> UsageError:
    todo = "wait until it ends, then run the same command again"
    return UsageError(f"another run is {what}", got=who, todo=todo)


def release_all() -> None:
    """Give up the leases of this process (for the way out)."""
    for lease in list(_HELD):
        with contextlib.suppress(FramebankError):
            lease.release()


class _Lease:
    def __init__(self, path: str, what: str) -> None:
        self._path, self._what = path, what
        self._token, self._beat, self._generation = secrets.token_hex(8), 0, storage.ABSENT
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease; waits to see whether one that is there is renewed."""
        while True:
            found, generation = storage.read_with_generation(self._path)
            if found is not None and not is_gone(_fields(found)):
                self._watch(_fields(found), generation)
            if self._write(generation):
                time.sleep(_SETTLE_S)
                if self._is_ours():
                    self._renewing.start()
                    return

    def release(self) -> None:
        """Give the lease up, where it is still this one's."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._renewing is not threading.current_thread():
            self._renewing.join(timeout=2 * RENEW_S)
        if self._is_ours():
            storage.delete(self._path)

    def _is_ours(self) -> bool:
        found, self._generation = storage.read_with_generation(self._path)
        return _fields(found).get("token") == self._token

    def _write(self, generation: str) -> bool:
        self._beat += 1
        fields = {
            "token": self._token,
            "beat": self._beat,
            "host": socket.gethostname(),
            **this_process(),
        }
        return storage.replace_if(self._path, json.dumps(fields).encode(), generation=generation)

    def _watch(self, holder: dict[str, Any], generation: str) -> None:
        """Return when the lease of `holder` is stale or gone; raises UsageError when it lives."""
        who = f"{holder.get('host')}, process {holder.get('pid')}"
        alive = False  # a process that is there may be a stopped one
        say(f"{self._path} names {who}: waiting up to {STALE_S:.0f} s to see if it lives")
        until = time.monotonic() + STALE_S
        while not alive and time.monotonic() < until:
            time.sleep(_POLL_S)
            now = storage.find(self._path)
            if now is None:
                return
            alive = now.generation != generation
        if alive:
            raise _refusal(self._what, who)
        say(f"the run of {who} is gone; taking over")

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(FramebankError):  # the service's trouble is told by others
                if self._write(self._generation):
                    found = storage.find(self._path)
                    self._generation = storage.ABSENT if found is None else found.generation
                elif not self._is_ours() and self._generation != storage.ABSENT:
                    say(
                        f"another run took over while this one could not be heard: both are "
                        f"{self._what} now; what the first of them commits holds"
                    )
                    return


def _fields(data: bytes | None) -> dict[str, Any]:
    """Return what a lease says, nothing where there is none or it is no lease."""
    try:
        return json_text.parse_object(data or b"")
    except ValueError:
        return {}
