"""Which process wrote something and whether it is gone, and processes that end with their parent.

As a program, `python processes.py PARENT COMMAND...`, it is COMMAND that ends with PARENT.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def this_process(pid: int | None = None) -> dict[str, Any]:
    """Return what tells a process from all others: machine, pid, and when it started."""
    pid = os.getpid() if pid is None else pid
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


def is_gone(process: Mapping[str, Any]) -> bool | None:
    """Tell whether what `this_process` described has ended; None where it ran elsewhere."""
    pid = process.get("pid")
    if process.get("machine") != _machine() or not isinstance(pid, int):
        return None
    return this_process(pid) != {name: process.get(name) for name in ("machine", "pid", "started")}


def _machine() -> str:
    """Return what tells this machine since its start, and its process numbers, from others."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):  # containers of one machine count for themselves
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; "" when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # a name may hold spaces and brackets
    return "" if fields[0] in "ZX" else fields[19]


def program(module: str, call: str) -> list[str]:
    """Return the command of a process that runs `call`, of `main` of a module of ours. Not by -m,
    which would look for modules in the current folder."""
    from framebank import HOME  # which this file, as a program, does not find

    code = f"import sys; sys.path[0] = {HOME!r}; from {module} import main; {call}"
    return [sys.executable, "-c", code]


def end_with_parent(parent: int, *, by: int = signal.SIGKILL) -> None:
    """Have the kernel end this process, and what it may become, with the process `parent`: when the
    *thread* that started this one ends (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:  # which ended before
            os._exit(1)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
