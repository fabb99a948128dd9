"""features.questions and question_files: every plain format, every mistake, matching of ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features.errors import UsageError
from features.question_sets_reading import read_questions
from features.questions import (
    HEADS,
    Question,
    join_questions,
    require_answers,
)

ROW = {"video_id": "a.mp4", "question": "what is it?", "answer": "a cat"}


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.csv", "video_id,question,answer\na.mp4,what is it?,a cat\n"),
        ("q.csv", "video_id\tquestion\tanswer\r\na.mp4\twhat is it?\ta cat\r\n"),
        ("q.tsv", "video_id\tquestion\tanswer\na.mp4\twhat is it?\ta cat"),
        ("q.csv", '\ufeffVideo_ID;Question;Answer\n"a.mp4";"what  is it?";a cat\n\n'),
        ("q.txt", "video_id\tquestion\tanswer\na.mp4\twhat is it?\ta cat"),
        ("q.csv", json.dumps([ROW], indent=1)),
        ("q.jsonl", json.dumps(ROW) + "\n\n"),
        ("q.json", json.dumps([ROW])),
    ],
)
def test_reads_each_format(tmp_path: Path, name: str, text: str) -> None:
    assert read_questions(write(tmp_path, name, text)) == [
        Question("1", "a.mp4", "what is it?", "a cat")
    ]


def test_optional_columns_and_unknown_answers(tmp_path: Path) -> None:
    rows = [
        ROW | {"video": "b.mp4", "split": "Validation", "type": 3, "qid": 7, "answer": True},
        ROW | {"answer": float("nan"), "qid": 8, "split": ""},
    ]
    first, second = read_questions(write(tmp_path, "q.json", json.dumps(rows)))
    assert first == Question("7", "b.mp4", "what is it?", "yes", "val", "3")
    assert second == Question("8", "a.mp4", "what is it?")
    assert (first.kind, second.kind) == ("3", "what")
    assert require_answers([first, second], "q.json") == [first]


def test_ids_are_unique_in_a_file(tmp_path: Path) -> None:
    lines = ["video,question,answer,qid", "a,q,1,0", "b,q,1,0", "b,r,1,0", "c,q,1,9"]
    ids = [q.question_id for q in read_questions(write(tmp_path, "q.csv", "\n".join(lines)))]
    assert ids == ["a:0", "b:0#2", "b:0#3", "9"]


@pytest.mark.parametrize("names", ["a0,a1,a2", "a1,a2,a3"])
def test_multiple_choice_answers_become_text(tmp_path: Path, names: str) -> None:
    text = f"video,question,answer,{names}\nx,why?,2,one,two,three\nx,why?,two,one,two,three\n"
    answers = [q.answer for q in read_questions(write(tmp_path, "q.csv", text))]
    assert answers == ["three", "two"]
    with pytest.raises(UsageError, match=r"none of its choices[\s\S]*line 2"):
        read_questions(
            write(tmp_path, "q.csv", f"video,question,answer,{names}\nx,?,3,one,two,three")
        )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.csv", "", "is empty"),
        ("q.csv", "video_id,question\n", "holds no questions"),
        ("q.json", "[]", "holds no questions"),
        ("q.csv", "video_id,text\na,b\n", r"no question column[\s\S]*video_id, text"),
        ("q.csv", "clip,question\na,b\n", r"no video column[\s\S]*clip, question"),
        ("q.csv", "video_id,question\na,\n", r"without a question[\s\S]*line 2"),
        ("q.jsonl", '{"video_id": 1, "question": "q"}\n{"video_id', r"not valid JSON[\s\S]*line 2"),
        ("q.json", '[\n{"video_id": 1,\n}]', r"not valid JSON[\s\S]*line 3"),
        ("q.json", '{\n"a": 1}', "not a list of questions"),
        ("q.json", '{"a": 1}', "no question column"),
        ("q.json", "[3]", r"no question[\s\S]*int in entry 1"),
        ("q.jsonl", "[" * 100_000, "not valid JSON"),
        ("q.csv", b"video_id,question\na,\xe9t\xe9?\n", r"not UTF-8[\s\S]*0xe9 in line 2"),
        ("q.csv", "video_id,question\n".encode("utf-16"), r"not UTF-8[\s\S]*-f utf-16"),
        ("q.jsonl", '{"video_id": ' + "9" * 5000 + "}", r"not valid JSON[\s\S]*too long"),
        ("q.csv", "video_id,question\na,red, or blue?\n", r"more cells[\s\S]*line 2[\s\S]*quotes"),
        ("q.json", '[{"video": 1, "question": ["q"]}]', r"than text[\s\S]*question .*entry 1"),
        (
            "q.csv",
            "video_id,question,split\na,b,holdout\n",
            r"split that is not known[\s\S]*line 2",
        ),
        ("q.txt", "a\nb\n", "no question column"),
    ],
)
def test_each_mistake_is_told(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_questions(write(tmp_path, name, text))


def test_missing_files_folders_and_answers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such question file"):
        read_questions(str(tmp_path / "none.csv"))
    (tmp_path / "q.csv").mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        read_questions(str(tmp_path / "q.csv"))
    with pytest.raises(UsageError, match="no answers to train on"):
        require_answers([Question("1", "a", "q")], "q.csv")


def test_videos_match_exactly_then_by_unique_name() -> None:
    ids = ["a.mp4", "x/b.mp4", "x/twice.mp4", "y/twice.avi", "vid3.avi", "17"]
    wanted = ["a.mp4", "a", "b", "b.mp4", "b.avi", "twice", "x/twice", "3", "17", "4"]
    questions = [Question(str(n), video, "q") for n, video in enumerate(wanted)]
    matched, unmatched = join_questions(questions, ids)
    assert [(wanted[int(q.question_id)], q.video_id) for q in matched] == [
        ("a.mp4", "a.mp4"), ("a", "a.mp4"), ("b", "x/b.mp4"), ("b.mp4", "x/b.mp4"),
        ("b.avi", "x/b.mp4"), ("x/twice", "x/twice.mp4"), ("3", "vid3.avi"), ("17", "17"),
    ]  # fmt: skip
    assert [q.video_id for q in unmatched] == ["twice", "4"]


def test_an_alias_is_tried_before_the_name_itself() -> None:
    ids = ["vid3.avi", "3.avi", "video4.mp4", "vid4.avi", "v_Ab-c.mp4"]
    questions = [
        Question("1", "3", "q", aliases=("vid3",)),
        Question("2", "4", "q", aliases=("video4",)),
        Question("3", "Ab-c", "q", aliases=("v_Ab-c",)),
        Question("4", "5", "q", aliases=("video5",)),
    ]
    matched, unmatched = join_questions(questions, ids)
    assert [q.video_id for q in matched] == ["vid3.avi", "video4.mp4", "v_Ab-c.mp4"]
    assert [q.video_id for q in unmatched] == ["5"]


def test_a_question_knows_its_measure() -> None:
    count = Question("1", "a", "how many?", "3", head="count")
    assert (count.measure, count.number) == ("mean square error", 3.0)
    assert Question("1", "a", "what?", "3").number is None
    assert {Question("1", "a", "q", head=head).measure for head in HEADS} == set(HEADS.values())


def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('video_id,question,answer\na.mp4,"what,x\nb.mp4,who,"y"\nc.mp4,who,z\n')
    with pytest.raises(UsageError, match="starts in line 2"):
        read_questions(str(path))
