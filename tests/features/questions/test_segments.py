"""Segment files: ActivityNet's JSON and plain CSV, and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import SEGMENTS, Question
from framebank.features.questions.reading import read_questions
from tests.made.made_questions import read_one

HEADER = "video_id,start_s,end_s,label,split,group"


def read_csv(folder: Path, *rows: str) -> list[Question]:
    path = folder / "segments.csv"
    path.write_text("\n".join((HEADER, *rows)))
    return read_one(str(path))


def database(folder: Path, videos: dict[str, Any], *, indent: int | None = None) -> str:
    path = folder / "activity_net.json"
    whole = {"version": "1.3", "taxonomy": [], "database": videos}
    path.write_text(json.dumps(whole, indent=indent))
    return str(path)


def test_a_video_is_one_question_with_all_of_its_segments(tmp_path: Path) -> None:
    more = ("a.mp4,0.5,3,jump,,", "a.mp4,20,21,run,,")
    rows = ("a.mp4,4,9.5,run,train,x", "b.mp4,0,1,jump,val,", *more)
    first, second = read_csv(tmp_path, *rows)
    assert first.segments == ((0.5, 3.0, "jump"), (4.0, 9.5, "run"), (20.0, 21.0, "run"))
    assert (first.head, first.question, first.answer) == (SEGMENTS, "", "run")
    assert (first.split, first.group, first.question_id) == ("train", "x", "a.mp4")
    assert (second.split, second.segments) == ("val", ((0.0, 1.0, "jump"),))


def test_that_nothing_happens_is_known_or_not(tmp_path: Path) -> None:
    nothing, unknown = read_csv(tmp_path, "a.mp4,,,Background,,", "b.mp4,,,,,")
    assert (nothing.answer, nothing.segments) == ("", ())
    assert (unknown.answer, unknown.segments) == (None, ())


@pytest.mark.parametrize("indent", [None, 1])
def test_activitynet_reads_as_published(tmp_path: Path, indent: int | None) -> None:
    one = {"segment": [0.01, 87.2], "label": "Long jump"}
    videos = {
        "sJFgo9H6zNo": {"subset": "training", "duration": 87.2, "annotations": [one]},
        "V1zhqaGFY2A": {"subset": "validation", "annotations": []},
        "JDg--pjY5gg": {"subset": "testing", "annotations": []},
    }
    first, second, third = read_one(database(tmp_path, videos, indent=indent))
    assert first.segments == ((0.01, 87.2, "Long jump"),)
    assert (first.video_id, first.aliases) == ("sJFgo9H6zNo", ("v_sJFgo9H6zNo",))
    assert first.split == "train"
    assert (second.answer, second.split, third.answer, third.split) == ("", "val", None, "test")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.mp4,5,4,run,,", "'run' from '5' to '4' in line 3"),
        ("a.mp4,1,nan,run,,", "a segment that is not valid"),
        ("a.mp4,1,inf,run,,", "a segment that is not valid"),
        ("a.mp4,1,2,,,", "a segment that is not valid"),
        ("a.mp4,,,run,,", "a segment that is not valid"),
        ("a.mp4,one,2,run,,", "a segment that is not valid"),
        (",1,2,run,,", "without a video"),
        ("b.mp4,1,2,run,val,", "split train and val of 'b.mp4'"),
        ("b.mp4,1,2,run,,y", "group x and y of 'b.mp4'"),
    ],
)
def test_what_is_no_segment_is_refused(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read_csv(tmp_path, "b.mp4,0,1,run,train,x", row)
    assert said in str(error.value)


def test_scoring_keeps_the_rest_of_a_faulty_file(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"{HEADER}\na.mp4,0,1,run,,\na.mp4,3,2,run,,\na.mp4,4,5,run,,\n")
    first, second = read_questions(QuestionFiles([str(path)]), keep_faulty=True)
    assert first.segments == ((0.0, 1.0, "run"), (4.0, 5.0, "run"))
    assert second.fault is not None


def test_a_subset_is_a_split_or_refused(tmp_path: Path) -> None:
    one = {"annotations": [{"segment": [1, 2], "label": "run"}]}
    first, second = read_one(database(tmp_path, {"a": one | {"subset": "Test"}, "b": one}))
    assert (first.split, second.split) == ("test", None)
    with pytest.raises(UsageError, match="'trainval' in video 'a', annotation 1"):
        read_one(database(tmp_path, {"a": one | {"subset": "trainval"}}))
    path = tmp_path / "s.csv"
    path.write_text("video_id,start_s,end_s,label,subset\na,1,2,run,validation\n")
    assert read_one(str(path))[0].split == "val"


def test_annotations_that_are_none_are_named(tmp_path: Path) -> None:
    videos = {"a": {"subset": "training", "annotations": [{"label": "run"}]}}
    with pytest.raises(UsageError, match="an annotation without its segment"):
        read_one(database(tmp_path, videos))
    with pytest.raises(UsageError, match="a video that cannot be read"):
        read_one(database(tmp_path, {"a": 3}))
