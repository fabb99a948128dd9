"""Questions about pictures, from VQA's files to five answers, and a network of 2017 beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framebank as fb
from framebank import cli
from tests.made.made_pictures import make_pictures
from tests.made.old_weights import old_arrays, write_weights

WIDTH = 1280  # of mobilenet_v2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[str, str, str]]]:
    pytest.importorskip("apache_beam")
    folder = tmp_path_factory.mktemp("pictures")
    files = make_pictures(folder, train=24, val=12)
    spec = {"backbone": "mobilenet_v2", "weights": "random:0"}
    done = fb.extract(folder / "images", cache=folder / "cache", images=True, **spec)
    assert done["done"] == done["frames"] == 36
    return folder, files


def test_from_published_files_to_five_answers(
    made: tuple[Path, dict[str, tuple[str, str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, files = made
    cache, model = folder / "cache", folder / "model"
    asked = [files[split][part] for split in files for part in (0, 2)]
    metrics = fb.train(
        cache=cache, questions=asked, model=model, model_kind="image_qa", question_units=24,
        dense_units=64, dropout=0.2, epochs=24, learning_rate=0.005, no_baselines=True,
    )  # fmt: skip
    assert (metrics["measure"], metrics["kind"], metrics["split"]) == (
        "VQA accuracy", "image_qa", "val",
    )  # fmt: skip
    assert set(metrics["by_type"]) == {"yes/no", "number", "other"}
    assert metrics["vqa_accuracy"] > metrics["baselines"]["majority_per_question"]["vqa_accuracy"]
    judged = fb.evaluate(
        model=model, cache=cache, questions=[files["val"][0], files["val"][2]],
        out=folder / "judged", no_baselines=True,
    )  # fmt: skip
    assert judged["vqa_accuracy"] == pytest.approx(metrics["vqa_accuracy"])
    page = (folder / "judged" / "report.html").read_text()
    assert "VQA accuracy" in page and judged["measure"] == "VQA accuracy"
    # Of the same answers the published rule, written out, makes the same of each row.
    scored = fb.score(
        model=model, cache=cache, questions=[files["val"][1], files["val"][2]],
        out=folder / "answers", runner="DirectRunner",
    )  # fmt: skip
    said = json.loads(Path(files["val"][2]).read_text())["annotations"]
    people = {str(one["question_id"]): [it["answer"] for it in one["answers"]] for one in said}
    rows = [json.loads(line) for line in next((folder / "answers").glob("*.jsonl")).open()]
    offered = json.loads(Path(files["val"][1]).read_text())["questions"][0]["multiple_choices"]
    by_type: dict[str, list[float]] = {}
    for row in rows:
        given, answer = people[row["question_id"]], row["answers"][0]["answer"]
        others = [given[:place] + given[place + 1 :] for place in range(10)]
        worth = np.mean([min(its.count(answer) / 3, 1) for its in others])
        if len(set(given)) > 1 or answer in given:
            assert row["vqa_accuracy"] == pytest.approx(worth)
        by_type.setdefault(row["type"], []).append(row["vqa_accuracy"])
        assert {one["answer"] for one in row["answers"]} <= set(offered)
    for kind, its in by_type.items():
        assert scored["by_type"][kind]["vqa_accuracy"] == pytest.approx(np.mean(its))
    assert scored["measure"] == "VQA accuracy" and scored["answered"] == len(rows) == 36
    capsys.readouterr()
    picture = str(next((folder / "images").glob("COCO_val2014_*25.jpg")))
    assert cli.main(["ask", "--model", str(model), picture, "What color is the shape?"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 5 and all("%" in line for line in told)
    found = fb.ask(picture, "What color is the shape?", model=model, choice=["green", "purple"])
    assert {one["answer"] for one in found["answers"]} == {"green", "purple"}


def test_weights_of_an_old_keras_are_asked(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, files = made
    weights = write_weights(tmp_path / "old.hdf5", old_arrays(width=WIDTH))
    (tmp_path / "old.txt").write_text("red\ngreen\nblue\n")
    vectors = tmp_path / "vectors.txt"
    rows = np.random.default_rng(0).normal(size=(6, 4)).round(3).tolist()
    words = ("what", "color", "Is", "the", "shape", "?")
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, rows, strict=True)]
    vectors.write_text("\n".join(lines) + "\n")
    model = str(tmp_path / "model")
    command = ["models", "import", str(weights), "--embeddings", str(vectors),
               "--cache", str(folder / "cache"), "--model", model]  # fmt: skip
    assert cli.main(command) == 0
    assert "3 answers, 5 words" in capsys.readouterr().out
    assert cli.main(command) == 0 and "nothing to do" in capsys.readouterr().err
    picture = next((folder / "images").iterdir())
    found = fb.ask(picture, "What color is it?", model=model)
    assert len(found["answers"]) == 3 and found["unknown_words"] == ["it"]
    assert sum(one["probability"] for one in found["answers"]) == pytest.approx(1, abs=1e-5)
    judged = fb.evaluate(
        model=model, cache=folder / "cache", questions=[files["val"][0], files["val"][2]],
        out=tmp_path / "judged", no_baselines=True,
    )  # fmt: skip
    assert judged["judged"] == 36
    vectors.write_text("what 1 2 3\n")
    assert cli.main([*command, "--overwrite"]) == 2
    assert "1 of dimension 3" in capsys.readouterr().err
