"""`framebank score` with models that choose and that count: a row for every question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.errors import UsageError
from tests.made.made_cache import SPEC, make_cache
from tests.made.made_model import make_model
from tests.pipelines.score.test_command import _rows, _score

ASKED: list[dict[str, Any]] = [
    {"video_id": "a.mp4", "question": "what is it?", "answer": 1, "choices": ["red", "blue", "?"]},
    {"video_id": "a.mp4", "question": "what is it?", "answer": 0, "choices": ["red", "blue"]},
    {"video_id": "d.mp4", "question": "how often?", "answer": 3, "head": "count"},
    {"video_id": "gone.mp4", "question": "how often?", "answer": 2, "head": "count"},
    {"video_id": "d.mp4", "question": "which colour?", "answer": "red"},
]


@pytest.mark.parametrize("kind", ["choice", "count", "open"])
def test_a_question_gets_the_answer_of_its_kind_or_the_reason(tmp_path: Path, kind: str) -> None:
    make_cache(str(tmp_path / "cache"))
    model = make_model(tmp_path / "model", SPEC, width=8, kind=kind)
    status, out = _score(model, tmp_path / "cache", "--output-format", "jsonl", rows=ASKED)
    rows, summary = _rows(out), json.loads((out / "_summary.json").read_text())
    assert status == 0 and len(rows) == len(ASKED) == summary["questions"]
    by_text = {(row["question"], len(row["answers"])): row for row in rows}
    if kind == "choice":
        assert {count for question, count in by_text if question == "what is it?"} == {2, 3}
        chosen = by_text["what is it?", 2]
        assert sorted(answer["answer"] for answer in chosen["answers"]) == ["blue", "red"]
        assert chosen["correct"] == (chosen["answers"][0]["answer"] == "red")
        assert sum(answer["probability"] for answer in chosen["answers"]) == pytest.approx(1)
        assert (summary["answered"], summary["other_kind"], summary["judged"]) == (2, 3, 2)
    elif kind == "count":
        (answer,) = by_text["how often?", 1]["answers"]
        assert int(answer["answer"]) == min(max(round(answer["number"]), 2), 5)
        assert summary["mean_square_error"] == (int(answer["answer"]) - 3) ** 2
        assert (summary["measure"], summary["not_in_cache"]) == ("mean square error", 1)
        assert summary["other_kind"] == 3
    other = next(row for row in rows if row["status"] == "other_kind")
    assert "the model gives" in other["reason"]


def test_files_of_another_kind_alone_are_refused(tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    model = make_model(tmp_path / "model", SPEC, width=8, kind="count")
    with pytest.raises(UsageError, match="not one question is of the kind"):
        _score(model, tmp_path / "cache", rows=ASKED[:2])
    assert not (tmp_path / "answers").exists()
