"""features.questions: every format, every mistake, and the matching of ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features.errors import UsageError
from features.questions import Question, join_questions, read_questions, require_answers

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
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
        ("q.json", '{"a": 1}', "not a list of questions"),
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
        ("q.txt", "a", "not known"),
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


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("annotations/msvd-qa/test_qa.json", 13157),
        ("annotations/tgif-qa/Test_count_question.csv", 3554),
        ("annotations/tgif-qa/Test_frameqa_question.csv", 13691),
        ("annotations/tgif-qa/Test_transition_question.csv", 6232),
        ("annotations/next-qa/val.csv", 4996),
        ("annotations/next-oe/test.csv", 9178),
        ("clips/msvd/qa.json", 276),
    ],
)
def test_published_files_read_whole(name: str, count: int) -> None:
    questions = read_questions(str(SHARED / name))
    assert len(questions) == len({q.question_id for q in questions}) == count
    assert all(q.answer for q in questions)
