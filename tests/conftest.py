"""What all tests share: quiet libraries, and small clips that are made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of six good clips, a0.mp4 to a5.mp4, 8 to 13 frames each."""
    from tests.plain_clips import write_clip

    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        write_clip(folder / f"a{number}.mp4", frames=8 + number, seed=number)
    return folder
