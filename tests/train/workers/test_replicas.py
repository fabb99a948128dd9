"""framebank.replicas and framebank.local_workers: several real processes train as one does, and
none of them outlives, or waits for, one that was killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from framebank.features.errors import UsageError
from framebank.train.workers.cluster import local_cluster
from tests.attackers.killing import MarkedJob
from tests.made import forked
from tests.made.made_questions import make_direction_cache, write_jsonl

OPTIONS = ["--batch-size", "8", "--patience", "99", "--no-baselines"]
START_S = 120.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    write_jsonl(folder / "q.jsonl", make_direction_cache(str(folder / "cache")))
    return folder


def test_a_strategy_that_is_none_is_named() -> None:
    from framebank.train.workers.replicas import start_workers

    with pytest.raises(UsageError, match="no such --strategy"):
        start_workers("parallel")


def words(made: Path, model: Path, *options: str, epochs: int = 24) -> list[str]:
    kind = [] if "--model-kind" in options else ["--model-kind", "lstm"]
    return [
        "train", "--cache", str(made / "cache"), "--questions", str(made / "q.jsonl"),
        "--model", str(model), "--epochs", str(epochs), *OPTIONS, *kind, *options,
    ]  # fmt: skip


def family() -> MarkedJob:
    return MarkedJob({"CUDA_VISIBLE_DEVICES": ""})


def history(model: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (model / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def calm(made: Path) -> dict[int, Path]:
    """Return the folders of undisturbed runs by 1, 2 and 4 local workers."""
    models = {}
    for count in (1, 2, 4):
        models[count] = made / f"calm-{count}"
        job, log = family(), made / f"calm-{count}.log"
        more = ["--local-workers", str(count), "--tensorboard", str(made / f"board-{count}")]
        run = job.framebank(*words(made, models[count], *more), log=log)
        assert run.wait(300) == 0, log.read_text()
        assert not job.wait_until_gone(5)
        assert "[worker 0] train: " in log.read_text()
    return models


def test_1_2_and_4_workers_reach_the_same_losses(calm: dict[int, Path]) -> None:
    alone = history(calm[1])
    for count in (2, 4):
        for row, other in zip(alone, history(calm[count]), strict=True):
            assert row["epoch"] == other["epoch"]
            for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
                assert abs(row[name] - other[name]) < 1e-3, (count, row, other)
    assert alone[-1]["loss"] < 0.5 * alone[0]["loss"]
    left, right = (json.loads((calm[count] / "metrics.json").read_text()) for count in (1, 4))
    assert left["steps"] == right["steps"] == 24 * 9 and left["accuracy"] == right["accuracy"]


def test_the_chief_alone_writes_all_of_tensorboard(made: Path, calm: dict[int, Path]) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.util.tensor_util import make_ndarray

    board = EventMultiplexer(size_guidance={"tensors": 0})  # all of them
    board.AddRunsFromDirectory(str(made / "board-2")).Reload()
    tags = {run: set(found["tensors"]) for run, found in board.Runs().items()}
    assert set(tags) == {"lstm/train", "lstm/validation", "lstm/answers"}
    assert {"epoch_loss", "epoch_learning_rate", "epoch_input_wait_ms"} <= tags["lstm/train"]
    read = [make_ndarray(one.tensor_proto) for one in board.Tensors("lstm/train", "epoch_loss")]
    assert read == pytest.approx([row["loss"] for row in history(calm[2])], rel=1e-5)
    texts = board.Tensors("lstm/answers", "answers")
    assert len(texts) == 24 and b"Is the box loaded" in make_ndarray(texts[-1].tensor_proto).item()


def test_another_kind_of_model_does_so_as_well(made: Path) -> None:
    rows = {}
    for count in (1, 2):
        model, log = made / f"bigru-{count}", made / f"bigru-{count}.log"
        more = ["--model-kind", "bigru"]
        more += ["--local-workers", "2"] if count == 2 else []
        job = family().framebank(*words(made, model, *more, epochs=4), log=log)
        assert job.wait(300) == 0
        rows[count] = history(model)
    for row, other in zip(rows[1], rows[2], strict=True):
        assert row == pytest.approx(other, abs=1e-3)
    assert json.loads((model / "metrics.json").read_text())["accuracy"] >= 0.75  # guessing is 0.5


def workers_of(job: MarkedJob) -> dict[int, int]:
    """Return the live workers of a family: index → pid."""
    found = {}
    for pid in job.processes():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        config = [each for each in environ if each.startswith(b"TF_CONFIG=")]
        if config:
            found[json.loads(config[0].split(b"=", 1)[1])["task"]["index"]] = pid
    return found


def wait_for_checkpoint(model: Path, known: set[Path], log: Path) -> None:
    """Wait until a checkpoint is there that was not known."""
    deadline = time.monotonic() + START_S
    while not set((model / "checkpoints").glob("*/*.index")) - known:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def start_by_hand(made: Path, model: Path, job: MarkedJob, log: Path) -> list[forked.Forked]:
    """Start two workers as a launcher on two machines would: each with its own TF_CONFIG."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    started = []
    for index in range(2):
        family_of_one = MarkedJob()
        family_of_one.environment = job.environment | {
            "TF_CONFIG": local_cluster(ports, index).config
        }
        more = ["--strategy", "multi_worker", "--checkpoint-every-s", "0.1"]
        path = Path(f"{log}.{index}")
        started.append(family_of_one.framebank(*words(made, model), *more, log=path))
    return started


def test_killed_three_times_and_stopped_once_ends_as_an_undisturbed_run(
    made: Path, calm: dict[int, Path]
) -> None:
    model, log, job = made / "hurt", made / "hurt.log", family()
    known: set[Path] = set()

    # A worker that nobody looks after: the other one names it and ends, within a minute.
    lone = start_by_hand(made, model, job, log)
    wait_for_checkpoint(model, known, Path(f"{log}.0"))
    lone[1].kill()
    killed = time.monotonic()
    assert lone[0].wait(60) == 1
    assert time.monotonic() - killed < 60
    said = Path(f"{log}.0").read_text()
    assert re.search(
        r"^framebank: worker 1 \(127.0.0.1:\d+\) is gone, so training stops", said, re.M
    )
    assert "Traceback" not in said
    assert not job.wait_until_gone(5)

    # A local worker, the parent, a worker that is to be preempted.
    slow = words(made, model, "--local-workers", "2", "--checkpoint-every-s", "0.1")
    for victim, number, status in (
        ("worker", signal.SIGKILL, 1),
        ("parent", signal.SIGKILL, -9),
        ("worker", signal.SIGTERM, 143),
    ):
        known = set((model / "checkpoints").glob("*/*.index"))
        log.write_text("")
        run = job.framebank(*slow, log=log)
        wait_for_checkpoint(model, known, log)
        os.kill(workers_of(job)[1] if victim == "worker" else run.pid, number)
        assert run.wait(60) == status, log.read_text()
        assert not job.wait_until_gone(10), "no orphans"
        assert not (model / "lineage.json").exists()
        if (victim, number) == ("worker", signal.SIGKILL):
            assert "framebank: worker 1 was killed by SIGKILL; all workers" in log.read_text()
    assert "Give the same command again" in log.read_text()

    run = job.framebank(*words(made, model, "--local-workers", "2"), log=log)
    assert run.wait(300) == 0, log.read_text()
    assert not job.wait_until_gone(5)
    for row, other in zip(history(calm[2]), history(model), strict=True):
        assert row == pytest.approx(other, abs=1e-6)
    assert json.loads((model / "metrics.json").read_text())["steps"] == 24 * 9


def test_a_mistake_is_told_by_the_workers_and_ends_all(made: Path, tmp_path: Path) -> None:
    job = family()
    other = ["--local-workers", "2"]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "letter.txt").write_text("dear")
    run = job.framebank(*words(made, tmp_path / "m", *other), log=tmp_path / "log")
    assert run.wait(60) == 2
    assert "other things in it" in (tmp_path / "log").read_text()
    assert not job.wait_until_gone(5)
