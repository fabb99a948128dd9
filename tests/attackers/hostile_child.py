"""What somebody who took a decoder over would try; run as a decoder is, in a process of its own.

`main` shuts itself in and answers with one JSON line: what it says of itself, and for each attempt
"done" or the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from framebank.features.decoders import sandbox, seccomp
from framebank.features.decoders.child import read_jobs

_ABSENT = {"landlock": (444, 445, 446), "seccomp": (317, 277), "namespaces": (272, 97)}


def main(missing: str = "") -> None:
    """Answer one job; `missing` names, with commas, what this kernel is made not to have."""
    if missing:
        _take_away([name for name in missing.split(",") if name])
    held = sandbox.enter()
    for job, clip in read_jobs():
        found = {name: _outcome(attempt) for name, attempt in _attempts(job, clip).items()}
        print(json.dumps({"held": held.to_json(), "line": held.line(), "found": found}), flush=True)


def _take_away(names: list[str]) -> None:
    """Make this kernel one that has not these system calls, by a filter around ours."""
    assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
    column = 0 if os.uname().machine == "x86_64" else 1
    numbers = [_ABSENT[name][column % len(_ABSENT[name])] for name in names]
    if "landlock" in names:
        numbers += _ABSENT["landlock"]
    load, allow = b"\x20\0\0\0\0\0\0\0", b"\x06\0\0\0\0\0\xff\x7f"
    assert seccomp.install(b"".join([load, *seccomp.refusals(numbers, errno.ENOSYS), allow]))


def _outcome(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except Exception as error:  # noqa: BLE001 - told to the test
        return type(error).__name__
    return "done"


def _attempts(job: dict[str, Any], clip: int) -> dict[str, Callable[[], Any]]:
    parent, folder = os.getppid(), job["folder"]
    return {
        "read its clip": lambda: os.pread(clip, 1, 0)[0],
        "start a thread": lambda: threading.Thread(target=int).start(),
        "import a module late": lambda: __import__("xml.dom.minidom"),
        "use its own memory": lambda: bytearray(2**24),
        "connect": lambda: socket.create_connection(("127.0.0.1", job["port"]), timeout=5),
        "send a datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(
            b"x", ("127.0.0.1", job["port"])
        ),
        "connect by a file": lambda: socket.socket(socket.AF_UNIX).connect(f"{folder}/socket"),
        "listen": lambda: socket.create_server(("127.0.0.1", 0)),
        "ask the kernel by a socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "write a file": lambda: _write(f"{folder}/written"),
        "write over a file": lambda: _write(f"{folder}/there"),
        "write to its clip": lambda: os.pwrite(clip, b"x", 0),
        "write to its clip by name": lambda: _write(f"/proc/self/fd/{clip}"),
        "remove a file": lambda: os.unlink(f"{folder}/there"),
        "move a file": lambda: os.rename(f"{folder}/there", f"{folder}/moved"),
        "cut a file": lambda: os.truncate(f"{folder}/there", 0),
        "make a folder": lambda: os.mkdir(f"{folder}/made"),
        "open a file to all": lambda: os.chmod(f"{folder}/there", 0o777),
        "read a secret": lambda: _read(f"{folder}/there"),
        "read passwords": lambda: _read("/etc/passwd"),
        "list the home": lambda: os.listdir(os.path.dirname(folder)),
        "read the parent's environment": lambda: _read(f"/proc/{parent}/environ"),
        "read the parent's memory": lambda: _read(f"/proc/{parent}/mem"),
        "trace the parent": lambda: _call("ptrace", 16, parent, 0, 0),
        "signal the parent": lambda: os.kill(parent, 0),
        "stop the parent": lambda: signal.pidfd_send_signal(os.pidfd_open(parent), 0),
        "fork": _fork,
        "start a program": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        "become another user": lambda: os.setuid(12345),
        "make a world of its own": lambda: _call("unshare", 0x10000000),
        "keep a secret in memory": lambda: os.memfd_create("x"),
    }


def _write(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
