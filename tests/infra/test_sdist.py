"""What the source distribution holds, and that README's links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

import framebank
from tests import ROOT
from tests.infra.test_files import setup_words


def test_the_sdist_holds_what_readme_points_at(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    source = tmp_path / "source"
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    made = subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path / "dist")],
        cwd=source, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as found:
        names = {name.partition("/")[2] for name in found.getnames()}
    wanted = {name for name in tracked if not name.startswith(".") and (ROOT / name).is_file()}
    assert not wanted - names
    assert not {name for name in names if name.endswith(".pyc")}


LINK = re.compile(r"\]\(([^)]+)\)")


def test_links_of_the_readme_lead_somewhere() -> None:
    """In a checkout beside it; on PyPI, which has the README alone, to the repository."""
    here = LINK.findall((ROOT / "README.md").read_text())
    there = LINK.findall(setup_words()["long_description"])
    assert len(here) == len(there) > 5
    for near, far in zip(here, there, strict=True):
        assert (ROOT / near).exists(), near
        assert re.fullmatch(r"https://github\.com/framebank/framebank/(blob|raw)/main/.+", far)
        assert far.endswith("/" + near) and ("/raw/" in far) == near.endswith(".png")


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == framebank.__version__
