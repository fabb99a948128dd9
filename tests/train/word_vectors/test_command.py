"""`framebank words`: what is asked alike has vectors alike, and `--embeddings` reads them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from framebank import cli
from framebank.train.word_vectors.files import read_vectors

pytest.importorskip("gensim", reason="the extra words is not installed")
ANIMALS, TOOLS = ["cat", "dog", "horse", "cow"], ["hammer", "saw", "drill", "wrench"]


def write(path: Path) -> Path:
    """Ask of animals what they eat and where they sleep, of tools what they cut."""
    rows = []
    for word, other in itertools.product(ANIMALS, ("eat", "drink", "chase", "sleep")):
        rows += [f"what does the {word} {other} in the meadow?"] * 4
    for word, other in itertools.product(TOOLS, ("cut", "join", "bend", "fix")):
        rows += [f"which metal part will this {word} {other} today?"] * 4
    lines = (json.dumps({"video_id": "v", "question": row, "answer": "Zebra"}) for row in rows)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("suffix", "form"), [("bin", "binary"), ("txt", "text")])
def test_vectors_of_questions_are_read_by_embeddings(
    tmp_path: Path, suffix: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = write(tmp_path / "q.jsonl"), tmp_path / f"v.{suffix}"
    words = ["words", str(questions), "--size=16", "--epochs=40", "--json"]
    assert cli.main([*words, f"--out={out}"]) == 0
    made = json.loads(capsys.readouterr().out)
    found = read_vectors(str(out), {*ANIMALS, *TOOLS, "zebra"}, say=print)
    assert form in found.format and found.size == 16 == made["size"]
    assert set(found.vectors) == {*ANIMALS, *TOOLS}  # answers are not looked at

    def near(one: str, other: str) -> float:
        a, b = found.vectors[one], found.vectors[other]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    alike = [near(a, b) for group in (ANIMALS, TOOLS) for a, b in itertools.combinations(group, 2)]
    apart = [near(a, b) for a in ANIMALS for b in TOOLS]
    assert min(alike) > max(apart)
    again = tmp_path / f"again.{suffix}"
    assert cli.main([*words, f"--out={again}"]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_questions_and_choices_of_one_word_are_cut_into_words(tmp_path: Path) -> None:
    questions, out = tmp_path / "q.jsonl", tmp_path / "v.bin"
    row = {"video_id": "v", "question": "fruit?", "answer": "plum", "choices": ["plum", "pear"]}
    questions.write_text(f"{json.dumps(row)}\n" * 2)
    assert cli.main(["words", str(questions), "--size=4", "--epochs=1", f"--out={out}"]) == 0
    assert set(read_vectors(str(out), {"fruit", "plum", "pear"}, say=print).vectors) == {
        "fruit", "plum", "pear",
    }  # fmt: skip


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = write(tmp_path / "q.jsonl")
    for words, told in (
        ([str(questions), f"--out={tmp_path}/v.npz"], "no file of vectors"),
        ([str(questions), f"--out={tmp_path}/v.bin", "--min-count=1000"], "no word is common"),
        ([str(questions), f"--out={tmp_path}/v.bin", "--size=0"], "--size"),
        ([str(tmp_path / "none.csv"), f"--out={tmp_path}/v.bin"], "no such question file"),
    ):
        assert cli.main(["words", *words]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "v.bin").exists()
