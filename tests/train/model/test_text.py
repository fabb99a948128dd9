"""A model of Chinese questions, started from word vectors, is trained, saved and asked."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from framebank.features.asking.trained_model import load_model
from framebank.train.fit import command
from tests.made.made_questions import make_direction_cache
from tests.made.word_vectors import glove


def test_a_model_keeps_its_language_and_its_vectors(tmp_path: Path) -> None:
    pytest.importorskip("jieba", reason="needs the extra languages")
    rows = make_direction_cache(str(tmp_path / "cache"))
    lines = [json.dumps(row | {"question": "这个男人在做什么？"}) + "\n" for row in rows[:60]]
    (tmp_path / "q.jsonl").write_text("".join(lines))
    glove(tmp_path / "v", {"男人": [1, 2, 3], "什么": [3, 2, 1]})
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    model = tmp_path / "model"
    options = ["--epochs", "1", "--no-baselines", "--model-kind", "lstm", "--language", "zh"]
    places = {"cache": "cache", "questions": "q.jsonl", "model": "model", "embeddings": "v"}
    for name, place in places.items():
        options += [f"--{name}", str(tmp_path / place)]
    assert command.run(parser.parse_args(options), []) == 0
    vocabulary = json.loads((model / "vocabulary.json").read_text())
    assert vocabulary["language"] == "zh" and {"男人", "什么"} <= set(vocabulary["words"])
    assert json.loads((model / "metrics.json").read_text())["embeddings"]["found"] == 2
    loaded = load_model(str(model))  # which cuts questions as it was taught
    assert loaded.number is not None
    numbers = loaded.number(["男人，什么？".encode()])[0].tolist()
    assert [vocabulary["words"][number] for number in numbers if number] == ["男人", "什么"]
