"""Install what the benches compare with into the environment that runs this; `make bench` calls it.

    .venv-bench/bin/python infra/bench/install_peers.py [NAME ...]

Each peer is installed by itself, beside the project and without changing a version that the project
has there. One that does not install is no reason to stop: peers.json, in the environment's folder,
has why, and the benches print it. Takes minutes, most of them for torch (5 GB with its CUDA).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

LEDGER = Path(sys.prefix) / "peers.json"
_PACKAGES = Path(sysconfig.get_path("purelib"))
_LINKS = Path(sys.prefix) / "ffmpeg"
# Where TorchCodec, which brings no FFmpeg, finds PyAV's: in both, since the libraries need others.
FFMPEG = [str(_LINKS), str(_PACKAGES / "av.libs")]
PEERS = {
    "ray": ["ray[data]"],
    "daft": ["daft"],
    "jax": ["jax"],
    "torchcodec": ["torch", "torchcodec"],
    "clip-video-encode": ["clip-video-encode"],
    "video2dataset": ["video2dataset"],
}
TIMEOUT_S = 1800


def pip(*words: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


def versions() -> dict[str, str]:
    listed = json.loads(pip("list", "--format", "json").stdout)
    return {row["name"].lower(): row["version"] for row in listed}


def install(packages: list[str], constraints: Path) -> str:
    """Install the packages; return "" or, in one line, why that did not work."""
    words = ["install", "--no-cache-dir", "--constraint", str(constraints), *packages]
    try:
        done = pip(*words)
    except subprocess.TimeoutExpired:
        return f"not installed in {TIMEOUT_S} s"
    if done.returncode == 0:
        return ""
    _, _, conflict = done.stdout.partition("The conflict is caused by:")
    lines = [line.strip() for line in conflict.splitlines() if "depends on" in line]
    lines += [line for line in conflict.splitlines() if "(constraint)" in line]
    reasons = lines or [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (
        "; ".join(one.strip() for one in reasons[:3])[:400] or f"pip ended with {done.returncode}"
    )


def link_ffmpeg() -> None:
    """Give the libraries of PyAV's FFmpeg the names that others load them by."""
    _LINKS.mkdir(exist_ok=True)
    for path in (_PACKAGES / "av.libs").glob("lib*"):
        if named := re.fullmatch(r"(lib(?:av|sw)\w+)-\w+(\.so\.\d+)[.\d]*", path.name):
            link = _LINKS / f"{named[1]}{named[2]}"
            link.unlink(missing_ok=True)
            link.symlink_to(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or list(PEERS)
    if sys.prefix == sys.base_prefix:
        raise SystemExit("run this in an environment of its own, as `make bench` does")
    ledger: dict[str, Any] = json.loads(LEDGER.read_text()) if LEDGER.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        link_ffmpeg()
        for name in names:
            had = versions()
            free = ("framebank", "pip", "setuptools")
            fixed = [f"{one}=={version}\n" for one, version in had.items() if one not in free]
            constraints.write_text("".join(fixed))
            why = install(PEERS[name], constraints)
            asked = [one.split("[")[0] for one in PEERS[name]]
            now = versions()
            ledger[name] = {"why_not": why} if why else {one: now.get(one) for one in asked}
            LEDGER.write_text(json.dumps(ledger, indent=2) + "\n")
            print(f"{name}: {ledger[name]}", flush=True)


if __name__ == "__main__":
    main()
