"""Dataflow's machines and the accelerators that they take."""

from __future__ import annotations

import re
from typing import NamedTuple

from framebank.features.errors import UsageError

MACHINE = "n1-standard-4"
_ACCELERATOR = re.compile(r"([a-z][-a-z0-9]*)(?::([1-9][0-9]*))?")


class Gpu(NamedTuple):
    machines: tuple[str, ...]  # the families that take it
    machine: str  # unless the user says another


# https://cloud.google.com/compute/docs/gpus
GPUS = {
    "nvidia-tesla-t4": Gpu(("n1-",), "n1-standard-4"),
    "nvidia-tesla-p4": Gpu(("n1-",), "n1-standard-4"),
    "nvidia-tesla-p100": Gpu(("n1-",), "n1-standard-4"),
    "nvidia-tesla-v100": Gpu(("n1-",), "n1-standard-8"),
    "nvidia-l4": Gpu(("g2-",), "g2-standard-4"),
    "nvidia-tesla-a100": Gpu(("a2-highgpu-",), "a2-highgpu-1g"),
    "nvidia-a100-80gb": Gpu(("a2-ultragpu-",), "a2-ultragpu-1g"),
}


def parse_accelerator(text: str) -> tuple[str, int]:
    match = _ACCELERATOR.fullmatch(text)
    if match is None or match[1] not in GPUS:
        raise UsageError(
            "--accelerator is not right", got=text, expected=f"TYPE[:COUNT] of {', '.join(GPUS)}"
        )
    return match[1], int(match[2] or 1)


def gpu_text(kind: str, count: int) -> str:
    return f"type:{kind};count:{count};install-nvidia-driver"
