import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import framebank
from framebank.features.errors import CacheError
from framebank.features.stores import json_text
from tests import ROOT
from tests.made.made_cache import make_cache

DEEP = "[" * 100_000
# Who reads no file: what talks to our own processes in a process that must start quickly.
_OWN_WORDS = {
    "features/decoders/child.py",
    "features/stores/json_text.py",
}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DEEP, "nested too deeply"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
        ("9" * 5000, "too long"),
        ("[1e999]", "out of range"),
        ("{", "Expecting property name"),
        (b'"\xff"', "no UTF-8"),
        ("", "Expecting value"),
    ],
)
def test_what_cannot_be_used_is_a_value_error_with_words(text: str | bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        json_text.parse(text)


def test_what_is_right_is_read() -> None:
    assert json_text.parse("[" * 100 + "]" * 100)
    assert json_text.parse(b'{"a": [1, 2.5, "\xc3\xa9", null]}') == {"a": [1, 2.5, "é", None]}
    assert json_text.parse("1.50", parse_float=str) == "1.50"
    with pytest.raises(ValueError, match="a JSON list where an object was expected"):
        json_text.parse_object("[]")


def test_a_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(DEEP)
    with pytest.raises(CacheError, match=rf"{path} is damaged\n.*nested too deeply.*\n.*to mend"):
        json_text.read_object(str(path), todo="to mend")


def test_json_is_parsed_in_one_place() -> None:
    for path in [
        *ROOT.glob("features/*.py"),
        *ROOT.glob("pipelines/*.py"),
        *ROOT.glob("train/*.py"),
    ]:
        if str(path.relative_to(ROOT)) in _OWN_WORDS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("loads", "load"):
                assert getattr(node.value, "id", "") != "json", f"{path}:{node.lineno}"


@pytest.mark.parametrize("text", [DEEP, "[]", '{"a":' * 200, "null", "\x00", '"' + "x" * 50])
def test_every_json_of_a_cache_that_was_changed_is_told_in_words(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = str(tmp_path / "cache")
    make_cache(cache)
    for place in ("spec.json", "shards/*.index.json", "runs/*.json"):
        for path in (tmp_path / "cache").glob(place):
            before = path.read_bytes()
            path.write_text(text)
            for words in (["inspect", cache], ["verify", cache]):
                framebank.main(words)
                assert capsys.readouterr() != ("", "")
            path.write_bytes(before)
    assert framebank.main(["verify", cache]) == 0


def test_a_file_larger_than_memory_is_told_in_words(tmp_path: Path) -> None:
    with (tmp_path / "q.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    bound = 4 << 30
    ended = subprocess.run(
        [sys.executable, "-m", "framebank", "questions", str(tmp_path / "q.jsonl")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (bound, bound)),
    )  # fmt: skip
    assert ended.returncode == 1
    assert "more than fits into this machine's memory" in ended.stderr
    assert "Traceback" not in ended.stderr
