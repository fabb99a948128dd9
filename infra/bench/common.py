"""What several benches share: making things in a process of its own, and measuring another."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
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


def say(text: str) -> None:
    """Tell people how it goes, on stderr; results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def reason(error: Exception | SystemExit) -> str:
    """Return in one line why a program that `measure` ran failed: what Framebank told, or a
    peer's last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason"]
    told = [number for number, line in enumerate(lines) if line.startswith("framebank: ")]
    if told:
        return "; ".join(lines[told[-1] : told[-1] + 2])[:300]
    return lines[0][-200:] if len(lines) == 1 else f"{lines[0][-200:]} … {lines[-1][-200:]}"


def measure(
    words: list[str], *, environment: dict[str, str] | None = None, timeout_s: float = 0.0
) -> tuple[str, dict[str, float]]:
    """Run a process; return what it printed, its seconds, its seconds of a core, and its peak of
    memory in MiB. Raises SystemExit with what it said where it fails or, if `timeout_s` is given,
    takes longer."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *words],
            os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, said.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
            ],
            setpgroup=0,
        )
        clock = threading.Timer(timeout_s or threading.TIMEOUT_MAX, os.killpg, (pid, 9))
        clock.daemon = True
        clock.start()
        try:
            _, status, usage = os.wait4(pid, 0)
        except BaseException:  # Ctrl-C does not reach a group of its own
            os.killpg(pid, 9)
            raise
        finally:
            clock.cancel()
        seconds = time.monotonic() - started
        said.seek(0)
        errors.seek(0)
        text = said.read().decode()
        wrong = errors.read().decode(errors="replace")
    if status != 0:
        ended = os.waitstatus_to_exitcode(status)
        raise SystemExit(f"{words} ended with {ended} after {seconds:.0f} s:\n{text}{wrong}")
    spent = round(usage.ru_utime + usage.ru_stime, 1)
    figures = {"seconds": round(seconds, 1), "cpu_seconds": spent}
    return text, figures | {"mib": round(usage.ru_maxrss / 1024)}
