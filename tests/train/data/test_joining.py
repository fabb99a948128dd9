"""What question files and a cache give to train on, and what is said of the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from framebank.features.cache.reader import open_cache
from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.train.data.joining import JoinedQuestions, join_cache, question_lines, remarks
from tests.made.made_cache import make_cache


def join(folder: Path, limit: float = 1.0, **files: str) -> JoinedQuestions:
    make_cache(str(folder / "cache"))
    paths = []
    for name, rows in files.items():
        path = folder / f"{name}.csv"
        path.write_text("video_id,question,answer\n" + rows.replace(" ", "\n"))
        paths.append(str(path))
    return join_cache(
        QuestionFiles(paths), open_cache(str(folder / "cache")), max_unmatched_ratio=limit
    )


def test_rows_without_answers_are_left_out_in_one_file_as_in_several(tmp_path: Path) -> None:
    one = join(tmp_path, q="a,who?,x d,who?, b,who?,")
    several = join(tmp_path, q="a,who?,x", more="d,who?, b,who?,")
    assert one.without_answer == several.without_answer == 2
    assert (
        [q.video_id for q in several.questions] == [q.video_id for q in one.questions] == ["a.mp4"]
    )
    assert remarks(several) == ["2 questions have no answer and were left out"]
    with pytest.raises(UsageError, match=r"more.csv: there are no answers[\s\S]*got: +2 questions"):
        join(tmp_path, q="a,who?,", more="d,who?,")


def test_what_is_not_there_is_named_with_what_comes_near(tmp_path: Path) -> None:
    joined = join(tmp_path, q="a.mp4,who?,x bad,who?,x A.MP4,who?,x c/b.mp4,who?,x zzz,who?,x")
    assert (joined.unmatched, joined.quarantined_videos) == (4, ("bad.mp4",))
    (said,) = remarks(joined)
    assert "4 videos are not in the cache (A.MP4, c/b.mp4, zzz, bad.mp4)" in said
    assert "1 of them are quarantined (bad.mp4)" in said
    assert "'A.MP4': did you mean 'a.mp4'?; 'c/b.mp4': did you mean 'b.mp4'?" in said
    with pytest.raises(
        UsageError, match=r"not one question[\s\S]*did you mean[\s\S]*example a.mp4"
    ):
        join(tmp_path, q="A.mp4,who?,x")
    with pytest.raises(UsageError, match="too many questions"):
        join(tmp_path, limit=0.5, q="a.mp4,who?,x bad,who?,x zzz,who?,x")


def test_labels_that_contradict_one_another_are_told(tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    path = tmp_path / "labels.csv"
    path.write_text("video_id,label\na,x\nb,x\nb,x\nd,x\nd,y\n")
    joined = join_cache(
        QuestionFiles([str(path)]), open_cache(str(tmp_path / "cache")), max_unmatched_ratio=0
    )
    (said,) = remarks(joined)
    assert said.startswith("WARNING: 1 videos have several labels") and said.endswith(": d.mp4")


def test_names_that_leave_nothing_to_train_on_do_not_count_and_that_is_said(
    tmp_path: Path,
) -> None:
    joined = join(tmp_path, val_q="a,who?,x", test_q="d,who?,x")
    assert {q.split for q in joined.questions} == {None}
    assert remarks(joined)[0].startswith("the files are named for val and test, which would leave")
    joined = join(tmp_path, train_q="a,who?,x", test_q="d,who?,x")
    assert [q.split for q in joined.questions] == ["train", "test"] and not remarks(joined)


def test_questions_in_memory_are_trained_on_as_a_file_of_them_would_be(tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    rows = "video,question,answer,split,a0,a1\na,who?,1,,x,y\nd,which?,p,val,p,q\nd,what?,x,,x,y\n"
    given, copy = tmp_path / "q.csv", tmp_path / "copy.jsonl"
    given.write_text(rows + "zzz,who?,x,,x,y\n")
    cache = open_cache(str(tmp_path / "cache"))
    joined = join_cache(QuestionFiles([str(given)]), cache, max_unmatched_ratio=1)
    kept = joined.only(joined.questions[1:])
    assert [question.split for question in kept.questions] == ["val", "val"]
    copy.write_bytes(b"".join(question_lines(kept.questions)))
    read = join_cache(QuestionFiles([str(copy)], "plain"), cache, max_unmatched_ratio=0)
    assert kept == dataclasses.replace(read, files=QuestionFiles([str(given)], "plain"))
