"""Known sets: each set's files as they are published, mappings, odd rows, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.question import Question
from framebank.features.questions.reading import QuestionFile, read_question_files, read_questions
from framebank.features.questions.report import describe_files, find_odd_rows
from framebank.features.questions.videos import ClipNames, join_questions
from tests import ROOT
from tests.made.made_questions import read_one

ANNOTATIONS = ROOT / ".." / "shared" / "data" / "annotations"

MSVD = '[{"answer":"cup","id":0,"question":"what is filled?","video_id":1}]'
MSRVTT = '[{"answer":"cup","category_id":14,"id":9,"question":"what is filled?","video_id":6513}]'
_CHOICES = "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey\ntumblr_x1_400\t"
ACTION = _CHOICES + "What does it do 3 times ?\tnod\thop\tspin\twave\tjump\t4\tACTION1\t5\n"
TRANSITION = _CHOICES + "What does it do before nod ?\tnod\thop\tspin\twave\tjump\t0\tTRANS1\t5\n"
COUNT = "gif_name\tquestion\tanswer\tvid_id\tkey\ntumblr_x1_400\tHow many hops ?\t3\tCOUNT1\t5\n"
FRAME = (
    "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription\n"
    "tumblr_x1_400\twhat color is the hat ?\tred\t2\tFRAMEQA1\t5\ta red hat .\n"
)
_NEXT = "video,frame_count,width,height,question,answer,qid,type"
NEXT = f"{_NEXT},a0,a1,a2,a3,a4\n4001,369,640,480,why did he sit,1,6,CW,ill,tired,lost,cold,sad\n"
NEXT_OE = f"{_NEXT}\n4001,369,640,480,is he old,no,6,DB\n4001,369,640,480,why,tired,7,CW\n"
ANSWERS: list[dict[str, Any]] = [
    {"answer": "yes", "type": 3, "question_id": "v_Ab-c_2"},
    {"answer": "red", "type": 4, "question_id": "v_Ab-c_1"},
]
QUESTIONS = [
    {"video_name": "Ab-c", "question": "what color is it", "question_id": "v_Ab-c_1"},
    {"video_name": "Ab-c", "question": "is it a hat", "question_id": "v_Ab-c_2"},
]


def write(folder: Path, name: str, content: Any) -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("content", "set_name", "cached", "expected"),
    [
        (MSVD, "msvd-qa", "vid1.avi", ("0", "cup", None, "open", None)),
        (MSRVTT, "msrvtt-qa", "video6513.mp4", ("9", "cup", None, "open", None)),
        (ACTION, "tgif-action", "tumblr_x1_400.gif", ("ACTION1", "jump", "action", "choice", 4)),
        (TRANSITION, "tgif-transition", "tumblr_x1_400.gif",
         ("TRANS1", "nod", "transition", "choice", 0)),
        (COUNT, "tgif-count", "tumblr_x1_400.gif", ("COUNT1", "3", "count", "count", None)),
        (FRAME, "tgif-frame", "tumblr_x1_400.gif", ("FRAMEQA1", "red", "2 color", "open", None)),
        (NEXT, "next-qa", "1164/4001.mp4", ("6", "tired", "CW", "choice", 1)),
        (NEXT_OE, "next-oe", "4001.mp4", ("6", "no", "DB", "yes_no", None)),
    ],
)  # fmt: skip
def test_each_set_is_found_by_its_content(
    tmp_path: Path, content: str, set_name: str, cached: str, expected: tuple[Any, ...]
) -> None:
    path = write(tmp_path, "no.suffix", content)
    (file,) = read_question_files(QuestionFiles([path]))
    assert file.set_name == set_name
    q = file.questions[0]
    assert (q.question_id, q.answer, q.type, q.head, q.right) == expected
    assert find_odd_rows(file) == []
    matched, _ = join_questions([q], ClipNames(["other.mp4", cached]))
    assert [q.video_id for q in matched] == [cached]
    assert read_one(path, set_name=set_name) == file.questions


def test_activitynet_answers_are_joined_by_id(tmp_path: Path) -> None:
    asked = write(tmp_path, "val_q.json", QUESTIONS)
    truth = write(tmp_path, "val_a.json", ANSWERS)
    (file,) = read_question_files(QuestionFiles([truth, asked]))
    assert file.set_name == "activitynet-qa"
    assert [(q.answer, q.type, q.head) for q in file.questions] == [
        ("red", "4 color", "open"), ("yes", "3 yes/no", "yes_no"),
    ]  # fmt: skip
    matched, _ = join_questions(file.questions, ClipNames(["v_Ab-c.mp4"]))
    assert len(matched) == 2
    (alone,) = read_question_files(QuestionFiles([asked]))
    assert [q.answer for q in alone.questions] == [None, None]
    with pytest.raises(UsageError, match="answers without their questions"):
        read_question_files(QuestionFiles([truth]))


def test_answers_that_fit_no_question_are_refused(tmp_path: Path) -> None:
    asked = write(tmp_path, "q.json", QUESTIONS)
    extra = [*ANSWERS, ANSWERS[0], {"answer": "no", "type": 3, "question_id": "v_Z_9"}]
    truth = write(tmp_path, "a.json", extra)
    (file,) = read_question_files(QuestionFiles([asked, truth]))
    assert [(odd["where"], odd["decision"]) for odd in find_odd_rows(file)] == [
        ("entry 3", "refused"), ("entry 4", "refused"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"not its own[\s\S]*2 rows cannot be used"):
        read_questions(QuestionFiles([asked, truth]))


def test_files_together_give_the_published_splits(tmp_path: Path) -> None:
    row = json.loads(MSVD)[0]
    paths = [
        write(tmp_path, f"{split}_qa.json", [row | {"id": number, "video_id": video}])
        for number, (split, video) in enumerate([("train", 1), ("val", 1201), ("test", 1451)])
    ]
    assert [q.split for q in read_questions(QuestionFiles(paths))] == ["train", "val", "test"]
    same = [paths[0], write(tmp_path, "val_2.json", [row])]
    assert [q.question_id for q in read_questions(QuestionFiles(same))] == ["1:0#1", "1:0#2"]
    assert [q.split for q in read_questions(QuestionFiles(paths[:1]))] == ["train"]
    assert [
        q.split for q in read_questions(QuestionFiles([write(tmp_path, "train_val.json", [row])]))
    ] == [None]
    stated = write(tmp_path, "val.json", [row | {"split": "test"}, row | {"split": None}])
    assert [q.split for q in read_questions(QuestionFiles([stated]))] == ["test", "val"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("youtube_mapping.txt", "-4wsu_5_15 vid1\nx9_1_2 vid2\n"),
        ("map.csv", "cache,set\n-4wsu_5_15,vid1\n"),
        ("map.csv", "1;-4wsu_5_15\n"),
        ("map.json", '{"vid1": "-4wsu_5_15"}'),
    ],
)
def test_a_mapping_names_the_videos(tmp_path: Path, name: str, content: str) -> None:
    mapping = write(tmp_path, name, content)
    questions = read_one(write(tmp_path, "test_qa.json", MSVD), mapping=mapping)
    for cached in ("a/-4wsu_5_15.avi", "vid1.avi"):
        assert join_questions(questions, ClipNames([cached]))[0][0].video_id == cached


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("a b c\n", r"no mapping of names[\s\S]*line 1"),
        ("x y\n", r"none of the videos[\s\S]*'x' and 'y'"),
        ("vid1 a\nvid1 b\n", r"two names[\s\S]*line 2"),
        ("{", "not valid JSON"),
        ('{"vid1": [1]}', "no mapping of names"),
    ],
)
def test_a_broken_mapping_is_told(tmp_path: Path, content: str, said: str) -> None:
    questions = write(tmp_path, "q.json", MSVD)
    with pytest.raises(UsageError, match=said):
        read_one(questions, mapping=write(tmp_path, "map.txt", content))
    with pytest.raises(UsageError, match=r"no such file[\s\S]*--mapping"):
        read_one(questions, mapping=str(tmp_path / "none.txt"))


def test_a_stated_format_must_fit_and_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "q.json", MSVD)
    with pytest.raises(UsageError, match=r"not a file of NExT-QA[\s\S]*frame_count"):
        read_one(path, set_name="next-qa")
    assert read_one(path, set_name="plain")[0].aliases == ()


def test_plain_files_state_the_kind_of_answer(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"video": "a", "question": "q", "answer": 1, "choices": ["x", "y"]},
        {"video": "a", "question": "r", "answer": 2.5, "head": "count"},
        {"video": "a", "question": "s", "answer": True, "head": "yes_no"},
    ]
    found = read_one(write(tmp_path, "q.json", rows))
    assert [(q.head, q.answer, q.right, q.number) for q in found] == [
        ("choice", "y", 1, None), ("count", "2.5", None, 2.5), ("yes_no", "yes", None, None),
    ]  # fmt: skip
    for bad in ({"head": "rank"}, {"head": "choice"}, {"head": "count", "answer": "few"}):
        with pytest.raises(UsageError, match=r"not clear|not a number"):
            read_one(write(tmp_path, "bad.json", [rows[2] | bad]))


def odd(file: QuestionFile) -> list[tuple[str, str, str]]:
    return [(row["where"], row["what"], row["decision"])
            for row in find_odd_rows(file)]  # fmt: skip


def test_odd_rows_are_named_and_decided(tmp_path: Path) -> None:
    row = json.loads(MSVD)[0]
    rows = [row, row | {"id": 1}, row | {"id": 2, "answer": "mug"}, row | {"id": 3, "question": ""},
            row | {"id": 4, "video_id": 1300, "answer": "caf\ufffd"}]  # fmt: skip
    (file,) = read_question_files(QuestionFiles([write(tmp_path, "train_qa.json", rows)]))
    assert odd(file) == [
        ("entry 4", "has a row without a question", "refused"),
        ("entry 2", "the same row again", "kept"),
        ("entry 3", "the same question with another answer", "kept"),
        ("entry 5", "characters that were lost", "kept"),
        ("entry 5", "a video that is not of this split", "kept"),
    ]
    assert len(file.questions) == 4


def test_a_set_is_held_to_its_own_rules(tmp_path: Path) -> None:
    next_rows = NEXT + "4002,9,9,9,who,4,6,XX,a,b,c,b,b\n4003,9,9,9,who,7,6,CW,a,b,c,d,e\n"
    (file,) = read_question_files(QuestionFiles([write(tmp_path, "val.csv", next_rows)]))
    assert odd(file) == [
        ("line 4", "has an answer that is none of its choices", "refused"),
        ("line 3", "the true answer stands twice among the choices", "kept"),
        ("line 3", "a type that the set does not have", "kept"),
    ]
    counts = COUNT + "g\thow many ?\t12\tCOUNT2\t6\ng2\thow many ?\tfew\tCOUNT3\t6\n"
    (file,) = read_question_files(QuestionFiles([write(tmp_path, "count.csv", counts)]))
    assert odd(file) == [
        ("line 4", "has a count that is not a number", "refused"),
        ("line 3", "a count out of range", "kept"),
    ]
    answers = [ANSWERS[0] | {"type": 8}, ANSWERS[1] | {"type": 3}]
    asked = [*QUESTIONS, QUESTIONS[0] | {"question_id": "v_other_1", "question": "why"}]
    pair = [write(tmp_path, "q.json", asked), write(tmp_path, "a.json", answers)]
    (file,) = read_question_files(QuestionFiles(pair))
    assert odd(file) == [
        ("entry 1", "a binary question with another answer", "kept"),
        ("entry 2", "yes or no in another type", "kept"),
        ("entry 3", "a type that the set does not have", "kept"),
        ("entry 3", "an id of another video", "kept"),
        ("entry 3", "no answer", "kept"),
    ]


def test_majority_is_of_the_training_split() -> None:
    def file(split: str, answers: str) -> QuestionFile:
        asked = [Question(str(n), f"{split}{n}", "q", a, split) for n, a in enumerate(answers)]
        return QuestionFile(f"{split}.json", "plain", asked, ["?"] * len(asked), [])

    states = {"test0.mp4": "done", "test1.mp4": "quarantined"}
    found = describe_files([file("train", "aab"), file("test", "abbb")], states)
    splits = found["sets"]["plain"]["splits"]
    assert splits["test"]["majority"] == {"answer": "a", "share": 0.25}
    assert (splits["train"]["in_cache"], splits["test"]["in_cache"]) == (0, 1)
    assert found["cache"]["train"] == {"train": 0, "val": 0, "test": 1}
    assert found["cache"]["quarantined"] == ["test1.mp4"]
    assert list(found["cache"]["missing"]) == ["train0", "train1", "train2", "test2", "test3"]
    count = Question("1", "v", "q", "4", "test", head="count")
    found = describe_files([QuestionFile("test.csv", "tgif-count", [count], ["line 2"], [])])
    assert found["sets"]["tgif-count"]["splits"]["test"]["majority"]["mean_square_error"] == 0


@pytest.mark.skipif(not ANNOTATIONS.exists(), reason="../shared/data/annotations is absent")
@pytest.mark.parametrize(
    ("names", "set_name", "counts", "odd_rows"),
    [
        ("msvd-qa/train_qa.json msvd-qa/val_qa.json msvd-qa/test_qa.json", "msvd-qa",
         {"train": 30_933, "val": 6_415, "test": 13_157}, 2_087),
        ("activitynet-qa/val_q.json activitynet-qa/val_a.json activitynet-qa/test_q.json "
         "activitynet-qa/test_a.json", "activitynet-qa", {"val": 18_000, "test": 8_000}, 35),
        ("tgif-qa/Test_action_question.csv", "tgif-action", {"test": 2_274}, 0),
        ("tgif-qa/Test_transition_question.csv", "tgif-transition", {"test": 6_232}, 0),
        ("tgif-qa/Test_frameqa_question.csv", "tgif-frame", {"test": 13_691}, 0),
        ("tgif-qa/Test_count_question.csv", "tgif-count", {"test": 3_554}, 0),
        ("next-qa/val.csv", "next-qa", {"val": 4_996}, 6),
        ("next-oe/val.csv next-oe/test.csv", "next-oe", {"val": 5_343, "test": 9_178}, 244),
    ],
)  # fmt: skip
def test_published_files_read_whole(
    names: str, set_name: str, counts: dict[str, int], odd_rows: int
) -> None:
    files = read_question_files(QuestionFiles([str(ANNOTATIONS / name) for name in names.split()]))
    found = describe_files(files)
    splits = found["sets"][set_name]["splits"]
    assert {split: facts["questions"] for split, facts in splits.items()} == counts
    assert all(facts["published"] == facts["answered"] == counts[s] for s, facts in splits.items())
    assert (len(found["odd"]), found["refused"]) == (odd_rows, 0)
    assert found["sets"][set_name]["in_several_splits"] == []
    if set_name == "msvd-qa":
        assert splits["test"]["majority"]["answer"] == "man"
        assert round(splits["test"]["majority"]["share"], 3) == 0.141
