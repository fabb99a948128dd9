"""What a process that reads strangers' bytes gives up before it reads the first of them.

Privileges, the network, files and other processes, each by what the kernel has; where it has
less, `Confinement` says what does not hold: infra/decisions/0009.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator

from framebank.features.decoders import seccomp
from framebank.features.processes import program
from framebank.features.stores import json_text

# All that a child may know of this process's environment: how to find Python and libraries, how to
# write text, and the mark by which tests find the processes of a job.
ENVIRONMENT = (
    "PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
    "FRAMEBANK_TEST_MARK",
)  # fmt: skip
# One thread each: memory and cores are shared out by process.
_OWN_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_LOOK_S = 20.0
STDERR_BYTES = 2**20  # what it may write to a file that it was given: its last words
_OPEN_FILES = 64
_MORE_TASKS = 16  # of this user, where only a number can be held
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47  # linux/prctl.h
_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES = 64
_CAPABILITY_VERSION = 0x20080522
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/urandom")
# linux/landlock.h; the calls have these numbers on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WANT_VERSION = 1
_PATH_BENEATH = 1
# Rights on files, by the version of Landlock that knows them.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TCP_RIGHTS = 0b11  # bind and connect, version 4
_SCOPES = 0b11  # abstract sockets and signals of other processes, version 6
_TRUNCATE_VERSION = 3  # before it truncate(2) is not refused


@dataclasses.dataclass(frozen=True)
class Confinement:
    """What is out of reach of a process; `by` names what of the kernel holds it."""

    network: bool = False
    writing: bool = False
    reading: bool = False  # of files other than the clip, Python and libraries
    processes: bool = False  # starting, signalling, looking into others
    privileges: bool = False
    by: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[str, ...]:
        """Return in words what does not hold."""
        words = {
            "network": "reach the network",
            "writing": "write files",
            "reading": "read other files of this account",
            "processes": "start processes",
            "privileges": "keep privileges",
        }
        return tuple(text for name, text in words.items() if not getattr(self, name))

    def line(self) -> str:
        by = f" ({', '.join(self.by)})" if self.by else ""
        if not self.gaps:
            return (
                "decoders reach no network, write no file, read none but their clip, start no "
                f"process, and have no privileges{by}"
            )
        return f"decoders are NOT fully confined here: they can {', '.join(self.gaps)}{by}"

    @classmethod
    def from_json(cls, text: bytes) -> Confinement:
        """Return what a child said of itself; raises ValueError, TypeError, KeyError."""
        fields = json_text.parse_object(text)
        return cls(**fields | {"by": tuple(map(str, fields["by"]))})

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)


def enter() -> Confinement:
    """Give up what a decoder does not need, for good; return what holds.

    To be called while this process has one thread, with its modules imported.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lower_limit(resource.RLIMIT_FSIZE, STDERR_BYTES)
    lower_limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if sys.platform != "linux":
        return Confinement()
    alone = len(os.listdir("/proc/self/task")) == 1
    libc = ctypes.CDLL(None)
    no_gain = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    filters = no_gain and seccomp.available()
    # An empty network of one's own, where users may make one.
    spaces = (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET)
    namespace = not filters and any(libc.unshare(flags) == 0 for flags in spaces)
    if not filters:
        lower_limit(resource.RLIMIT_NPROC, _tasks_of_user() + _MORE_TASKS)
    dropped = _drop_capabilities(libc)
    version = _restrict_reading() if no_gain and alone else 0
    filtered = filters and seccomp.install(seccomp.filter_code(os.getpid()))
    by = [f"landlock {version}"] * bool(version) + ["seccomp"] * filtered
    return Confinement(
        network=filtered or namespace,
        writing=filtered or version >= _TRUNCATE_VERSION,
        reading=bool(version),
        processes=filtered,
        privileges=no_gain and dropped,
        by=tuple(by + ["network namespace"] * namespace),
    )


def main() -> None:
    """Enter, and print what holds as JSON (for the process that asks)."""
    print(json.dumps(enter().to_json()))


def lower_limit(limit: int, value: int) -> None:
    """Set a limit of this process (`resource.RLIMIT_…`) to `value` where it is not below."""
    _, most = resource.getrlimit(limit)
    bound = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(limit, (bound, bound))


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Take every capability from this process and from all that it could start."""
    for number in range(_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused to those who have none
    libc.prctl(_PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    return bool(libc.capset(header, none) == 0)


def _tasks_of_user() -> int:
    user, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _readable() -> Iterator[str]:
    """Yield what this process still has to read: the packages that it has loaded, and libraries.

    Modules are imported late here and there, and libc loads a library when a thread ends.
    """
    yield os.path.dirname(os.__file__)  # the standard library
    yield from (*_LIBRARIES, *_DEVICES)
    for name, module in list(sys.modules.items()):
        for path in getattr(module, "__path__", ()) if "." not in name else ():
            yield path
            yield f"{path}.libs"  # where wheels keep theirs
    yield from filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    yield f"{sys.base_prefix}/lib"


def landlock_version() -> int:
    """Return the version of the kernel's Landlock (landlock(7)), 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _WANT_VERSION)))


def _restrict_reading() -> int:
    """Leave this process only the reading of `_readable` files; return Landlock's version.

    0 where the kernel does not do it. `no_new_privs` must be set before; threads that run already
    are not restricted.
    """
    known = landlock_version()
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
        for path in _readable():
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


def child_environment() -> dict[str, str]:
    """Return the environment of a process that reads strangers' bytes."""
    known = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return known | _OWN_ENVIRONMENT


def confinement_here() -> Confinement:
    """Return what a child of this process cannot do on this machine, as one that was asked says."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, subprocess.SubprocessError):
        asked = subprocess.run(
            program(__name__, "main()"),
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LOOK_S,
            check=True,
        )
        return Confinement.from_json(asked.stdout)
    return Confinement()
