"""What all tests share: quiet libraries, and small clips that are made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from framebank.features import errors

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


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
