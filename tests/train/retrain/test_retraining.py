"""retraining with a real trainer: promoted, nothing new, kept aside; warm starts; the held
split that neither model has seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import framebank
from framebank.features.asking.trained_model import NotFiniteError, load_model
from framebank.features.cache.reader import open_cache
from framebank.features.errors import FramebankError
from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import Seen
from framebank.features.questions.splits import follow_videos
from framebank.features.stop_signals import StopRequest
from framebank.train.data.joining import question_lines
from framebank.train.data.splits import is_held, part_questions, seen_by
from framebank.train.fit.fits import start_from
from framebank.train.retrain.config import HeldConfig, RetrainConfig
from framebank.train.retrain.promotion import Decision, judge
from framebank.train.retrain.registry import Registry
from framebank.train.retrain.retraining import _work_folder, look
from tests.attackers.killing import MarkedJob
from tests.made import forked
from tests.made.made_cache import SPEC
from tests.made.made_model import ANSWERS, make_model, spoil_weights
from tests.made.made_questions import make_direction_cache, read_one, write_jsonl


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    rows = make_direction_cache(str(folder / "cache"))
    rows = [{name: row[name] for name in row if name != "split"} for row in rows]
    write_jsonl(folder / "q.jsonl", rows)
    dice = random.Random(3)  # nothing can be learnt of these, by no formula either
    muddled = [row | {"answer": dice.choice(("loading", "unloading"))} for row in rows[:60]]
    write_jsonl(folder / "muddled.jsonl", muddled)
    return folder


def retrain(made: Path, registry: Path, *, questions: str, start: str, train: str) -> dict:
    config = registry.parent / "retrain.toml"
    config.write_text(
        f'registry = "{registry}"\ncache = "{made}/cache"\nquestions = ["{made}/{questions}"]\n'
        f'start = "{start}"\n[held]\nshare = 0.2\nleast = 5\n'
        f'[model]\nkind = "lstm"\n[train]\n{train}\n'
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    words = ["retrain", "--config", config, "--json"]
    done = forked.run("-m", "framebank", *words, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"said": done.stderr}


def test_a_folder_per_class_is_looked_at_by_its_names(made: Path, tmp_path: Path) -> None:
    config = RetrainConfig("registry", str(made / "cache"), (str(tmp_path),))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.mp4").touch()
    one, again = (look(config, fingerprint="f") for _ in range(2))
    (tmp_path / "run" / "b.mp4").touch()
    assert one.looks_like(again) and not one.looks_like(look(config, fingerprint="f"))


def test_a_better_model_is_promoted_and_a_worse_one_kept_aside(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    registry = Registry(str(folder))
    weak = "epochs = 1\nlearning_rate = 1e-5"
    first = retrain(made, folder, questions="muddled.jsonl", start="fresh", train=weak)
    assert first["event"] == "promoted" and first["figures"]["accuracy"] < 0.8

    strong = "epochs = 25\npatience = 8"
    second = retrain(made, folder, questions="q.jsonl", start="warm", train=strong)
    assert second["event"] == "promoted", second
    assert f"weights start from {registry.folder(first['version'])}" in second["said"]
    figures = second["figures"]
    assert figures["accuracy"] > 0.9 and figures["interval"][0] > 0
    assert figures["accuracy_in_use"] < figures["accuracy"] - 0.1
    words = ["models", "show", "--json", f"--registry={folder}", "current"]
    shown = forked.run("-m", "framebank", *words)
    assert shown.returncode == 0, shown.stderr
    started = json.loads(shown.stdout)["made_from"]["warm_start"]
    assert started == registry.folder(first["version"])
    again = retrain(made, folder, questions="q.jsonl", start="warm", train=strong)
    assert again["event"] == "nothing new"

    worse = retrain(made, folder, questions="q.jsonl", start="fresh", train=weak)
    assert worse["event"] == "kept aside" and "worse than the probe" in worse["reason"]
    assert registry.current().version == second["version"]
    seen = json.loads(subprocess.run(
        ["gzip", "-dc", f"{registry.folder(second['version'])}/seen.json.gz"],
        capture_output=True, check=True,
    ).stdout)  # fmt: skip
    assert not any(is_held(video_id, share=0.2) for video_id in seen["videos"])
    assert len(seen["videos"]) == len(seen["contents"])
    assert len(seen["videos"]) + figures["held_videos"] == 120
    load_model(registry.folder(second["version"]))


def test_kills_of_a_real_retraining_leave_the_model_in_use(made: Path, tmp_path: Path) -> None:
    """SIGKILL at moments of its whole life; FRAMEBANK_KILLS says how many (20 take ten minutes)."""
    registry = Registry(str(tmp_path / "registry"))
    config = tmp_path / "retrain.toml"
    config.write_text(
        'registry = "registry"\nwork = "work"\nquestions = ["q.jsonl"]\n'
        f'cache = "{made}/cache"\n[held]\nshare = 0.2\nleast = 5\n'
        '[model]\nkind = "lstm"\n[train]\nepochs = 1\n'
        "[promote]\nmargin = 0\nconfidence = 0.5\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    job = MarkedJob({"TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": ""})
    log, dice = tmp_path / "log", random.Random(7)

    def start() -> forked.Forked:
        return job.framebank("retrain", "--config", config, log=log)

    rows = (made / "muddled.jsonl").read_text()
    (tmp_path / "q.jsonl").write_text(rows)
    forked.ready()
    started = time.monotonic()
    assert start().wait(200) == 0, log.read_text()
    takes_s = time.monotonic() - started
    (tmp_path / "q.jsonl").write_text((made / "q.jsonl").read_text())
    try:
        for _ in range(int(os.environ.get("FRAMEBANK_KILLS", "2"))):
            process = start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(takes_s * dice.uniform(0.02, 1.0))
            process.kill()
            process.wait()
            assert not job.wait_until_gone(10)
            version = registry.current().version
            assert (
                version is not None
                and framebank.main(["models", "list", "--registry", registry.path]) == 0
            )
            model = load_model(registry.folder(version))
            said = model.predict(np.zeros((1, 5, 24), np.float32), [b"Is the box loaded?"])
            assert np.isfinite(said).all() and said.shape == (1, len(model.head.answers))
        assert start().wait(200) == 0, log.read_text()
    finally:
        job.kill_all()
    *_, last, end = log.read_text().splitlines()
    assert re.match("promoted|kept aside|nothing new", last) and "framebank models list" in end
    assert set(registry.files()) == set(registry.versions()) and len(registry.versions()) == 2
    assert len(registry.history()) == 2 and not list(temporary.iterdir())
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        ".lock", "making.json"
    ]  # fmt: skip


def test_a_model_of_nan_neither_judges_nor_is_used(made: Path, tmp_path: Path) -> None:
    good, bad = (make_model(tmp_path / name, SPEC, width=24) for name in ("good", "bad"))
    spoil_weights(bad)
    config = RetrainConfig("r", "c", ("q",), held=HeldConfig(least=2))
    (good / "metrics.json").write_text("{}")
    cache = open_cache(str(made / "cache"))
    judged = [
        Question(str(n), f"{n:03d}-loading.mp4", "what is it?", ANSWERS[n % 2]) for n in range(9)
    ]

    def decide(candidate: Path, in_use: Path | None) -> Decision:
        rival = None if in_use is None else str(in_use)
        given = {"learnt": [], "floor": str(candidate), "stop": StopRequest()}
        return judge(config, str(candidate), rival, cache, judged, **given)

    for in_use in (None, good, bad):
        decision = decide(bad, in_use)
        assert not decision.better and "not finite" in decision.reason and not decision.figures
    decision = decide(good, bad)
    assert decision.better and "in use answers nothing" in decision.reason
    assert 0 <= decision.figures["accuracy"] <= 1
    decision = decide(good, good)
    assert not decision.better and "is needed" in decision.reason
    with pytest.raises(NotFiniteError):
        start_from(None, str(bad), words=(), answers=(), say=print)


def test_a_work_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = RetrainConfig("r", "c", ("q",), work=str(tmp_path / "file" / "work"))
    told = pytest.raises(FramebankError, match=r"cannot write[\s\S]*file/work")
    with told, _work_folder(config):
        raise AssertionError


def test_a_copy_of_a_held_video_that_was_trained_on_judges_nobody() -> None:
    contents = {"a": "1", "held": "2", "copy": "2", "other": "3"}
    seen = seen_by([Question("1", "a", "?", "x"), Question("2", "copy", "?", "x")], contents)
    assert seen.has("held", contents) and not seen.has("other", contents)
    assert not seen.has("of-no-hash", contents) and (seen | Seen()) == seen
    assert seen.has("a", contents | {"a": "9"})  # the same id with other bytes


def test_a_video_stays_held_whatever_is_added() -> None:
    ids = [f"clips/{number}.mp4" for number in range(20_000)]
    held = {video_id for video_id in ids if is_held(video_id, share=0.1)}
    assert 0.09 < len(held) / len(ids) < 0.11
    assert held < {video_id for video_id in ids if is_held(video_id, share=0.2)}
    questions = [Question(str(n), video_id, "what?", "a") for n, video_id in enumerate(ids[:500])]
    learnt, judged = part_questions(questions, share=0.1)
    assert {q.video_id for q in judged} == held & set(ids[:500])
    assert not held & seen_by(learnt, {}).videos and len(learnt) + len(judged) == 500


def test_questions_to_train_on_are_read_back_as_they_were(tmp_path: Path) -> None:
    questions = [
        Question("1", "a.mp4", "wh\u2028at?", "ü", split="val", type="t"),
        Question("2", "a.mp4", "what?", "b"),
        Question("3", "7", "is it?", "yes", head="yes_no"),
        Question("4", "b", "which?", "y", head="choice", choices=("x", "y"), right=1),
        Question("5", "c", "how many?", "3", head="count", split="test"),
        Question("6", "c", "what?", "b"),
    ]
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"".join(question_lines(follow_videos(questions, "train"))))
    found = read_one(str(path), set_name="plain")
    splits = [question.split for question in found]
    assert splits == ["val", "val", "train", "train", "test", "test"]
    for question, read in zip(questions, found, strict=True):
        text = " ".join(question.question.split())
        assert dataclasses.replace(question, question=text, split=read.split) == read
    assert seen_by(questions, {}).videos == {"a.mp4", "7", "b"}


def test_a_warm_start_keeps_words_and_answers_by_name(tmp_path: Path) -> None:
    import keras

    from framebank.train.model.config import ModelConfig
    from framebank.train.model.frames import FrameStatistics
    from framebank.train.model.network import build_network

    folder = make_model(tmp_path / "model", SPEC, width=6)
    words = json.loads((folder / "vocabulary.json").read_text())["words"]
    old = keras.saving.load_model(folder / "model.keras").get_layer("lstm")
    sizes = ModelConfig(projection=8, frame_units=8, word_size=4, question_units=4, dense_units=8)
    statistics = FrameStatistics(2, np.zeros(6), np.ones(6))
    new_words = [*words[:2], "zebra", *reversed(words[2:])]
    answers = ["green", *reversed(ANSWERS)]
    network = build_network(sizes, statistics, words=len(new_words), answers=len(answers))
    said: list[str] = []
    assert start_from(network, str(folder), words=new_words, answers=answers, say=said.append)
    there, here = (one.get_layer("embedding").get_weights()[0] for one in (old, network))
    for number, word in enumerate(words):
        np.testing.assert_array_equal(here[new_words.index(word)], there[number])
    for there, here in zip(
        old.get_layer("answers").get_weights(),
        network.get_layer("answers").get_weights(),
        strict=True,
    ):
        for number, answer in enumerate(ANSWERS):
            np.testing.assert_array_equal(here[..., answers.index(answer)], there[..., number])
    np.testing.assert_array_equal(
        network.get_layer("project").get_weights()[0], old.get_layer("project").get_weights()[0]
    )
    assert "weights start from" in said[0]
    other = build_network(
        dataclasses.replace(sizes, kind="question_only"), statistics, words=9, answers=2
    )
    assert not start_from(other, str(folder), words=words, answers=["a", "b"], say=said.append)
    assert "built in another way" in said[1]
