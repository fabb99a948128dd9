"""What all tests share: quiet libraries, and small clips that are made once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from framebank.features import errors
from tests.made import built

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_ALL_OF_THEM = 1000  # tests: fewer are a part, which builds what it meets
_building: list[subprocess.Popen[bytes]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put off the tests of features, in many short files: of two processes that share the tests a
    file at a time one would wait at the end for the other's long last one."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/features/"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have a run of all tests build its servers meanwhile: most tests leave a core idle."""
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"  # of several processes
    if first and len(session.items) >= _ALL_OF_THEM and not session.config.option.collectonly:
        _building.append(built.start_building())


def pytest_sessionfinish() -> None:
    """End what is still being built."""
    for process in _building:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of six good clips, a0.mp4 to a5.mp4, 8 to 13 frames each."""
    from tests.clips.plain_clips import write_clip

    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        write_clip(folder / f"a{number}.mp4", frames=8 + number, seed=number)
    return folder


@pytest.fixture
def expects_internal() -> list[str]:
    """Ask for this to let a clip get the class `internal`; it holds what they got."""
    return []


@pytest.fixture(autouse=True)
def no_clip_is_internal(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail each test in which code of ours failed on a clip, whatever it was to show."""
    expected = "expects_internal" in request.fixturenames
    seen: list[str] = request.getfixturevalue("expects_internal") if expected else []
    made = errors.VideoRejected.__init__

    def note(self: errors.VideoRejected, stage: str, error_class: str, message: str) -> None:
        made(self, stage, error_class, message)
        if error_class == "internal":
            seen.append(message)

    monkeypatch.setattr(errors.VideoRejected, "__init__", note)
    yield
    assert expected or not seen, f"clips met faults of our own: {seen}"
