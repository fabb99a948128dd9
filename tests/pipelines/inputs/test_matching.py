"""pipelines/inputs/matching.py: which names are videos, and what a glob means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from framebank.features.video import PICTURE_SUFFIXES, VIDEO_SUFFIXES, without_suffix
from framebank.pipelines.inputs.matching import (
    compile_glob,
    fixed_part,
    names_suffix,
    suffix_of,
    walk,
)


def test_suffixes() -> None:
    assert {".mp4", ".mkv", ".gif", ".ts", ".webm", ".avi", ".mov"} <= VIDEO_SUFFIXES
    assert {".jpg", ".png"} <= PICTURE_SUFFIXES and not VIDEO_SUFFIXES & PICTURE_SUFFIXES
    assert (suffix_of("a/b.MP4"), suffix_of("a.b/c"), suffix_of(".mp4")) == (".mp4", "", "")
    assert (without_suffix("a/b.MP4"), without_suffix("b.1.png")) == ("a/b", "b.1")
    for path in ("a/.mp4", "S01E02.Pilot", "walk_1.5", "a.mp4/b"):
        assert without_suffix(path) == path


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("a/*.mp4", ["a/x.mp4", "a/.mp4"], ["a/b/x.mp4", "b/x.mp4", "a/xmp4"]),
        ("a/**/*.mp4", ["a/x.mp4", "a/b/c/x.mp4"], ["x.mp4"]),
        ("a/**", ["a/x", "a/b/c"], ["b/x"]),
        ("[ab]?.m[!k]v", ["ax.mov", "by.mpv"][1:], ["cx.mpv", "ax.mkv", "a/.mpv"]),
        ("a+(b).mp4", ["a+(b).mp4"], ["aab.mp4"]),
        ("[]]x", ["]x"], ["[x"]),
    ],
)
def test_globs_over_object_names(pattern: str, matches: list[str], others: list[str]) -> None:
    compiled = compile_glob(pattern)
    assert all(compiled.fullmatch(name) for name in matches)
    assert not any(compiled.fullmatch(name) for name in others)


def test_parts_of_a_glob() -> None:
    assert fixed_part("/a/b/*.mp4") == "/a/b/" and fixed_part("*.mp4") == ""
    assert fixed_part("/a/*/b/x.mp4") == "/a/"
    assert names_suffix("a/*.bin") and names_suffix("a/**/*.m[pk]4")
    assert not any(names_suffix(p) for p in ("a/*", "a.b/*", "**", "a/*.*", "a/*.mp?"))


def _none(path: str, err: OSError) -> None:
    raise AssertionError(path) from err


def test_a_walk_sees_each_folder_once_and_ends(tmp_path: Path) -> None:
    for name in ("clips/a/1", "clips/b/2", "outside/3", "clips/0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    clips = tmp_path / "clips"
    (clips / "a/up").symlink_to("..")
    (clips / "a/way_up").symlink_to(tmp_path)
    (clips / "b/twice").symlink_to(clips / "a")
    (clips / "a/more").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/back").symlink_to(clips)
    (clips / "self").symlink_to("self")
    found = [os.path.relpath(path, clips) for path in walk(str(clips), None, _none)]
    assert found == ["0", "self", "a/1", "b/2", "a/more/3"]
    found = [os.path.relpath(path, clips) for path in walk(str(clips), str(clips / "a"), _none)]
    assert "a/1" not in found and "b/2" in found
