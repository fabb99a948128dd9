"""`framebank questions`, through the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import framebank
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.reading import read_questions
from tests.made.made_questions import make_direction_cache, write_jsonl


def test_prints_counts_matches_and_odd_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = str(tmp_path / "cache")
    rows = make_direction_cache(cache, pairs=5)
    path = write_jsonl(tmp_path / "q.jsonl", [*rows, rows[0], rows[1] | {"video_id": "no\x1b.mp4"}])
    assert framebank.main(["questions", path, "--cache", cache]) == 0
    said = capsys.readouterr().out
    assert "q.jsonl: plain" in said and "direction" in said
    assert "1 odd rows" not in said and "1 odd row, none refused" in said
    assert "2 questions, 2 videos, 2 answers; 2 about videos of the cache" in said
    assert framebank.main(["questions", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["questions"] == 12
    assert found["odd"][0]["where"] == "line 11" and found["odd"][0]["decision"] == "kept"


def test_refused_rows_end_in_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", [{"video": "a", "question": ""}] * 7)
    assert framebank.main(["questions", path]) == 1
    said = capsys.readouterr().out
    assert "7 odd rows, 7 of them refused" in said and "and 2 more" in said
    assert framebank.main(["questions", path, "--all"]) == 1
    assert capsys.readouterr().out.count("line 7") == 2
    assert framebank.main(["questions", path, "--format", "next-qa"]) == 2
    assert "not a file of NExT-QA" in capsys.readouterr().err


def test_rows_that_cannot_be_read_are_listed_beside_those_that_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = '{"video": "a", "question": "what?", "answer": "x"}'
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(['{"video": ', good, "3", good, ""]))
    assert framebank.main(["questions", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["questions"], found["refused"]) == (2, 2)
    assert [row["where"] for row in found["odd"]][:2] == ["line 1", "line 3"]
    table = tmp_path / "q.csv"
    table.write_text("video,question\na,red, or blue?\na,what?\n")
    assert framebank.main(["questions", str(table)]) == 1
    assert "more cells than the header" in capsys.readouterr().out


def test_training_reads_questions_with_candidates(tmp_path: Path) -> None:
    row = {"video_id": "a", "question": "which?", "answer": "x", "a0": "x", "a1": "y"}
    (question,) = read_questions(QuestionFiles([write_jsonl(tmp_path / "q.jsonl", [row])]))
    assert (question.head, question.choices, question.right) == ("choice", ("x", "y"), 0)
