"""framebank.videos: which clip of a catalog a question is about, and which it is not."""

from __future__ import annotations

import unicodedata

import pytest

from framebank.features.questions.question import Question
from framebank.features.questions.videos import ClipNames, join_questions

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
MACOS = "Screen Recording 2024-01-05 at 3.45.12\u202fPM.mov"


@pytest.mark.parametrize(
    ("ids", "wanted", "found"),
    [
        # Exactly, before anything looser.
        ("a.mp4 x/a.mp4", "a.mp4", "a.mp4"),
        ("a.mp4 a", "a", "a"),
        # Without the suffix of a video, on either side.
        ("a.mp4 x/a.mp4", "a", "a.mp4"),
        ("x/b.MP4", "x/b", "x/b.MP4"),
        ("x/b.mp4", "x/b.avi", "x/b.mp4"),
        ("x/b.mp4 x/b.avi", "x/b", None),
        ("S01E02.mp4", "S01E02.Pilot", None),
        ("S01E02.Pilot.mp4 S01E02.mp4", "S01E02.Pilot", "S01E02.Pilot.mp4"),
        ("walk_1.mp4", "walk_1.5", None),
        ("walk_1.mp4 walk_1.5.mp4", "walk_1.5", "walk_1.5.mp4"),
        ("a.mp4", "a.txt", None),
        # A bare name: where one clip alone has it.
        ("x/b.mp4", "b", "x/b.mp4"),
        ("x/b.mp4", "b.mp4", "x/b.mp4"),
        ("x/b.mp4 y/b.mp4", "b.mp4", None),
        ("x/b.mp4 y/b.avi", "b", None),
        ("x/b.mp4 y/b.avi", "b.avi", "y/b.avi"),
        # Two folders are two clips.
        ("a/clip.mp4", "b/clip.mp4", None),
        ("clip.mp4", "b/clip.mp4", None),
        ("x/a/clip.mp4", "a/clip.mp4", None),
        ("a/clip.mp4", "/clip.mp4", None),
        # A number of MSVD.
        ("vid3.avi", "3", "vid3.avi"),
        ("vid3.avi 3.mp4", "3", "3.mp4"),
        ("17", "17", "17"),
        ("vid4.avi", "vid4.avi/", None),
    ],
)
def test_the_strictest_reading_decides(ids: str, wanted: str, found: str | None) -> None:
    assert ClipNames(ids.split()).find(wanted) == found


def test_white_space_stays_and_accents_match_in_both_forms() -> None:
    assert ClipNames([MACOS]).find(MACOS) == MACOS
    assert ClipNames([MACOS]).find(MACOS.replace("\u202f", " ")) is None
    assert ClipNames([" a.mp4", "a.mp4", "a.mp4 "]).find(" a.mp4") == " a.mp4"
    assert NFC != NFD
    for stored, asked in ((NFC, NFD), (NFD, NFC)):
        for name in (f"{stored}.mp4", f"{stored}/x.mp4"):
            wish = name.replace(stored, asked)
            assert ClipNames([name]).find(wish) == name
            assert ClipNames([name]).find(wish.removesuffix(".mp4")) == name
    both = ClipNames([f"{NFC}.mp4", f"{NFD}.mp4"])
    assert (both.find(f"{NFC}.mp4"), both.find(f"{NFD}.mp4")) == (f"{NFC}.mp4", f"{NFD}.mp4")
    assert both.find(NFC) is None
    # Bytes of a file name that are no UTF-8, as the catalog writes them.
    assert ClipNames(["caf\\xe9.mp4"]).find("caf\udce9.mp4") == "caf\\xe9.mp4"


def test_an_alias_is_tried_before_the_name_itself() -> None:
    names = ClipNames(["vid3.avi", "3.avi", "video4.mp4", "vid4.avi", "v_Ab-c.mp4"])
    questions = [
        Question("1", "3", "q", aliases=("vid3",)),
        Question("2", "4", "q", aliases=("video4",)),
        Question("3", "Ab-c", "q", aliases=("v_Ab-c",)),
        Question("4", "5", "q", aliases=("video5",)),
    ]
    matched, unmatched = join_questions(questions, names)
    assert [q.video_id for q in matched] == ["vid3.avi", "video4.mp4", "v_Ab-c.mp4"]
    assert [q.question_id for q in matched] == ["1", "2", "3"]
    assert [q.video_id for q in unmatched] == ["5"]


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("b/clip.mp4", "did you mean 'a/clip.mp4'?"),
        ("CLIP.mp4", "did you mean 'a/clip.mp4'?"),
        (" walk_1.mp4", "did you mean 'walk_1.mp4'?"),
        ("walk_1.5", "did you mean 'walk_1.mp4'?"),
        (MACOS.replace("\u202f", " "), f"did you mean {MACOS!r}?"),
        ("wlak_1.mp4", "did you mean 'walk_1.mp4'?"),
        ("twice", "several videos go by that name: 'x/twice.mp4', 'y/twice.mp4'"),
        ("nothing like it", ""),
    ],
)
def test_near_misses_are_named(wanted: str, hint: str) -> None:
    ids = ["a/clip.mp4", "walk_1.mp4", MACOS, "x/twice.mp4", "y/twice.mp4"]
    names = ClipNames(ids)
    assert names.find(wanted) is None and names.hint(wanted) == hint
