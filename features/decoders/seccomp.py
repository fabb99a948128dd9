"""A filter on system calls (seccomp): what is refused, by kind, and all newer calls.

See seccomp(2), infra/decisions/0009. Numbers: x86_64 and arm64 (the kernel's asm-generic table).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

# Name → its numbers on x86_64 and on arm64; None where there is no such call.
_Numbers = dict[str, tuple[int | None, int | None]]
_NETWORK: _Numbers = {
    "socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "connect": (42, 203),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "setsockopt": (54, 208),
}  # fmt: skip
_PROCESSES: _Numbers = {
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "setns": (308, 268), "unshare": (272, 97), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "tkill": (200, 130),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "shmget": (29, 194),
    "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip
_FILES: _Numbers = {
    "creat": (85, None), "truncate": (76, 45), "fallocate": (285, 47), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "unlink": (87, None), "unlinkat": (263, 35),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "mknod": (133, None),
    "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None), "fchown": (93, 55),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88),
    "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "swapon": (167, 224),
    "swapoff": (168, 225), "quotactl": (179, 60), "quotactl_fd": (443, 443), "acct": (163, 89),
    "fanotify_init": (300, 262),
}  # fmt: skip
_KERNEL: _Numbers = {
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "iopl": (172, None), "ioperm": (173, None), "personality": (135, 92), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
# A libc that meets ENOSYS here falls back to clone and openat, whose arguments can be looked at.
_ABSENT: _Numbers = {"clone3": (435, 435), "openat2": (437, 437)}
_NEWEST = 462  # mseal; numbers from 424 on are those of every machine

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
_SECCOMP = (317, 277)
_OPEN, _OPENAT = (2, None), (257, 56)
_CLONE, _IOCTL, _PRLIMIT64 = (56, 220), (16, 29), (302, 261)
_SIGNALS = ((62, 129), (234, 131), (129, 138), (297, 240))  # kill, tgkill, rt_(tg)sigqueueinfo
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
_CLONE_THREAD = 0x10000
_TIOCSTI = 0x5412  # types into a terminal

_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06  # linux/bpf_common.h
_NUMBER, _MACHINE = 0, 4  # places in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_MODE_FILTER, _GET_ACTION_AVAIL, _ALL_THREADS = 1, 2, 1
_X32 = 0x3FFFFFFF  # numbers above are those of another ABI of x86_64


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def available() -> bool:
    """Tell whether this kernel filters calls, and this module knows the numbers of the machine."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return False
    call = (_SECCOMP[_column()], _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(_ERRNO)))
    return bool(ctypes.CDLL(None).syscall(*call) == 0)


def install(code: bytes) -> bool:
    """Give this process, all its threads, one more filter; tell whether the kernel took it.

    It needs no privilege but `no_new_privs`, which must be set before.
    """
    program = ctypes.byref(_Program(len(code) // 8, code))
    call = (_SECCOMP[_column()], _SET_MODE_FILTER, _ALL_THREADS, program)
    return bool(ctypes.CDLL(None).syscall(*call) == 0)


def filter_code(own_pid: int) -> bytes:
    """Return the program that judges each call; `own_pid` may be sent signals."""
    column, machine = _MACHINES[platform.machine()]
    code = [_do(_LOAD, _MACHINE), _if(_EQUAL, machine, 1, 0), _refuse(errno.EPERM)]
    code += [_do(_LOAD, _NUMBER)]
    code += [_if(_ABOVE, _X32, 0, 1), _refuse(errno.ENOSYS)]
    code += [_if(_ABOVE, _NEWEST, 0, 1), _refuse(errno.ENOSYS)]
    code += refusals([numbers[column] for numbers in _ABSENT.values()], errno.ENOSYS)
    for kind in (_NETWORK, _PROCESSES, _FILES, _KERNEL):
        code += refusals([numbers[column] for numbers in kind.values()], errno.EPERM)
    code += _when(_OPEN[column], 1, [_if(_ANY_BIT, _WRITING, 0, 1), _refuse(errno.EACCES)])
    code += _when(_OPENAT[column], 2, [_if(_ANY_BIT, _WRITING, 0, 1), _refuse(errno.EACCES)])
    code += _when(_CLONE[column], 0, [_if(_ANY_BIT, _CLONE_THREAD, 1, 0), _refuse(errno.EPERM)])
    code += _when(_IOCTL[column], 1, [_if(_EQUAL, _TIOCSTI, 0, 1), _refuse(errno.EPERM)])
    own = [_if(_EQUAL, own_pid, 1, 0), _refuse(errno.EPERM)]
    for numbers in _SIGNALS:
        code += _when(numbers[column], 0, own)
    code += _when(_PRLIMIT64[column], 0, [_if(_EQUAL, 0, 2, 0), *own])
    return b"".join([*code, _do(_RETURN, _ALLOW)])


def refusals(numbers: Sequence[int | None], error: int) -> list[bytes]:
    """Return instructions that end these calls with `error`, with the call's number loaded."""
    code = []
    for number in numbers:
        if number is not None:
            code += [_if(_EQUAL, number, 0, 1), _refuse(error)]
    return code


def _column() -> int:
    return _MACHINES[platform.machine()][0]


def _when(number: int | None, argument: int, judge: list[bytes]) -> list[bytes]:
    """Return instructions that `judge` one call by the low half of one argument, else allow it."""
    if number is None:
        return []
    body = [_do(_LOAD, 16 + 8 * argument), *judge, _do(_RETURN, _ALLOW)]
    return [_if(_EQUAL, number, 0, len(body)), *body]


def _do(operation: int, value: int) -> bytes:
    return struct.pack("<HBBI", operation, 0, 0, value)


def _if(test: int, value: int, skip_if: int, skip_else: int) -> bytes:
    """Compare what is loaded, and skip so many of the instructions that follow."""
    return struct.pack("<HBBI", test, skip_if, skip_else, value & 0xFFFFFFFF)


def _refuse(error: int) -> bytes:
    return _do(_RETURN, _ERRNO | error)
