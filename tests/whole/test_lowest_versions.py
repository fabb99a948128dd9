"""The lowest versions that setup.py allows, in an environment of their own: what reads and asks
passes its tests on them, and hostile files do nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests import ROOT
from tests.infra.test_files import setup_words
from tests.made import built

_TESTS = (
    "features/asking/test_hostile_models.py",
    "features/asking/test_trained_model.py",
    "features/cache/test_record.py",
    "features/network/test_weights.py",
)
_BUILD_LIMIT_S = 600


def _lowest() -> dict[str, str]:
    """Return the lowest version of each package that reading, training and asking need."""
    given = setup_words()
    needed = map(Requirement, [*given["install_requires"], *given["extras_require"]["train"]])
    return {
        one.name: next(it.version for it in one.specifier if it.operator == ">=") for one in needed
    }


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has them; TensorFlow, a gigabyte, is the one of
    `make tfio`, and what has no lower bound is its too."""
    (rest,) = built.tfio("tfio-test", "TFIO_TESTS=--version").glob("lib/python3.*/site-packages")
    folder = tmp_path_factory.mktemp("lowest")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    words = [f"{name}=={version}" for name, version in _lowest().items() if name != "tensorflow"]
    install = [*built.installing(python), "--no-deps", *words]
    subprocess.run(install, check=True, timeout=_BUILD_LIMIT_S)
    (here,) = folder.glob("lib/python3.*/site-packages")
    (here / "after.pth").write_text(f"{rest}\n")
    return python


def test_the_tests_pass_on_the_lowest_versions(python: Path) -> None:
    code = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    lowest = _lowest()
    said = subprocess.run([python, "-c", code, *lowest], capture_output=True, text=True, check=True)
    assert [Version(one) for one in said.stdout.split()] == list(map(Version, lowest.values()))
    tests = [f"tests/{name}" for name in _TESTS]
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=_BUILD_LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "[100%]" in done.stdout
