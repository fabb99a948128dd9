"""Every command takes the same clip, the same split and the same answer for one question.

`train`, `evaluate`, `retrain`, `score`, `questions` and `ask` are asked about the same odd ids.
"""

from __future__ import annotations

import argparse
import collections
import csv
import dataclasses
import functools
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framebank
from framebank.features.asking.command import answer_question, find_clip
from framebank.features.asking.trained_model import read_lineage
from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.errors import UsageError
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.reading import read_questions
from framebank.features.questions.seen_videos import find_seen, read_seen
from framebank.features.questions.splits import SPLITS
from framebank.features.video import Rejected, VideoRef
from framebank.pipelines.score.plan import plan_scoring
from framebank.train.data.joining import join_cache
from framebank.train.evaluation.evaluating import EvaluateJob, Making, choose_asked, evaluate
from framebank.train.fit import command
from framebank.train.workers.run import Run
from tests.made.made_cache import SPEC, make_extracted, make_shard
from tests.made.made_questions import write_jsonl

NFC = functools.partial(unicodedata.normalize, "NFC")
NFD = functools.partial(unicodedata.normalize, "NFD")
MACOS = "Screen Recording 2024-01-05 at 3.45.12\u202fPM.mov"
QUARANTINED = ["b/clip.mp4", "q/bad.mp4", "solo.mov"]
DONE = [
    "a/clip.mp4", "S01E02.mp4", "S01E02.Finale.mp4", "walk_1.mp4", "walk_2.5.mp4", MACOS,
    NFD("café.mp4"), NFC("über/Ärger.mp4"), NFC("naïve.mp4"), NFD("naïve.mp4"), " lead.mp4",
    "trail .mp4", "x/only.mp4", "x/twice.mp4", "y/twice.mov", "vid7.avi", "12.mp4", "UPPER.MP4",
    "v1.2.ts", "clapper 🎬.mp4", "semi;colon,comma.mp4", 'quo"te.mp4', "two  spaces.mp4",
    "hash#1.mp4", "per%20cent.mp4", "同じ.mp4", "new\nline.mp4", "z/solo.mp4", "deep/er/one.mp4",
]  # fmt: skip
# What a question names → the clip that it is about, None where it is about none.
ASKED: dict[str, str | None] = {
    **{name: name for name in (*DONE, *QUARANTINED)},
    "a/clip": "a/clip.mp4", "b/clip": "b/clip.mp4", "clip.mp4": None, "clip": None,
    "c/clip.mp4": None, "S01E02": "S01E02.mp4", "S01E02.Pilot": None,
    "S01E02.Finale": "S01E02.Finale.mp4", "walk_1.5": None, "walk_1": "walk_1.mp4",
    "walk_2.5": "walk_2.5.mp4", "walk_2": None, MACOS.replace("\u202f", " "): None,
    MACOS.removesuffix(".mov"): MACOS, NFC("café.mp4"): NFD("café.mp4"),
    NFC("café"): NFD("café.mp4"), NFD("über/Ärger"): NFC("über/Ärger.mp4"), NFC("naïve"): None,
    "lead.mp4": None, " lead": " lead.mp4", "trail.mp4": None, "trail ": "trail .mp4",
    "only": "x/only.mp4", "only.mp4": "x/only.mp4", "y/only.mp4": None, "twice": None,
    "twice.mov": "y/twice.mov", "7": "vid7.avi", "12": "12.mp4", "upper.mp4": None,
    "UPPER": "UPPER.MP4", "v1": None, "v1.2": "v1.2.ts", "solo": "solo.mov", "z/solo": "z/solo.mp4",
    "bad": "q/bad.mp4", "er/one.mp4": None, "one": "deep/er/one.mp4", "nothing": None,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Made:
    """A cache, question files about it, and a model that was trained on them; `rows` by text."""

    folder: Path
    rows: dict[str, dict[str, Any]]
    files: list[str]

    @property
    def cache(self) -> Cache:
        return open_cache(str(self.folder / "cache"))

    @property
    def model(self) -> str:
        return str(self.folder / "model")


def _make_cache(path: str) -> None:
    layout.write_spec(path, SPEC)
    bad = [
        Rejected(VideoRef(name, f"/clips/{name}", 1, ""), "decode", "corrupt", "damaged")
        for name in QUARANTINED
    ]
    half = len(DONE) // 2
    done = [make_extracted(name) for name in DONE]
    for place in range(0, half, 2):  # copies of one file, on all sides
        done[place] = dataclasses.replace(done[place], content_sha256="0" * 64)
    rows = make_shard(path, "r1-0", [*done[:half], *bad], run_id="r1")
    rows += make_shard(path, "r1-1", done[half:], run_id="r1")
    catalog.write_catalog(path, "r1", rows)


def _make_questions(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Write a CSV file in which few rows state a split, and one of JSON lines named for test."""
    cut = 3 * len(ASKED) // 4
    judged = set(list(ASKED.values())[cut:])
    rows = []
    for number, (name, clip) in enumerate(ASKED.items()):
        row = {"video_id": name, "question": f"what is {number}?", "answer": "ab"[number % 2]}
        # Every other row states a split, and all rows of a clip the same one.
        states = clip in DONE and (number < cut) == (clip not in judged) and number % 2
        stated = {0: "val", 1: "train"} if number < cut else {0: "Testing"}
        row["split"] = stated.get(DONE.index(clip) % 5, "") if states and clip else ""
        row["question_id"] = {0: "", 1: "1", 2: str(number)}.get(number % 4, " ")
        rows.append(row)
    rows[-1]["answer"] = ""
    for row in rows:  # a clip on two sides, under two names
        row["split"] = {"S01E02": "test", "S01E02.mp4": "train"}.get(row["video_id"], row["split"])
    table, lines = folder / "questions.csv", folder / "test_more.jsonl"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[:cut])
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows[cut:]))
    return {row["question"]: row for row in rows}, [str(table), str(lines)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("odd")
    _make_cache(str(folder / "cache"))
    rows, files = _make_questions(folder)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--cache", str(folder / "cache"), "--questions", *files, "--model", "MODEL"]
    words += ["--epochs", "1", "--frame-units", "4", "--question-units", "4", "--dense-units", "4"]
    words += ["--no-baselines", "--max-unmatched-ratio", "1", "--seed", "5", "--val-share", "0.2"]
    words[words.index("MODEL")] = str(folder / "model")
    assert command.run(parser.parse_args(words), []) == 0
    return Made(folder, rows, files)


@pytest.fixture(scope="module")
def scored(made: Made) -> dict[str, dict[str, Any]]:
    """The rows of `score`, by the text of their question."""
    out = made.folder / "answers"
    words = ["score", "--model", made.model, "--cache", made.cache.path, "--out", str(out)]
    assert framebank.main([*words, "--questions", *made.files]) == 0
    lines = [line for path in sorted(out.glob("answers-*")) for line in path.open()]
    return {row["question"]: row for row in map(json.loads, lines)}


def test_the_ids_are_many_and_odd() -> None:
    assert len(ASKED) > 60 and sum(found is None for found in ASKED.values()) > 15


def test_each_question_is_about_its_own_clip_for_score(
    made: Made, scored: dict[str, dict[str, Any]]
) -> None:
    assert list(scored) == list(made.rows)
    for text, row in scored.items():
        clip = ASKED[made.rows[text]["video_id"]]
        state = "not_in_cache" if clip is None else "answered"
        state = "quarantined" if clip in QUARANTINED else state
        assert (row["status"], row["video_id"]) == (state, clip or made.rows[text]["video_id"])
    ids = [row["question_id"] for row in scored.values()]
    assert len(set(ids)) == len(ids)
    given = [row["question_id"] for row in made.rows.values() if row["question_id"].strip()]
    assert {name for name in given if given.count(name) == 1} <= set(ids)


def test_train_and_retrain_learn_from_what_score_answers(
    made: Made, scored: dict[str, dict[str, Any]]
) -> None:
    joined = join_cache(
        QuestionFiles(made.files), made.cache, max_unmatched_ratio=1
    )  # of retrain, too
    found = {(q.question, q.video_id, q.question_id) for q in joined.questions}
    answered = [row for row in scored.values() if row["status"] == "answered" and row["truth"]]
    assert found == {(row["question"], row["video_id"], row["question_id"]) for row in answered}
    assert joined.without_answer == 1
    assert joined.quarantined_videos == tuple(
        dict.fromkeys(row["video_id"] for row in scored.values() if row["status"] == "quarantined")
    )
    metrics = json.loads((Path(made.model) / "metrics.json").read_text())
    assert metrics["unmatched"] == len(scored) - len(answered) - 1
    learnt = {row["video_id"] for row in answered if row["split"] in ("train", "val")}
    assert read_seen(made.model).videos == learnt
    judged = (Path(made.model) / "judged.jsonl").read_text().splitlines()
    assert {json.loads(line)["question"] for line in judged} == {
        row["question"] for row in answered if row["split"] == "test"
    }


def test_evaluate_asks_what_score_puts_into_the_split(
    made: Made, scored: dict[str, dict[str, Any]]
) -> None:
    answered = [row for row in scored.values() if row["status"] == "answered" and row["truth"]]
    counts = json.loads((Path(made.model) / "lineage.json").read_text())["questions"]
    summary = json.loads((made.folder / "answers" / "_summary.json").read_text())
    for split in (None, *SPLITS):
        job = EvaluateJob(
            made.model, QuestionFiles(made.files), made.folder / "out", split,
            with_baselines=False, max_unmatched_ratio=1,
        )  # fmt: skip
        judged = evaluate(job, made.cache, Run(say=print))
        wanted = [row for row in answered if row["split"] == (split or "test")]
        assert len(wanted) > 2
        asked = {(q.question, q.video_id, q.question_id) for q in judged.answers.questions}
        assert asked == {(r["question"], r["video_id"], r["question_id"]) for r in wanted}
        of_split = summary["by_split"][split or "test"]
        assert judged.figures["accuracy"] == of_split["accuracy"]
        assert judged.figures["judged"] == of_split["judged"] == counts[split or "test"]
    assert summary["split"] == "test" and summary["judged"] == counts["test"]


@pytest.mark.parametrize(
    "named",
    [
        {"val_q.csv": "val", "test_q.csv": "unseen"},
        {"val_q.csv": "val", "test_q.csv": "test"},  # of which the model has seen some
        {"test_q.csv": "train test"},
        {"new.csv": "train val test"},
        {"train_q.csv": "train", "val_q.csv": "test"},
        {"dev.csv": "test"},
        {"train.csv": "train"},
    ],
)
def test_evaluate_and_score_split_other_files_alike(
    made: Made, scored: dict[str, dict[str, Any]], tmp_path: Path, named: dict[str, str]
) -> None:
    files, seen = [], read_seen(made.model).videos
    for name, splits in named.items():
        rows = [r for r in scored.values() if r["truth"] and (r["split"] or "") in splits.split()]
        if splits == "unseen":
            rows = [
                r for r in scored.values() if r["split"] == "test" and r["video_id"] not in seen
            ]
        names = {"video_id": "video_id", "question": "question", "truth": "answer"}
        fields = [{column: row[name] for name, column in names.items()} for row in rows]
        write_jsonl(tmp_path / name, fields)  # the content tells what it is
        files.append(str(tmp_path / name))
    joined = join_cache(QuestionFiles(files), made.cache, max_unmatched_ratio=1, to_train=False)
    chosen = choose_asked(joined, made.cache, Making.read(made.model), split=None)
    lineage = read_lineage(made.model)
    plan = plan_scoring(
        read_questions(QuestionFiles(files)), made.cache, per_file=99, rule=lineage.rule,
        seen=find_seen(made.model),
    )  # fmt: skip
    asked = [one for file in plan.files for record in file.records for _, one in record.questions]
    found = {(one.question_id, one.video_id): one.split for one in asked}
    tests = {key for key, split in found.items() if split == "test"}
    splits = chosen.splits
    assert {(q.question_id, q.video_id) for q in splits.test} == tests
    assert {(q.question_id, q.video_id): q.split for s in SPLITS for q in splits.of(s)} == found
    assert not {video for _, video in tests} & seen
    # Where it has seen them all, the figure says so.
    assert bool(chosen.flatters) == (not tests) and chosen.name == ("test" if tests else "val")


def test_questions_tells_the_same(
    made: Made, scored: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["questions", *made.files, "--cache", made.cache.path]
    assert framebank.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cache"]
    by_status: dict[str, dict[str, None]] = {}
    for row in scored.values():
        by_status.setdefault(row["status"], {})[row["video_id"]] = None
    assert list(found["missing"]) == list(by_status["not_in_cache"])
    assert found["quarantined"] == sorted(by_status["quarantined"])
    for row in scored.values():
        if row["status"] == "not_in_cache":
            assert found["missing"][row["video_id"]] in row["reason"]
    answered = [row for row in scored.values() if row["status"] == "answered" and row["truth"]]
    assert sum(found["train"].values()) == len(answered)
    assert framebank.main([*words, "--seed", "5", "--val-share", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cache"]
    counts = json.loads((Path(made.model) / "lineage.json").read_text())["questions"]
    assert found["train"] == counts


def test_ask_finds_the_same_files_and_says_the_same(
    made: Made, scored: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    for name in (*DONE, *QUARANTINED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, clip in ASKED.items():
        if clip is not None and name.count("/") == clip.count("/"):  # a path names its folder
            assert find_clip(str(tmp_path / name)) == str(tmp_path / clip), name
        else:
            with pytest.raises(UsageError, match="no such clip"):
                find_clip(str(tmp_path / name))
    for row in list(scored.values())[::9]:
        if row["status"] == "answered":
            clip = make_extracted(row["video_id"])
            stored = clip.features.astype(np.float16).astype(np.float32)
            told, _ = answer_question(made.model, stored, row["question"], top=5, choices=[])
            assert told == [
                {
                    "answer": one["answer"],
                    "probability": pytest.approx(one["probability"], abs=1e-5),
                }
                for one in row["answers"]
            ]


def test_evaluate_and_retrain_read_each_catalog_once(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, reads = str(made.folder / "cache"), collections.Counter[str]()
    read_file = catalog.read_file

    def counted(path: str, columns: Any, **how: Any) -> Any:
        reads[path] += 1
        return read_file(path, columns, **how)

    monkeypatch.setattr(catalog, "read_file", counted)
    words = ["evaluate", "--model", made.model, "--cache", cache, "--out"]
    words += [str(tmp_path / "out"), "--max-unmatched-ratio", "1", "--questions", *made.files]
    assert framebank.main(words) == 0  # trains baselines too
    assert list(reads.values()) == [1]
    reads.clear()
    config = tmp_path / "retrain.toml"
    config.write_text(
        f'registry = "registry"\ncache = "{cache}"\nquestions = {made.files}\n'
        "[model]\nkind = 'lstm'\nframe_units = 4\nquestion_units = 4\ndense_units = 4\n"
        "[train]\nepochs = 1\nmax_unmatched_ratio = 1\n"
    )
    assert framebank.main(["retrain", "--config", str(config)]) == 0
    assert list(reads.values()) == [1]
