"""How many cores and how much memory this process may use, and what each part gets of them.

A worker holds the network, decoder processes and the features of the clips in hand. Each gets a
share, lest the kernel end the worker for the sake of one clip; a clip that asks for more than its
share is `too_large` before it is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_PROCESSOR_LINES = (
    *("vendor_id", "cpu family", "model", "stepping", "flags"),  # x86
    *("CPU implementer", "CPU variant", "CPU part", "Features"),  # Arm
)
# What Linux calls multiplying in bfloat16, and where oneDNN emulates it.
_BFLOAT16, _EMULATES_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16"), ("avx512f",)
# The worker without clips: 1.0 GiB with inception_v3, 2.4 GiB with vgg16, the largest, in float32
# and batches of 32; what comes on top grows with the batch.
_WORKER_BYTES = 5 * 2**28
# What each further network in the same worker adds, with its batch in the computing.
_FURTHER_NETWORK_BYTES = 2**29
_BATCH_BYTES = 40 * 2**20  # a frame of a batch on its way through the network
# A decoder takes 0.2 GiB of address space without a clip; 4K in H.264 or HEVC needs 0.4 more.
LEAST_DECODER_BYTES = 3 * 2**28
MOST_DECODER_BYTES = 6 * 2**30
# With less address space TensorFlow ends by a signal, without a word (1.7 GiB no, 2.4 GiB yes).
_LEAST_ADDRESSES = 9 * 2**28
# Beside those of the clips that decode: one whose rows wait for the last batch, and the record of
# the one that is written: as stored, encoded, and in its frame.
_MORE_CLIPS = 4


def usable_cores(*, quota: bool = True) -> int:
    """Return how many cores, 1 at least, this process's affinity and its container allow it;
    without `quota` what its affinity does, as libraries count."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    share = _container_quota(_CGROUP) if quota else None
    return cores if share is None else max(1, min(cores, math.ceil(share)))


def _container_quota(root: Path) -> float | None:
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # none, or "max"
        return None
    return share if share > 0 else None


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """Return what Linux says of the first processor's kind and its instructions; "" elsewhere."""
    with contextlib.suppress(OSError):
        lines = cpuinfo.read_text().partition("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(_PROCESSOR_LINES))
    return ""


def has_bfloat16(described: str | None = None) -> bool:
    """Return whether this machine's processors multiply in bfloat16; of no other system but Linux
    it is known."""
    return _has(processor() if described is None else described, *_BFLOAT16)


def computes_bfloat16(described: str | None = None) -> bool:
    """Return whether TensorFlow may compute a network in bfloat16 here: on processors that neither
    have it nor are seen to emulate it well a picture's values go by its place in the batch."""
    told = processor() if described is None else described
    return not told or _has(told, *_BFLOAT16, *_EMULATES_BFLOAT16)


def _has(described: str, *instructions: str) -> bool:
    return not set(described.split()).isdisjoint(instructions)


def check_address_space() -> None:
    """Raise MemoryError where the process is bounded to less than TensorFlow can start in."""
    bound, _ = resource.getrlimit(resource.RLIMIT_AS)
    if bound != resource.RLIM_INFINITY and bound < _LEAST_ADDRESSES:
        raise MemoryError(f"bounded to {bound / 2**30:.1f} GiB (ulimit -v)")


@dataclasses.dataclass(frozen=True)
class Shares:
    """What a worker of `decoders` decoder processes may take, in bytes."""

    decoders: int
    decoder_bytes: int  # the address space of one
    clip_bytes: int  # the features of one clip in hand, in float32
    network_bytes: int = 0  # the worker without clips
    memory_bytes: int = 0  # what there is for all

    @property
    def total_bytes(self) -> int:
        """Return what all parts take when each takes all that it may."""
        clips = (self.decoders + _MORE_CLIPS) * self.clip_bytes
        return self.network_bytes + self.decoders * self.decoder_bytes + clips


def share_memory(decoders: int | None = None, *, batch_size: int = 32, networks: int = 1) -> Shares:
    """Deal out the memory of this machine; `decoders` None: one a core, and fewer where they would
    have less than a decoder needs. `batch_size`: of the largest batch of all `networks`."""
    memory_bytes = usable_memory_bytes()
    network = _WORKER_BYTES + batch_size * _BATCH_BYTES
    network += (networks - 1) * _FURTHER_NETWORK_BYTES
    left = max(memory_bytes - network, memory_bytes // 4)
    clips, decoding = left // 3, left - left // 3
    count = decoders or max(1, min(usable_cores(), decoding // LEAST_DECODER_BYTES))
    each = min(MOST_DECODER_BYTES, max(LEAST_DECODER_BYTES, decoding // count))
    return Shares(count, each, clips // (count + _MORE_CLIPS), network, memory_bytes)


def usable_memory_bytes(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Return the least of the machine's memory and the limits of the groups that we are in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limit_files(cgroup, membership):
        with contextlib.suppress(OSError, ValueError):  # none there, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def _limit_files(cgroup: Path, membership: Path) -> Iterator[Path]:
    """Yield where a limit may stand: of our own group and of all above it, version 2 and 1."""
    lines = ["0::/", "1:memory:/"]  # a container may see its own group as the root alone
    with contextlib.suppress(OSError):
        lines += membership.read_text().splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, name = cgroup / "memory", "memory.limit_in_bytes"
        elif not controllers:
            root, name = cgroup, "memory.max"
        else:
            continue
        folder = Path(group)
        for part in (folder, *folder.parents):
            yield root / str(part).lstrip("/") / name
