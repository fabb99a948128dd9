"""features.questions.question and question_files: every plain format, every mistake."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import HEADS, Question, require_answers
from framebank.features.questions.reading import read_question_files, read_questions
from framebank.features.questions.report import find_odd_rows
from tests.made.made_questions import read_one

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
    assert read_one(write(tmp_path, name, text)) == [Question("1", "a.mp4", "what is it?", "a cat")]


def test_optional_columns_and_unknown_answers(tmp_path: Path) -> None:
    rows = [
        ROW | {"video": "b.mp4", "split": "Validation", "type": 3, "qid": 7, "answer": True},
        ROW | {"answer": float("nan"), "qid": 8, "split": ""},
    ]
    first, second = read_one(write(tmp_path, "q.json", json.dumps(rows)))
    assert first == Question("7", "b.mp4", "what is it?", "yes", "val", "3")
    assert second == Question("8", "a.mp4", "what is it?")
    assert (first.kind, second.kind) == ("3", "what")
    assert require_answers([first, second], "q.json") == [first]


def test_ids_are_unique_in_a_file(tmp_path: Path) -> None:
    lines = ["video,question,answer,qid", "a,q,1,0", "b,q,1,0", "b,r,1,0", "c,q,1,9"]
    ids = [q.question_id for q in read_one(write(tmp_path, "q.csv", "\n".join(lines)))]
    assert ids == ["a:0", "b:0#2", "b:0#3", "9"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["", "1", ""], ["#1", "1", "3"]),
        (["2", "", "3", ""], ["2", "#2", "3", "4"]),
        (["2", "  ", "#2", None], ["2", "##2", "#2", "4"]),
        (["7", "7 ", " 7", "7\u202f"], ["7", "7 ", " 7", "7\u202f"]),
        (["0", "0", "a:0", ""], ["a:0#1", "a:0#2", "a:0", "4"]),
        (["0", "0", "a:0#1", "a:0#1#"], ["a:0#1##", "a:0#2", "a:0#1", "a:0#1#"]),
        (["x#1", "y", "", "z#3"], ["x#1", "y", "3", "z#3"]),
    ],
)
def test_ids_that_are_made_are_none_that_are_given(
    tmp_path: Path, given: list[str | None], made: list[str]
) -> None:
    rows = [
        {"video_id": "a", "question": f"q{n}", "question_id": question_id}
        for n, question_id in enumerate(given)
    ]
    path = write(tmp_path, "q.json", json.dumps(rows))
    (file,) = read_question_files(QuestionFiles([path]))
    assert [q.question_id for q in file.questions] == made
    copies = [
        row["got"] for row in find_odd_rows(file) if row["what"] == "an id that another row has"
    ]
    assert copies == [name for name in given if given.count(name) > 1 and (name or "").strip()]


def test_ids_are_unique_in_all_files_together(tmp_path: Path) -> None:
    head = "video_id,question,question_id\n"
    paths = [
        write(tmp_path, "a.csv", head + "a,q,\na,r,5\na,s,\n"),
        write(tmp_path, "b.csv", head + "b,q,3\nb,r,5\nb,s,\n"),
    ]
    assert [q.question_id for q in read_questions(QuestionFiles(paths))] == [
        "1",
        "a:5",
        "#3",
        "3",
        "b:5",
        "6",
    ]


TYPED = [
    {"video_id": " clip\u202f1.mp4 ", "question": "what  is it?", "answer": 3, "question_id": 7},
    {"video_id": "a.mp4", "question": "how much?", "answer": 2.50, "type": 1.0},
    {"video_id": "a.mp4", "question": "how far?", "answer": 1e5, "split": "Test "},
    {"video_id": "a.mp4", "question": "is it?", "answer": True, "head": "yes_no"},
    {"video_id": "a.mp4", "question": "is it red?", "answer": False},
    {"video_id": "a.mp4", "question": "who?", "answer": None, "split": None},
    {"video_id": "a.mp4", "question": "who else?", "answer": float("nan")},
    {"video_id": "a.mp4", "question": "which?", "answer": 1, "choices": ["a", "b, c", 'd "e"']},
    {"video_id": "a.mp4", "question": "of two?", "answer": "y", "a0": "x", "a1": "y"},
    {"video_id": "a.mp4", "question": "of others?", "answer": 1, "a1": "x", "a2": "y"},
    {"video_id": "a.mp4", "question": "one left out?", "answer": "y", "a0": "x", "a2": "y"},
    {"video_id": "a.mp4", "question": "new\nline?", "answer": "a\tb", "id": 12},
    {"video_id": "a.mp4", "question": "is it real?", "answer": "TRUE"},
    {"video_id": "a.mp4", "question": "is it?", "answer": True, "choices": [True, False]},
    {"video_id": "a.mp4", "question": "is it so?", "answer": False, "a0": "True", "a1": "False"},
    {"video_id": "a.mp4", "question": "is it not?", "answer": False, "a0": "maybe", "a1": "no"},
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_same_content_reads_alike_from_each_format(tmp_path: Path, delimiter: str) -> None:
    lines = write(tmp_path, "q.jsonl", "".join(json.dumps(row) + "\n" for row in TYPED))
    listed = write(tmp_path, "q.json", json.dumps(TYPED))
    columns = list(dict.fromkeys(name for row in TYPED for name in row))
    with (tmp_path / "q.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns, delimiter=delimiter)
        table.writeheader()
        for row in TYPED:
            cells = {n: json.dumps(c) if isinstance(c, list) else c for n, c in row.items()}
            table.writerow({n: "" if cell != cell else cell for n, cell in cells.items()})
    read = read_one(lines)
    assert read == read_one(listed)
    assert [(q.video_id, q.answer) for q in read[:5]] == [
        (" clip\u202f1.mp4 ", "3"), ("a.mp4", "2.5"), ("a.mp4", "100000.0"), ("a.mp4", "yes"),
        ("a.mp4", "no"),
    ]  # fmt: skip
    assert [(q.choices, q.right) for q in read[7:11]] == [
        (("a", "b, c", 'd "e"'), 1), (("x", "y"), 1), (("x", "y"), 1), (("x", "", "y"), 2),
    ]  # fmt: skip
    assert read[11].question_id == "12" and read[12].answer == "yes"
    assert [q.answer for q in read[13:]] == ["yes", "no", "no"]
    assert read_one(str(tmp_path / "q.csv")) == read
    numbers = write(tmp_path, "n.json", '[{"video": 1.50, "question": "q", "answer": 1E3}]')
    (written,) = read_one(numbers)  # as they are written
    assert (written.video_id, written.answer) == ("1.50", "1E3")


@pytest.mark.parametrize("names", ["a0,a1,a2", "a1,a2,a3"])
def test_multiple_choice_answers_become_text(tmp_path: Path, names: str) -> None:
    text = f"video,question,answer,{names}\nx,why?,2,one,two,three\nx,why?,two,one,two,three\n"
    answers = [q.answer for q in read_one(write(tmp_path, "q.csv", text))]
    assert answers == ["three", "two"]
    with pytest.raises(UsageError, match=r"none of its choices[\s\S]*line 2"):
        read_one(write(tmp_path, "q.csv", f"video,question,answer,{names}\nx,?,3,one,two,three"))


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
        ("q.json", '[\n{"video_id": 1,\n}]', r"not valid JSON[\s\S]*line [23]"),
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
            r"an unknown split[\s\S]*line 2",
        ),
        ("q.txt", "a\nb\n", "no question column"),
        (
            "q.csv",
            "video,question,answer,Answer \na,b,c,d\n",
            r"two columns of one name[\s\S]*answer",
        ),
        ("q.csv", "video;question;;\na;;c;d\n", r"without a question[\s\S]*line 2"),
        ("q.csv", "\n\r\nvideo,question\n\na,\n", r"without a question[\s\S]*line 5"),
        (
            "q.json",
            '[{"video": 1, "question": "q", "answer": "a", "answer": "b"}]',
            r"two values of one name[\s\S]*answer in entry 1",
        ),
        (
            "q.jsonl",
            '{"video": 1, "question": "q", "Answer": "a", "answer": "b"}',
            r"two values of one name[\s\S]*answer in line 1",
        ),
        ("q.csv", "video,question,choices\na,b,red|blue\n", r"cannot be read[\s\S]*red"),
        ("q.csv", "video\tquestion\tchoices\na\tb\t['x', 'y']\n", "choices that cannot be read"),
    ],
)
def test_each_mistake_is_told(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_one(write(tmp_path, name, text))


def test_missing_files_folders_and_answers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such question file"):
        read_one(str(tmp_path / "none.csv"))
    (tmp_path / "q.csv").mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        read_one(str(tmp_path / "q.csv"))
    with pytest.raises(UsageError, match="no answers to train on"):
        require_answers([Question("1", "a", "q")], "q.csv")


def test_a_question_knows_its_measure() -> None:
    count = Question("1", "a", "how many?", "3", head="count")
    assert (count.measure, count.number) == ("mean square error", 3.0)
    assert Question("1", "a", "what?", "3").number is None
    assert {Question("1", "a", "q", head=head).measure for head in HEADS} == set(HEADS.values())


def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('video_id,question,answer\na.mp4,"what,x\nb.mp4,who,"y"\nc.mp4,who,z\n')
    with pytest.raises(UsageError, match="starts in line 2"):
        read_one(str(path))


def labelled(path: Path) -> list[tuple[str, str | None, str | None, str | None]]:
    questions = read_questions(QuestionFiles([str(path)]), to_train=True)
    assert {(q.question, q.head) for q in questions} == {("", "label")}
    return [(q.video_id, q.answer, q.split, q.group) for q in questions]


def test_labels_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "Video_ID,Label,split,group\na.mp4, Run ,train,film 1\nb.mp4,walk,,\nc.mp4,,,\n"
    )
    assert labelled(path) == [
        ("a.mp4", "Run", "train", "film 1"), ("b.mp4", "walk", None, None),
        ("c.mp4", None, None, None),
    ]  # fmt: skip


def test_a_folder_per_class_reads_as_labels(tmp_path: Path) -> None:
    for name in ("run/a.mp4", "run/more/b.avi", "walk/a.mp4", "lost.mp4", "README.md", ".x/c.mp4"):
        for folder in ("plain", "split/train", "split/Test"):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert labelled(tmp_path / "plain") == [
        ("lost.mp4", None, None, None), ("run/a.mp4", "run", None, None),
        ("run/more/b.avi", "run", None, None), ("walk/a.mp4", "walk", None, None),
    ]  # fmt: skip
    found = labelled(tmp_path / "split")
    assert ("train/run/a.mp4", "run", "train", None) in found
    assert ("Test/run/more/b.avi", "run", "test", None) in found
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="a folder without a video"):
        labelled(tmp_path / "empty")
