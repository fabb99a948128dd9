"""A cache to look into: real clips, what was brought with them, and what is wrong with some."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from framebank.features.cache import catalog, layout
from framebank.features.stores import storage
from framebank.features.video import Extracted, Rejected, SourceInfo, VideoRef
from tests.made.made_cache import SPEC, make_extracted, make_shard

RUN = "20261121-0100"
LOOKED = dataclasses.replace(SPEC, sample="uniform=4", input_size=75)


def made_video(name: str, path: Path, *, rows: int = 4, **columns: object) -> Extracted:
    """Return a video whose source is the clip at `path`."""
    data = path.read_bytes() if path.exists() else b""
    found = storage.find(str(path))
    size, generation = (found.size_bytes, found.generation) if found else (5, "7")
    return dataclasses.replace(
        make_extracted(name, rows=rows),
        ref=VideoRef(name, str(path), size, generation, columns=columns),
        source=SourceInfo("mov,mp4", "h264", 64, 48, 10.0, len(data) / 1000, 10),
        content_sha256=hashlib.sha256(data).hexdigest(),
    )


def rejected(name: str, path: Path, error_class: str, message: str) -> Rejected:
    found = storage.find(str(path))
    size, generation = (found.size_bytes, found.generation) if found else (-1, "")
    return Rejected(VideoRef(name, str(path), size, generation), "decode", error_class, message)


def make_looked_into(cache: str, clips: Path) -> str:
    """Write a cache of six done videos, one whose source is gone, two in quarantine."""
    layout.write_spec(cache, LOOKED)
    done = [
        made_video(
            f"day/a{number}.mp4", clips / f"a{number}.mp4", label="odd" if number % 2 else "even"
        )
        for number in range(5)
    ]
    copy = dataclasses.replace(done[0], ref=dataclasses.replace(done[0].ref, video_id="copy.mp4"))
    gone = made_video("gone.mp4", clips / "gone.mp4", label="odd", status="mine")
    told = "2 errors, 8 intact frames; first: decoding failed at 0.45 s"
    bad = rejected("bad.mp4", clips / "a5.mp4", "corrupt", told)
    missing = rejected("missing.mp4", clips / "nowhere.mp4", "missing", "no file")
    rows = make_shard(cache, "s-0", [*done[:3], copy, bad], run_id=RUN, spec=LOOKED)
    rows += make_shard(cache, "s-1", [*done[3:], gone, missing], run_id=RUN, spec=LOOKED)
    catalog.write_catalog(cache, RUN, rows)
    return cache


@pytest.fixture(scope="module")
def looked_into(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_looked_into(str(tmp_path_factory.mktemp("looked") / "cache"), clips)
