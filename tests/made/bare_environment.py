"""A Python environment with nothing but a staged package of Framebank and what that asks for.

The first use installs TensorFlow from PyPI, which takes two minutes; it is kept in .venv/built for
as long as the requirements are the same, and then only the package itself is installed anew.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.made import built

_LIMIT_S = 900


def install(package: Path, requirements: Path) -> Path:
    """Install a staged sdist and its requirements; return the python. Skips where PyPI is away."""
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = built.folder() / f"bare-{key}"
    python = folder / "bin" / "python"
    with built.alone("bare"):
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=_LIMIT_S)
        removing = [python, "-m", "pip", "--quiet", "uninstall", "--yes", "framebank"]
        subprocess.run(removing, timeout=_LIMIT_S)
        words = [*built.installing(python), "--requirement", requirements, package]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT_S)
    if "onnection" in done.stderr and done.returncode:
        pytest.skip(f"PyPI does not answer: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return python
