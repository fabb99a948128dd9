"""What a training answered, written and read back for just the same questions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from framebank.features.questions.question import Question
from framebank.train.judging.baselines import JUDGED_FILE, judged_text, read_judged

_ASKED = [Question("0", "a.mp4", "what\nis it?", "cat"), Question("1", "ü.mp4", "who?", "man")]
_SAID = {"model": ["cat", None], "order_blind": ["dog", "man"]}


def test_answers_come_back_for_the_same_questions_only(tmp_path: Path) -> None:
    (tmp_path / JUDGED_FILE).write_text(judged_text(_ASKED, _SAID), "utf-8")
    assert read_judged(str(tmp_path), _ASKED) == _SAID
    assert read_judged(str(tmp_path), _ASKED[:1]) == {}
    assert read_judged(str(tmp_path), _ASKED[::-1]) == {}
    other = [dataclasses.replace(question, question="why?") for question in _ASKED]
    assert read_judged(str(tmp_path), other) == {}


def test_a_missing_or_damaged_file_holds_nothing(tmp_path: Path) -> None:
    assert read_judged(str(tmp_path), _ASKED) == {}
    for text in ("{", "[]\n[]\n", "7\n7\n", '{"answers": 3}\n{"answers": 3}\n', "\xff"):
        (tmp_path / JUDGED_FILE).write_bytes(text.encode("latin-1"))
        assert read_judged(str(tmp_path), _ASKED) == {}
