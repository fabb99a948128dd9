"""models_command on registries that are not as they should be: one message for each."""

from __future__ import annotations

from pathlib import Path

import pytest

import framebank

WHOLE = '{"id": "move 1", "event": "promoted", "version": "v", "reason": "r", "time": "t"}'


def models(folder: Path, *words: str) -> int:
    action, *rest = words
    return framebank.main(["models", action, "--registry", str(folder), *rest])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 3}', '{"version": "../x"}', '{"number": "x"}']
)
def test_a_damaged_pointer(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "current.json").write_text(text)
    assert models(tmp_path, "list") == 1
    assert "current.json is damaged" in capsys.readouterr().err


def test_a_pointer_at_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "current.json").write_text('{"version": "gone", "number": 1}')
    assert models(tmp_path, "list") == 1
    assert "gone, which is in use" in capsys.readouterr().err
    assert models(tmp_path, "show", "current") == 2
    assert "there is no version gone" in capsys.readouterr().err
    (tmp_path / "models/20260101-aa").mkdir(parents=True)
    (tmp_path / "models/20260101-aa/verdict.json").write_text("{}")
    assert models(tmp_path, "show", "20260101-ab") == 2
    assert "did you mean 20260101-aa?" in capsys.readouterr().err


def test_half_a_line_of_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "history.jsonl").write_text(f"{WHOLE}\n{WHOLE[:40]}")
    assert models(tmp_path, "list") == 1
    said = capsys.readouterr().err
    assert "line 2 of" in said and "history.jsonl is damaged" in said


def test_a_registry_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("text")
    assert models(tmp_path / "none", "list") == 0
    assert capsys.readouterr().out == "no version yet\n"
    assert models(tmp_path / "none", "rollback") == 2
    assert "no version was in use before" in capsys.readouterr().err
    assert models(tmp_path / "none", "promote", "../x") == 2
    assert models(tmp_path / "file", "list") == 2 and not (tmp_path / "none").exists()
