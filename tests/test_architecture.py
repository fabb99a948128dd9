"""The floors of the house: who may import whom, and what starting up may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "features": {"pipelines", "train", "infra", "apache_beam"},
    "pipelines": {"train", "infra"},
    "train": {"pipelines", "infra", "apache_beam"},
}


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_floor_imports_one_above(package: str) -> None:
    for path in sorted((ROOT / package).glob("*.py")):
        assert not FORBIDDEN[package] & set(imported_packages(path)), path


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["extract", "--help"], ["inspect", "--help"]]
)
def test_help_loads_neither_tensorflow_nor_beam(words: list[str]) -> None:
    code = (
        "import sys, framebank\n"
        f"try: framebank.main({words!r})\n"
        "except SystemExit: pass\n"
        "print({'tensorflow', 'keras', 'apache_beam'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "set()"
    assert done.stdout


def test_every_command_is_there() -> None:
    import framebank

    for name, command in framebank.COMMANDS.items():
        assert (ROOT / (command.module.replace(".", "/") + ".py")).exists(), name
