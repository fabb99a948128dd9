"""The ways: commands that parse, a ledger that a kill cannot fool, and the page."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

import framebank as fb
from framebank import cli
from framebank.features.cache import catalog, layout
from framebank.features.errors import UsageError
from framebank.train.ways.command import add_arguments
from framebank.train.ways.ledger import Ledger
from framebank.train.ways.plan import CLIPS, FRAMES, PIXELS, WAYS, cache_commands, train_command
from framebank.train.ways.report import _behind, advice, table, took, write_report
from tests.made.chromium import FAULTS, find_chromium, open_page
from tests.made.made_cache import SPEC, make_extracted, make_shard

CLASSES = ("jump", "<b>run</b>")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["clips/", "--cache-dir", "out", "--labels", "a.csv", *words])


def test_each_step_is_a_command_that_the_command_line_takes(tmp_path: Path) -> None:
    args = parsed("--labels", "b.csv", "--pixels", "32", "--group-by", "^(.)", "--epochs", "3")
    made = cache_commands(args, tmp_path, ["--runner", "PrismRunner"])
    backbones = {}
    for name, words in made.items():
        found, rest = cli.command_parser(words[0]).parse_known_args(words[1:])
        assert rest == ["--runner", "PrismRunner"] and found.inputs == ["clips/"]
        backbones[name] = (found.backbone, found.sample, found.weights)
    assert backbones == {
        FRAMES: ("inception_v3", "uniform=8", "imagenet"),
        PIXELS: ("pixels:32", "uniform=8", "imagenet"),
        CLIPS: ("c3d", "all", "random:0"),
    }
    budgets = set()
    for way in WAYS:
        words = train_command(way, args, tmp_path)
        found = cli.command_parser(words[0]).parse_args(words[1:])
        assert found.questions == ["a.csv", "b.csv"] and found.model_kind == way.kind
        budgets.add((found.epochs, found.patience, found.batch_size, found.seed, found.group_by))
    assert budgets == {(3, 15, 32, 0, "^(.)")}
    assert [way.number for way in WAYS] == ["1", "2", "3", "4", "5", "6a", "6b", ""]


def test_a_kill_is_seen_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    options = {"epochs": 3, "labels": ["a.csv"]}
    ledger = Ledger(folder, options)
    with ledger.running("train vote", key="k") as step:
        step.result = {"accuracy": 1.0}
    with pytest.raises(RuntimeError), ledger.running("train mlp", key="k"):
        raise RuntimeError
    monkeypatch.setattr("framebank.train.ways.ledger._BEAT_S", 0.01)
    killed = ledger.running("extract frames")
    killed.__enter__()
    while Ledger(folder, options).step("extract frames").seconds < 0.05:
        time.sleep(0.01)
    again = Ledger(folder, options)
    assert again.step("train vote").result == {"accuracy": 1.0}
    assert not again.step("train vote").killed and not again.step("train mlp").killed
    assert again.step("extract frames").killed
    with again.running("train vote", key="other clips") as step:
        assert step.result == {} and step.begun == 1
    killed.__exit__(None, None, None)  # for it is still alive


@pytest.mark.parametrize("text", ["{", "[]", '{"options": {}}', '{"options": {}, "steps": 3}'])
def test_a_damaged_ledger_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "ways.json").write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        Ledger(tmp_path, {})


def test_other_options_and_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    Ledger(tmp_path / "out", {"epochs": 3})
    with pytest.raises(UsageError, match="epochs 3"):
        Ledger(tmp_path / "out", {"epochs": 4})
    (tmp_path / "mine").write_text("")
    with pytest.raises(UsageError, match="other things"):
        Ledger(tmp_path, {"epochs": 3})


def test_questions_and_missing_files_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("video_id,question,answer\na.mp4,what?,that\n")
    (tmp_path / "cut.csv").write_text(
        "video_id,label,split,group\na.mp4,x,train,g\nb.mp4,y,test,g\n"
    )
    for name, told in (
        ("q.csv", "name the class"), ("none.csv", "none.csv"), ("cut.csv", "both sides")
    ):  # fmt: skip
        with pytest.raises(UsageError, match=told):
            fb.ways("clips/", cache_dir=tmp_path / "out", labels=tmp_path / name)
    (tmp_path / "good.csv").write_text("video_id,label\na.mp4,x\nb.mp4,y\n")
    good: dict[str, Any] = {
        "cache_dir": tmp_path / "out",
        "labels": tmp_path / "good.csv",
        "weights": "random:0",
    }
    for wrong, told in (
        ({"pixels": 4}, "pixels need a size"),
        ({"clip_weights": "none.caffemodel"}, "none.caffemodel"),
        ({"clip_sample": "some"}, "some"),
        ({"backbone": "pixels:32", "weights": "imagenet"}, "ways 1, 4 and 5"),
    ):
        with pytest.raises(UsageError, match=told):
            fb.ways("clips/", **good | wrong)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def out(tmp_path: Path) -> tuple[Path, argparse.Namespace, Ledger]:
    """A folder in which all ways are trained on twelve clips, as their files tell."""
    folder, labels = tmp_path / "out", tmp_path / "labels.csv"
    folder.mkdir()
    ids = [f"{number}.mp4" for number in range(12)]
    rows = [f"{name},{CLASSES[number % 2]},test" for number, name in enumerate(ids)]
    labels.write_text("\n".join(["video_id,label,split", *rows]) + "\n")
    args = parsed()
    args.labels = [str(labels)]
    ledger = Ledger(folder, {})
    for number, name in enumerate((FRAMES, PIXELS, CLIPS)):
        weights = "random:0" if name == CLIPS else "file"
        spec = dataclasses.replace(SPEC, weights=weights, input_size=300 + number)
        cache = str(folder / "caches" / name)
        layout.write_spec(cache, spec)
        made = [make_extracted(video_id, rows=1 + number) for video_id in ids]
        run_id = "20261121-0100"
        catalog.write_catalog(cache, run_id, make_shard(cache, "s", made, run_id=run_id, spec=spec))
        with ledger.running(f"extract {name}"):
            pass
    ledger.step("extract clips").begun += 1  # and was killed
    for place, way in enumerate(WAYS):
        model = folder / "models" / way.name
        model.mkdir(parents=True)
        (model / "model.keras").write_bytes(bytes(1000))
        wrong = {0, 1, 2} if way.name == "features_rnn" else set(range(min(9, 4 + place)))
        lines = [
            {"question_id": str(n + 1), "video_id": name, "question": "", "truth": CLASSES[n % 2],
             "answers": {"model": None if n in wrong else CLASSES[n % 2]}}
            for n, name in enumerate(ids)
        ]  # fmt: skip
        (model / "judged.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        metrics: dict[str, Any] = {
            "split": "test",
            "baselines": {"majority": {"accuracy": 0.5}},
            "parameters": 10 ** (place + 1),
            "led_by": {"majority": [0.25, 0.1, 0.4]} if way.name == "clips_mlp" else {},
            "unmatched": 2 if way.cache == CLIPS else 0,
            "unmatched_videos": ["<i>.mp4", "gone.mp4"],
            "epochs": 0 if way.name == "probe" else 4,
            "best_epoch": 2,
        }
        (model / "metrics.json").write_text(json.dumps(metrics))
        history = [
            {"model": way.kind, "epoch": epoch, "accuracy": epoch / 4, "val_accuracy": epoch / 5}
            for epoch in range(1, metrics["epochs"] + 1)
        ]
        (model / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in history))
        with ledger.running(f"train {way.name}", key="k"):
            pass
        ledger.step(f"train {way.name}").seconds = 10.0 * (place + 1)
    return folder, args, ledger


def test_the_figures_are_those_of_the_files(
    out: tuple[Path, argparse.Namespace, Ledger],
) -> None:
    folder, args, ledger = out
    found = write_report(folder, args, ledger, typed="framebank ways")
    assert json.loads((folder / "report.json").read_text()) == found
    ways = {row["name"]: row for row in found["ways"]}
    assert found["best"] == "features_rnn" and found["majority"] == 0.5 and found["judged"] == 12
    assert ways["features_rnn"]["accuracy"] == 9 / 12
    assert ways["vote"]["accuracy"] == 8 / 12 and ways["clips_mlp"]["accuracy"] == 3 / 12
    low, high = ways["features_rnn"]["interval"]
    assert 0.4 < low < 0.75 < high <= 1
    # One clip of twelve apart may be chance; six of twelve hardly are.
    assert not ways["vote"]["behind_best"]["surely"] and ways["clips_mlp"]["behind_best"]["surely"]
    assert ways["clips_rnn"]["killed"] == {"extraction_s": True, "training_s": False}
    assert found["caches"]["pixels"]["rows"] == 24
    assert [note for note in found["notes"] if "left out" in note] == [
        "Labels were left out, as their clips were not found or are quarantined (<i>.mp4, "
        "gone.mp4, 2 in all), in the caches of features of clips of 16 frames."
    ]
    worse = "Worse than the majority answer, with 95 % confidence: 6b. clips, MLP."
    assert worse in found["notes"]
    assert any("RANDOM (random:0)" in note for note in found["notes"])
    first, often = found["advice"][:2]
    assert first["way"] == "4. features, RNN" and "1. frames that vote" in first["why"]
    assert often["way"] == "1. frames that vote" and "10 s" in often["why"]
    told = table(found)
    assert "75.0%" in told and "closed formula" in told and "≈" in told


def test_a_closed_formula_that_is_as_good_is_named_first(
    out: tuple[Path, argparse.Namespace, Ledger],
) -> None:
    folder, args, ledger = out
    rows = write_report(folder, args, ledger, typed="")["ways"]
    rows[-1]["accuracy"] = 0.75
    best = next(row for row in rows if row["name"] == "features_rnn")
    assert advice(rows, best)[0]["way"] == "the closed formula"


def test_what_goes_one_way_on_five_clips_is_not_sure() -> None:
    for clips, sure in ((5, False), (6, True)):
        groups = {name: [str(number) for number in range(clips)] for name in "ab"}
        found = _behind("b", "a", {"a": [True] * clips, "b": [False] * clips}, groups, seed=0)
        assert found is not None and found["surely"] == sure


def test_a_majority_that_nothing_beats_is_remarked(
    out: tuple[Path, argparse.Namespace, Ledger],
) -> None:
    folder, args, ledger = out
    path = folder / "models" / "vote" / "metrics.json"
    for majority, told in ((0.74, False), (0.75, True)):
        metrics = json.loads(path.read_text())
        path.write_text(json.dumps(metrics | {"baselines": {"majority": {"accuracy": majority}}}))
        notes = write_report(folder, args, ledger, typed="")["notes"]
        assert any("right more often than the majority" in note for note in notes) == told


def test_times_are_said_as_people_say_them() -> None:
    assert [took(5.4), took(89.4), took(90), took(7200), took(3, about=True)] == [
        *("5 s", "89 s", "1.5 min", "2.0 h", "≈ 3 s")
    ]


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on PATH")
def test_the_page_is_whole_on_a_desk_and_on_a_phone(
    out: tuple[Path, argparse.Namespace, Ledger],
) -> None:
    folder, args, ledger = out
    write_report(folder, args, ledger, typed="framebank ways 'clips & more'")
    text = (folder / "index.html").read_text()
    assert "<b>run</b>" not in text and text.count("<figure>") == 7
    with open_page(str(find_chromium())) as page:
        for width, dark in ((1280, False), (390, False), (390, True)):
            page.show((folder / "index.html").as_uri(), width=width, dark=dark)
            assert page.evaluate(FAULTS) == []
        assert page.problems == []
        assert {address.partition(":")[0] for address in page.requests} <= {"file", "data"}
