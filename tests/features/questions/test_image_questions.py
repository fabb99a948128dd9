"""VQA's files as published: questions, annotations and multiple choices in three documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.image_questions import picture_names
from framebank.features.questions.known_sets import find_set
from framebank.features.questions.reading import read_question_files, read_questions
from framebank.features.questions.videos import ClipNames, join_questions

COCO = {"data_type": "mscoco", "data_subtype": "train2014"}
GIVEN = ["White", "white", "white.", "white", "white", "grey", "grey", "gray", "white", "white"]


def document(path: Path, *, version: str = "1.0", **fields: Any) -> str:
    """Write what visualqa.org publishes: one object in one line."""
    info = {"description": f"This is v{version} of the VQA dataset.", "version": version}
    path.write_text(json.dumps({"info": info, **COCO, "license": {"name": "CC"}} | fields))
    return str(path)


def annotation(question_id: int, given: list[str], said: str, kind: str = "other") -> dict:
    answers = [
        {"answer": one, "answer_confidence": "yes", "answer_id": number}
        for number, one in enumerate(given, start=1)
    ]
    return {
        "question_type": "what color is the", "multiple_choice_answer": said, "answers": answers,
        "image_id": question_id // 10, "answer_type": kind, "question_id": question_id,
    }  # fmt: skip


def asked(question_id: int, **more: Any) -> dict:
    image = question_id // 10
    question = {"image_id": image, "question": "What color is it?", "question_id": question_id}
    return question | more


def published(folder: Path, *, version: str = "1.0") -> list[str]:
    said = [annotation(4870250, GIVEN, "white"), annotation(90, ["yes"] * 10, "yes", "yes/no")]
    return [
        document(folder / "OpenEnded_mscoco_train2014_questions.json", task_type="Open-Ended",
                 questions=[asked(4870250), asked(90)], version=version),
        document(folder / "mscoco_train2014_annotations.json", annotations=said, version=version),
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "name"), [("1.0", "vqa-v1"), ("2.0", "vqa-v2")])
def test_questions_are_joined_with_what_ten_people_said(
    tmp_path: Path, version: str, name: str
) -> None:
    paths = published(tmp_path, version=version)
    (file,) = read_question_files(QuestionFiles(paths[::-1]))
    assert (file.set_name, file.refused, file.places) == (name, [], ["entry 1", "entry 2"])
    first, second = read_questions(QuestionFiles(paths))
    assert first.video_id == "COCO_train2014_000000487025"
    assert (first.question_id, first.answer, first.type) == ("4870250", "white", "other")
    assert (first.head, first.measure, first.given) == ("open", "VQA accuracy", tuple(GIVEN))
    assert (second.answer, second.type, second.choices) == ("yes", "yes/no", ())


def test_a_multiple_choice_keeps_its_choices(tmp_path: Path) -> None:
    _, said = published(tmp_path)
    asks = [asked(4870250, multiple_choices=["grey", "white", "1"]), asked(90, multiple_choices=[])]
    path = document(tmp_path / "MultipleChoice.json", questions=asks, num_choices=18)
    first, second = read_questions(QuestionFiles([path, said]))
    assert (first.head, first.choices, first.right) == ("open", ("grey", "white", "1"), 1)
    assert second.choices == ()


def test_questions_alone_can_be_scored(tmp_path: Path) -> None:
    paths = published(tmp_path)
    assert [q.answer for q in read_questions(QuestionFiles(paths[:1]))] == [None, None]
    with pytest.raises(UsageError, match="answers without their questions"):
        read_questions(QuestionFiles(paths[1:]))


def test_pictures_go_by_their_published_names(tmp_path: Path) -> None:
    questions = read_questions(QuestionFiles(published(tmp_path)))
    for clips in (
        ["COCO_train2014_000000487025.jpg", "train/COCO_train2014_000000000009.jpg"],
        ["images/000000487025.jpg", "000000000009.png"],
    ):
        known, unknown = join_questions(questions, ClipNames(clips))
        assert ([q.video_id for q in known], unknown) == (clips, [])
    assert picture_names("mscoco", "test-dev2015", "1")[0] == "COCO_test2015_000000000001"
    assert picture_names("abstract_v002", "val2015", "20")[0] == (
        "abstract_v002_val2015_000000000020"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_id": None}, "without a picture"),
        ({"question": " "}, "without a question"),
        ({"image_id": [9]}, "something else than text"),
        ({"multiple_choices": "white"}, "multiple_choices that cannot be read"),
        ({"multiple_choices": [["white"]]}, "multiple_choices that cannot be read"),
    ],
)
def test_a_row_that_is_no_question_is_refused(tmp_path: Path, change: dict, told: str) -> None:
    path = document(tmp_path / "q.json", questions=[asked(90) | change])
    with pytest.raises(UsageError, match=told):
        read_questions(QuestionFiles([path]))


@pytest.mark.parametrize("given", [["yes"], [{}, {}], "yes"])
def test_an_annotation_that_is_none_is_refused(tmp_path: Path, given: object) -> None:
    said = annotation(90, [], "yes") | {"answers": given}
    path = document(tmp_path / "q.json", questions=[asked(90)])
    with pytest.raises(UsageError, match=r"entry 1"):
        read_questions(QuestionFiles([path, document(tmp_path / "a.json", annotations=[said])]))


@pytest.mark.parametrize("change", [{"image_id": 10}, {"data_subtype": "val2014"}])
def test_an_answer_about_another_picture_is_refused(tmp_path: Path, change: dict) -> None:
    path = document(tmp_path / "q.json", questions=[asked(90)])
    said = [annotation(90, GIVEN, "white") | change]
    with pytest.raises(UsageError, match=f"another picture(.|\n)*{next(iter(change))}"):
        read_questions(QuestionFiles([path, document(tmp_path / "a.json", annotations=said)]))


def test_the_same_picture_may_be_numbered_with_zeros(tmp_path: Path) -> None:
    path = document(tmp_path / "q.json", questions=[asked(90) | {"image_id": "000000000009"}])
    said = document(tmp_path / "a.json", annotations=[annotation(90, GIVEN, "white")])
    assert [one.answer for one in read_questions(QuestionFiles([path, said]))] == ["white"]


def test_what_looks_like_it_and_is_none_stays_plain(tmp_path: Path) -> None:
    row = {"video_id": "a", "image_id": "b", "question_id": "1", "question": "?", "answer": "x"}
    assert find_set(row) == "plain"
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps(row))  # one line, which is JSON lines and no document
    assert [q.video_id for q in read_questions(QuestionFiles([str(one)]))] == ["a"]
