"""framebank.training and what it stands on (loop, checkpoint, stopping, model_folder, callbacks):
a model that learns the order of frames, and that a kill at any moment does not change.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from framebank.features.asking.trained_model import NotFiniteError
from framebank.features.errors import JobError, UsageError
from framebank.features.questions.question import Question
from framebank.features.questions.seen_videos import read_seen
from tests import ROOT
from tests.made import forked
from tests.made.made_model import spoil_weights
from tests.made.made_questions import QUESTION, direction_clip, make_direction_cache, write_jsonl

# As `framebank train` runs it, with a loop slow enough to be killed in the middle.
DRIVER = """
import os, sys, time
from framebank.cli import main
if os.environ.get("SLOW"):
    from framebank.features.tensorflow_import import import_tensorflow
    import_tensorflow()
    from framebank.train.fit.callbacks import ProgressLine
    ProgressLine.on_train_batch_begin = lambda *_, **__: time.sleep(float(os.environ["SLOW"]))
sys.exit(main(["train", *sys.argv[1:]]))
"""
SMALL = ["--epochs", "4", "--batch-size", "8", "--patience", "9", "--no-baselines"]
SMALL += ["--model-kind", "lstm", "--seed", "3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("direction")
    rows = make_direction_cache(str(folder / "cache"))
    write_jsonl(folder / "q.jsonl", rows)
    rows = [row | {"answer": f"never {n}"} if n == 0 else row for n, row in enumerate(rows[:80])]
    write_jsonl(folder / "few.jsonl", [*rows, rows[0] | {"video_id": "bad.mp4"}])
    return folder


def command(made: Path, model: Path, questions: str, *options: str) -> list[str]:
    return [
        "-c", DRIVER, "--cache", str(made / "cache"), "--questions", str(made / questions),
        "--model", str(model), *options,
    ]  # fmt: skip


def environment(**extra: str) -> dict[str, str]:
    root = str(ROOT)
    return os.environ | {"PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""} | extra


def run(arguments: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments, env=environment(**extra), timeout=120)


def run_here(made: Path, model: Path, questions: str, *options: str) -> int:
    from framebank.train.fit import command as train_command

    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    words = command(made, model, questions, *options)[2:]
    return train_command.run(parser.parse_args(words), [])


def weights(model: Path) -> list[np.ndarray]:
    import keras

    return keras.saving.load_model(model / "model.keras").get_weights()


def test_learns_order_and_says_so(made: Path, tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    model = tmp_path / "model"
    board = str(tmp_path / "board")
    options = ["--epochs", "25", "--patience", "8", "--json", "--tensorboard", board]
    options += ["--model-kind", "lstm"]
    words = [sys.executable, *command(made, model, "q.jsonl", *options)]  # its imports greet nobody
    given = {"env": environment(), "capture_output": True, "text": True}
    done = subprocess.run(words, check=False, timeout=120, **given)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics == json.loads((model / "metrics.json").read_text())
    assert metrics["split"] == "test" and metrics["questions"] == 24
    assert metrics["accuracy"] >= 0.9 > 0.65 >= metrics["baselines"]["order_blind"]["accuracy"]
    assert set(metrics["baselines"]) == {
        "majority", "majority_per_question", "question_only", "order_blind", "probe", "probe_blind",
    }  # fmt: skip
    assert metrics["by_type"]["direction"]["judged"] == 24
    assert "RANDOM" in done.stderr and "oneDNN" not in done.stderr
    names = {"model.keras", "vocabulary.json", "metrics.json", "history.jsonl", "lineage.json"}
    names |= {"judged.jsonl", "seen.json.gz"}
    assert {path.name for path in model.iterdir()} == names
    rows = [json.loads(line) for line in (made / "q.jsonl").read_text().splitlines()]
    seen = read_seen(str(model))
    assert seen.videos == {row["video_id"] for row in rows if row["split"] != "test"}
    assert len(seen.contents) == len(seen.videos) == 96
    lineage = json.loads((model / "lineage.json").read_text())
    assert lineage["random_weights"] and lineage["runs"] == ["20261121-0100"]
    assert list(Path(board).rglob("events*"))
    said = b"".join(path.read_bytes() for path in Path(board, "lstm").rglob("events*"))
    for name in (b"epoch_loss", b"epoch_learning_rate", b"epoch_input_wait_ms", b"| wanted |"):
        assert name in said
    loaded = keras.saving.load_model(model / "model.keras")
    answers = json.loads((model / "vocabulary.json").read_text())["answers"]
    for way in (True, False):
        clip = tf.constant(direction_clip(999, forward=way)[None])
        asked = tf.constant([QUESTION])
        best = int(np.argmax(loaded({"features": clip, "question": asked})[0]))
        assert answers[best] == ("loading" if way else "unloading")


def test_killed_and_stopped_runs_end_as_an_undisturbed_one(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm, hurt = tmp_path / "calm", tmp_path / "hurt"
    undisturbed = run(command(made, calm, "few.jsonl", *SMALL))
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert "1 questions were left out: 1 videos are not in the cache" in undisturbed.stderr

    slow = command(made, hurt, "few.jsonl", *SMALL, "--checkpoint-every-s", "0.2")
    for number, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        known = set((hurt / "checkpoints").glob("*/*.index")) if hurt.exists() else set()
        process = forked.start(*slow, env=environment(SLOW="0.2"))
        deadline = time.monotonic() + 60
        while not set((hurt / "checkpoints").glob("*/*.index")) - known:
            assert time.monotonic() < deadline and process.poll() is None, hurt
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == status, said
        assert not (hurt / "lineage.json").exists()
    assert "Give the same command again" in said and "Traceback" not in said

    with pytest.raises(UsageError, match=r"an unfinished run[\s\S]*seed: there 3, asked for 4"):
        run_here(made, hurt, "few.jsonl", *SMALL[:-1], "4")
    again = run(command(made, hurt, "few.jsonl", *SMALL))
    assert again.returncode == 0, again.stderr
    for name in ("metrics.json", "history.jsonl", "vocabulary.json"):
        assert (hurt / name).read_text() == (calm / name).read_text()
    for left, right in zip(weights(hurt), weights(calm), strict=True):
        np.testing.assert_array_equal(left, right)

    capsys.readouterr()
    assert run_here(made, hurt, "few.jsonl", *SMALL) == 0
    finished = capsys.readouterr()
    assert "nothing to do" in finished.err and finished.out == again.stdout
    with pytest.raises(UsageError, match=r"a finished model[\s\S]*questions_sha256"):
        run_here(made, hurt, "q.jsonl", *SMALL)
    (hurt / "seen.json.gz").unlink()  # as an older version left it
    assert run_here(made, hurt, "few.jsonl", *SMALL) == 0
    assert "keeps no list of the videos that it has seen" in capsys.readouterr().err
    spoil_weights(hurt)
    with pytest.raises(NotFiniteError, match=r"not finite[\s\S]*--overwrite"):
        run_here(made, hurt, "few.jsonl", *SMALL)


def test_a_fit_that_had_ended_is_taken_as_it_was(tmp_path: Path) -> None:
    """What happens to the model when a run is killed while its baselines train."""
    from framebank.features.stop_signals import StopRequest
    from framebank.train.data.batches import QuestionTable
    from framebank.train.fit.loop import FitData, fit
    from framebank.train.model.config import ModelConfig, TrainConfig
    from framebank.train.model.frames import FrameStatistics
    from framebank.train.model.network import build_network
    from tests.made.held_clips import held_features

    questions = [Question(str(n), f"{n}", "what?", "ab"[n]) for n in range(2)]
    table = QuestionTable(questions, np.full((2, 2), 1, np.int32), np.array([0, 1], np.int32))
    features = held_features({str(n): np.full((3, 4), n, np.float32) for n in range(2)})
    sizes = ModelConfig(projection=4, frame_units=4, question_units=4, dense_units=4)
    networks, results = [], []
    for _ in range(2):
        statistics = FrameStatistics(2, np.zeros(4), np.ones(4))
        network = build_network(sizes, statistics, words=3, answers=2)
        config = TrainConfig(epochs=2, batch_size=2)
        data = FitData(features, table, table)
        results.append(fit(network, data, config=config, folder=tmp_path, stop=StopRequest()))
        networks.append(network)
    assert results[0] == results[1] and results[0].steps == 2
    for left, right in zip(*(network.get_weights() for network in networks), strict=True):
        np.testing.assert_array_equal(left, right)


def test_streamed_features_train_as_well(made: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    done = run(command(made, model, "few.jsonl", *SMALL, "--memory-bytes", "1", "--json"))
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["steps"] == 4 * 6 and metrics["unmatched"] == 1
    assert metrics["oov_answers"] == 1  # one truth of the test split is in no training question


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from framebank.train.fit.callbacks import ProgressLine

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "120")
    for stream, wanted in ((Terminal(), "━"), (io.StringIO(), "train: lstm: epoch 2/3, step 6/12")):
        monkeypatch.setattr(sys, "stderr", stream)
        line = ProgressLine("lstm", epochs=3, steps=4, done=5)
        line.bar._said_s = 0.0  # long ago
        line.on_train_begin()
        line.on_epoch_begin(1)
        line.on_train_batch_end(1, {"loss": 0.5})
        line.on_train_end()
        assert wanted in stream.getvalue() and "loss 0.500" in stream.getvalue()
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    line = ProgressLine("lstm", epochs=3, steps=4)
    line.bar._said_s = 0.0
    line.on_train_begin()
    line.on_train_batch_end(1)
    line.on_train_end()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n")
    assert max(map(len, shown.split("\n"))) <= 30  # a line that wraps stays


def test_folders_that_are_no_models_are_refused(tmp_path: Path) -> None:
    from framebank.train.fit.model_folder import ModelFolder

    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"other things in it[\s\S]*letter.txt"):
        ModelFolder(str(tmp_path))
    with pytest.raises(UsageError, match="is a file"):
        ModelFolder(str(tmp_path / "letter.txt"))
    with pytest.raises(UsageError, match="local folder"):
        ModelFolder("gs://bucket/model")
    folder = ModelFolder(str(tmp_path / "m"))
    with folder.locked(), pytest.raises(UsageError, match="another"), folder.locked():
        pass
    with folder.locked():
        assert not folder.claim({"a": 0}, overwrite=False)  # and comes to nothing
        assert not folder.claim({"a": 1}, overwrite=False)
        (folder.checkpoints / "lstm").mkdir(parents=True)
        (folder.checkpoints / "lstm" / "checkpoint").touch()
        with pytest.raises(UsageError, match="an unfinished run"):
            folder.claim({"a": 0}, overwrite=False)
        folder.finish({"making": {"a": 1}})
        assert folder.claim({"a": 1}, overwrite=False)
        with pytest.raises(UsageError, match=r"a finished model[\s\S]*a: there 1, asked for 2"):
            folder.claim({"a": 2}, overwrite=False)
        assert not folder.claim({"a": 2}, overwrite=True)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    from framebank.train.fit.model_folder import ModelFolder

    (tmp_path / "file").write_text("")
    with (
        pytest.raises(JobError, match="cannot write"),
        ModelFolder(str(tmp_path / "file" / "model")).locked(),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--batch-size", "0"], "--batch-size must be above 0"),
        (["--dropout", "2"], "--dropout must be between 0 and 1"),
        (["--weight-decay", "nan"], r"--weight-decay must[\s\S]*nan"),
        (["--seed", "4294967296"], "--seed must be between 0 and 4294967295"),
        (["--val-share", "1"], "--val-share must be between 0 and 1, 1 itself not"),
        (["--max-unmatched-ratio", "0"], r"too many questions[\s\S]*bad.mp4"),
    ],
)
def test_mistakes_end_in_one_message(
    made: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run_here(made, tmp_path / "m", "few.jsonl", *options)
