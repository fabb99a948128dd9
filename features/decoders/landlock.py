"""Files and TCP ports out of reach of this process, by the kernel's Landlock.

It needs no privilege: a process gives up rights for itself, for good. What it may still read is
named by folder; everything else that the running kernel's version of Landlock knows is refused.

See landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_WANT_VERSION = 1
_PATH_BENEATH = 1
# Rights on files, by the version of Landlock that knows them.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TCP_RIGHTS = 0b11  # bind and connect, version 4
_SCOPES = 0b11  # abstract sockets and signals of other processes, version 6
TRUNCATE_VERSION = 3  # before it truncate(2) is not refused


def version() -> int:
    """Return the version of the kernel's Landlock, 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _WANT_VERSION)))


def restrict(readable: Iterable[str]) -> int:
    """Leave this process only the reading of these folders and files; return Landlock's version.

    0 where the kernel does not do it. `no_new_privs` must be set before; threads that run already
    are not restricted.
    """
    known = version()
    if not known:
        return 0
    libc = ctypes.CDLL(None)
    rights = sum(right for since, right in _FILE_RIGHTS.items() if since <= known)
    fields = [rights]
    if known >= 4:
        fields.append(_TCP_RIGHTS)
    if known >= 6:
        fields.append(_SCOPES)
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return 0
    try:
        for path in readable:
            _allow_reading(libc, ruleset, path)
        return known if libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    with contextlib.suppress(OSError):  # what is not there needs no right
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            rule = struct.pack("<Qi", _READ_FILE | (_READ_DIR if folder else 0), descriptor)
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)
