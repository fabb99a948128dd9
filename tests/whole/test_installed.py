"""Framebank as pip installs it: one package, beside any others; its base alone reads a cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.made import built
from tests.made.made_cache import make_cache

FLOORS = ("features", "pipelines", "train")
READ = """
import sys, framebank as fb
for record in fb.open_cache(sys.argv[1]):
    print(record.video_id, record.features.shape, float(record.features.astype("float64").sum()))
heavy = {"tensorflow", "keras", "apache_beam", "av", "rich", "google_crc32c"} & set(sys.modules)
assert not heavy, heavy
"""


def call(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    given = [str(word) for word in words]
    return subprocess.run(given, capture_output=True, text=True, timeout=600, cwd=cwd)


def done(*words: object, cwd: Path | None = None) -> str:
    ended = call(*words, cwd=cwd)
    if ended.returncode and "onnection" in ended.stderr and "pip" in words:
        pytest.skip(f"PyPI does not answer: {ended.stderr[-200:]}")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    files = done("git", "ls-files", "--", *FLOORS, "framebank", "setup.py", "README.md", cwd=ROOT)
    for name in files.splitlines():
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return make_wheel(source, folder)


def make_wheel(source: Path, folder: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation")
    done(*pip, "--wheel-dir", folder, source)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of a distribution whose packages are called as our folders are."""
    source = tmp_path_factory.mktemp("other")
    for name in FLOORS:
        (source / name).mkdir()
        (source / name / "__init__.py").write_text(f"whose = 'theirs: {name}'\n")
    words = f"from setuptools import setup\nsetup(name='other', packages={list(FLOORS)})\n"
    (source / "setup.py").write_text(words)
    return make_wheel(source, tmp_path_factory.mktemp("wheel"))


def test_a_wheel_holds_framebank_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"framebank"}
    assert "framebank/features/stores/storage.py" in names


@pytest.fixture(scope="module")
def reader(wheel: Path) -> Path:
    """Return the python of an environment that has the base's requirements, kept between runs."""
    requires = ROOT.joinpath("setup.py").read_text().partition("install_requires=")[2]
    key = hashlib.sha256((requires.partition("]")[0] + sys.version).encode()).hexdigest()[:12]
    folder = built.folder() / f"reads-{key}"
    python = folder / "bin" / "python"
    with built.alone("reads"):
        if not python.exists():
            done(sys.executable, "-m", "venv", folder)
        done(python, "-m", "pip", "--quiet", "uninstall", "--yes", "framebank", "other")
        done(python, "-m", "pip", "--quiet", "install", wheel)
    return python


def test_the_base_alone_reads_a_cache(reader: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    make_cache(cache)
    here = done(sys.executable, "-c", READ.replace("assert not heavy", "# "), cache, cwd=tmp_path)
    assert done(reader, "-c", READ, cache, cwd=tmp_path) == here and "a.mp4" in here
    for name in ("inspect", "verify"):
        assert done(reader, "-m", "framebank", name, cache, cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["extract", "clips", "--cache", "c", "--weights", "random:0"], "extract"),
        (["train", "--cache", "cache", "--questions", "q.csv", "--model", "m"], "train"),
        (["score", "--model=m", "--cache=c", "--questions=q.csv", "--out=o"], "extract"),
        (["plan", "clips", "--weights", "random:0"], "extract"),
    ],
)
def test_what_needs_more_says_which_extra(
    reader: Path, tmp_path: Path, words: list[str], extra: str
) -> None:
    make_cache(str(tmp_path / "cache"))
    (tmp_path / "q.csv").write_text("video_id,question,answer\na.mp4,what?,this\n")
    ended = call(reader, "-m", "framebank", *words, cwd=tmp_path)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert f'pip install "framebank[{extra}]"' in ended.stderr
    assert f"framebank: {words[0]} needs " in ended.stderr


_LACKS = """
import sys
import framebank as fb
help(fb)
for asked in (
    lambda: fb.extract_features("a.mp4"),
    lambda: fb.open_cache("gs://bucket/cache"),
    lambda: fb.open_cache("s3://bucket/cache"),
    lambda: fb.open_cache(sys.argv[1]).dataset(),
):
    try:
        asked()
    except fb.UsageError as error:
        print(error.todo)
"""


def test_python_says_which_extra_too(reader: Path, tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    told = done(reader, "-c", _LACKS, tmp_path / "cache", cwd=tmp_path)
    assert "extract_features(" in told
    extras = [f'pip install "framebank[{extra}]"' for extra in ("extract", "gcp", "s3", "train")]
    assert told.splitlines()[-4:] == extras


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "ours last"])
def test_beside_packages_of_the_same_names(
    wheel: Path, other: Path, reader: Path, tmp_path: Path, ours_first: bool
) -> None:
    pip = (reader, "-m", "pip", "--quiet")
    theirs = "import features, train, pipelines; print(features.whose, train.whose)"
    with built.alone("reads"):
        done(*pip, "uninstall", "--yes", "framebank", "other")
        for one in (wheel, other) if ours_first else (other, wheel):
            done(*pip, "install", "--no-deps", one)
        assert "theirs: features" in done(reader, "-c", theirs, cwd=tmp_path)
        assert "framebank 0" in done(reader, "-m", "framebank", "--version", cwd=tmp_path)
        done(*pip, "uninstall", "--yes", "other" if ours_first else "framebank")
        if ours_first:
            assert "framebank 0" in done(reader, "-m", "framebank", "--version", cwd=tmp_path)
        else:
            assert "theirs: train" in done(reader, "-c", theirs, cwd=tmp_path)
        done(*pip, "install", "--no-deps", "--force-reinstall", wheel)


def test_in_a_folder_with_such_names(tmp_path: Path) -> None:
    for name in FLOORS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not ours')\n")
    make_cache(str(tmp_path / "cache"))
    said = done(sys.executable, "-m", "framebank", "inspect", "cache", cwd=tmp_path)
    assert "inception_v3" in said or "backbone" in said
