"""What several benches share: making things in a process of its own, and measuring another."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def made_spec(*, frames: int) -> Any:
    """Return the spec of a cache that no network has made, of `frames` frames a clip."""
    from framebank.features.spec import FeatureSpec

    return FeatureSpec(
        "inception_v3", "avg_pool", "random:0", "0" * 64, 299, "stretch", "x/127.5-1",
        f"uniform={frames}", None, "float32", "float16",
    )  # fmt: skip


def make_apart(make: Callable[..., None], *args: object) -> None:
    """Call `make` in a process of its own: a child's peak of memory starts at its parent's."""
    making = multiprocessing.get_context("spawn").Process(target=make, args=args)
    making.start()
    making.join()
    if making.exitcode != 0:
        raise SystemExit("nothing was made")


def spread(values: list[float], *, digits: int = 2) -> dict[str, float]:
    """Return median, least and most."""
    parts = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in parts.items()}


def measure(
    words: list[str], *, environment: dict[str, str] | None = None
) -> tuple[str, dict[str, float]]:
    """Run a process; return what it printed, its seconds and its peak of memory in MiB."""
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *words],
            os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
            file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), 1)],
        )
        _, status, usage = os.wait4(pid, 0)
        seconds = time.monotonic() - started
        said.seek(0)
        text = said.read().decode()
    if status != 0:
        raise SystemExit(f"{words} ended with {os.waitstatus_to_exitcode(status)}: {text}")
    spent = round(usage.ru_utime + usage.ru_stime, 1)
    figures = {"seconds": round(seconds, 1), "cpu_seconds": spent}
    return text, figures | {"mib": round(usage.ru_maxrss / 1024)}
