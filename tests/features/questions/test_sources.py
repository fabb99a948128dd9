"""framebank.features.questions.sources: which ids look like clips of one source."""

from __future__ import annotations

import re

import pytest

from framebank.features.errors import UsageError
from framebank.features.questions.sources import compile_grouping, group_of, suspect_sources


@pytest.mark.parametrize(
    "ids",
    [
        [f"v_Run_g{group:02}_c{clip:02}.avi" for group in range(4) for clip in range(3)],
        [f"dQw4w9WgXc{group}_{clip}_{clip + 10}" for group in range(4) for clip in range(3)],
        [f"match{group}/film-part{clip}.mp4" for group in range(4) for clip in range(3)],
        [f"cam{group}_{clip}" for group in range(4) for clip in range(3)],
        [f"film-{name}_{clip}.mp4" for name in "abcdefghijkl" for clip in range(3)],
        [f"film {name}+{clip:04}" for name in "abcdefghijkl" for clip in range(3)],
    ],
)
def test_ids_that_name_a_clip_of_a_source_tell_of_it(ids: list[str]) -> None:
    sources = suspect_sources(ids)
    assert len(sources) == len(ids) == 3 * len(set(sources.values()))


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [f"{number:04}.gif" for number in range(40)],
        [f"video{number}" for number in range(40)],
        [f"{label}_{number}.mp4" for label in ("walk", "run") for number in range(40)],
        [f"class-{name}_{number}" for name in "abcdefghijkl" for number in range(40)],
        ["a_0_10", "b_3_9", "c_1_7"],  # a clip each
        [f"COCO_{name}2014_{n:012d}.jpg" for name in ("train", "val") for n in range(9)],
    ],
)
def test_ids_of_their_own_tell_of_none(ids: list[str]) -> None:
    assert suspect_sources(ids) == {}


def test_a_pattern_names_the_group() -> None:
    pattern = compile_grouping(r"^(.*)_c\d+")
    assert group_of("v_Run_g01_c02.avi", pattern) == "v_Run_g01"
    assert group_of("other.avi", pattern) is None
    assert group_of("g7_x", re.compile(r"g\d")) == "g7"
    assert group_of("_x", re.compile("(.*)_")) is None  # nothing is no source
    with pytest.raises(UsageError, match="no regular expression"):
        compile_grouping("(")
