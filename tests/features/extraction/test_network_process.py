"""The network in a process of its own: the same bits, the same errors, and nothing left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import framebank
from framebank.features.errors import JobError, UsageError
from framebank.features.extraction import network_process
from framebank.features.extraction.network_process import NetworkProcess
from framebank.features.extraction.one_clip import build_network, make_spec
from framebank.features.extraction.precision import Settled
from framebank.features.machine import has_bfloat16
from framebank.features.spec import SpecChoice
from tests import ROOT
from tests.attackers.killing import MarkedJob
from tests.clips.plain_clips import write_clip

CHOICE = SpecChoice(backbone="mobilenet_v2", weights="random:0", precision="float32")
SPEC, WEIGHTS = make_spec(CHOICE)
WORDS = [
    *("--sample", "uniform=6", "--backbone", "mobilenet_v2", "--weights", "random:0"),
    *("--precision", "float32", "--videos-per-shard", "1"),
]


def pictures(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, SPEC.input_size, SPEC.input_size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def process() -> Iterator[NetworkProcess]:
    with contextlib.closing(NetworkProcess()) as process:
        yield process


def test_it_computes_the_same_bits(process: NetworkProcess) -> None:
    process.prepare(SPEC, WEIGHTS, batch_size=12)
    there = process.build(SPEC, WEIGHTS, batch_size=12)
    here = build_network(SPEC, WEIGHTS, batch_size=12)
    assert (there.feature_dim, there.step, there.batch_size) == (1280, here.step, 12)
    assert there.in_flight == here.in_flight == 1
    for count in (12, 3, 12, 1):  # what lay there before has no part in it
        images = pictures(count, seed=count)
        np.testing.assert_array_equal(there(images), here(images))


def test_it_holds_several_networks(process: NetworkProcess) -> None:
    other, weights = make_spec(dataclasses.replace(CHOICE, weights="random:1"))
    one = process.build(SPEC, WEIGHTS, batch_size=2)
    two = process.build(other, weights, batch_size=2)
    images = pictures(2)
    assert not np.array_equal(one(images), two(images))
    np.testing.assert_array_equal(two(images), build_network(other, weights)(images))


def test_what_is_raised_there_is_raised_here(process: NetworkProcess) -> None:
    with pytest.raises(UsageError, match="no such layer") as wrong:
        process.build(dataclasses.replace(SPEC, layer="none"), WEIGHTS, batch_size=2)
    assert wrong.value.got == "'none'" and wrong.value.todo
    with pytest.raises(ValueError, match="expected uint8") as ours:  # of a network that is there
        process.build(SPEC, WEIGHTS, batch_size=2)(pictures(3))
    assert "frozen_network.py" in ours.value.__notes__[0]  # where it happened
    assert process.build(SPEC, WEIGHTS, batch_size=2)(pictures(1)).shape == (1, 1280)


@pytest.mark.skipif(not has_bfloat16(), reason="this processor does not multiply in bfloat16")
def test_it_measures_and_keeps_what_was_measured(process: NetworkProcess) -> None:
    found = process.settle(SPEC, WEIGHTS, pictures(8), batch_size=32)
    assert isinstance(found, Settled) and found.precision in ("float32", "bfloat16")
    chosen = dataclasses.replace(SPEC, precision=found.precision)
    assert process.build(chosen, WEIGHTS, batch_size=32)(pictures(1)).shape == (1, 1280)


def test_what_only_tensorflow_can_read_is_told() -> None:
    import tensorflow as tf
    from tensorflow.errors import InvalidArgumentError, ResourceExhaustedError

    with tf.Graph().as_default():
        node = tf.constant(0).op  # which nobody can pickle
    for kind, told in ((ResourceExhaustedError, MemoryError), (InvalidArgumentError, RuntimeError)):
        error = network_process._that_travels(kind(None, node, "no room for a tensor"))
        assert type(pickle.loads(pickle.dumps(error))) is told
        assert str(error) == f"{kind.__name__}: no room for a tensor"


def test_one_that_is_killed_is_told_and_not_waited_for() -> None:
    with contextlib.closing(NetworkProcess()) as process:
        network = process.build(SPEC, WEIGHTS, batch_size=2)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(JobError, match=r"(?s)the network ended.*signal 9.*same command again"):
            network(pictures(2))


def test_it_ends_with_the_process_that_began_it() -> None:
    code = """
import os, signal
from framebank.features.extraction.network_process import NetworkProcess
print(NetworkProcess().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while Path(f"/proc/{done.stdout.strip()}").exists():
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("changes", "is_one"),
    [
        ({}, True),
        ({"precision": "bfloat16"}, True),
        ({"precision": "auto"}, True),
        ({"precision": "int8"}, True),
        ({"backbone": "pixels"}, False),
        ({"backbone": "net.keras"}, False),
        ({"layer": "block_5_add"}, False),
    ],
)
def test_it_is_begun_where_a_command_gains_by_it(
    changes: dict[str, str], is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(network_process, "_GPUS", ())
    choices = [CHOICE, dataclasses.replace(CHOICE, **changes)]
    with contextlib.ExitStack() as held:
        network_process.begin(held, choices)
        assert network_process.serving() is None  # nobody said that this is a command's process
        monkeypatch.setattr(network_process, "is_own_process", lambda: True)
        network_process.begin(held, choices)
        network_process.begin(held, choices)
        assert (network_process.serving() is not None) == is_one
    assert network_process.serving() is None


def test_a_command_computes_there_and_goes_on_after_its_end(tmp_path: Path) -> None:
    clips, cache, log = tmp_path / "clips", tmp_path / "cache", tmp_path / "log"
    clips.mkdir()
    for number in range(20):
        write_clip(clips / f"c{number:02d}.mp4", frames=12, seed=number)
    job = MarkedJob()
    command = [sys.executable, "-m", "framebank", "extract", clips, "--cache", cache, *WORDS]
    with contextlib.ExitStack() as held:
        held.callback(job.kill_all)
        running = job.start(command, log=log)
        deadline = time.monotonic() + 120
        while "to extract into" not in log.read_text():  # the decoders are about to begin
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        (network,) = [pid for pid, kind in job.processes().items() if kind == "network"]
        os.kill(network, signal.SIGKILL)
        assert running.wait(60) == 1, log.read_text()
        said = log.read_text()
        assert "the process that computes the network ended" in said and "Traceback" not in said
        assert job.wait_until_gone(30) == {}
        assert job.start(command, log=log).wait(120) == 0, log.read_text()
        assert job.wait_until_gone(30) == {}
    alone = str(tmp_path / "alone")
    assert framebank.main(["extract", str(clips), "--cache", alone, *WORDS]) == 0
    there, here = framebank.open_cache(str(cache)), framebank.open_cache(alone)
    for one, other in zip(there, here, strict=True):
        assert one.video_id == other.video_id
        np.testing.assert_array_equal(one.features, other.features)


def test_of_tensorflow_no_more_is_imported_than_runs_a_graph(tmp_path: Path) -> None:
    code = """
import sys
from framebank.features import tensorflow_import
from framebank.features.extraction.one_clip import build_network
from tests.features.extraction.test_network_process import SPEC, WEIGHTS, pictures

assert "tensorflow" not in sys.modules
tensorflow_import.only_graphs()
first = build_network(SPEC, WEIGHTS)(pictures(2))
print("tensorflow" in sys.modules)
if "tensorflow" in sys.modules:  # the network was built, and more is there than parts
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(pictures(4)[:, :3, 0, 0] / 255, pictures(4)[:, :2, 0, 0] / 255, verbose=0)
print(first.tobytes().hex()[:64])
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert [one[0] for one in said] == ["True", "False"]  # made anew, then as it was kept
    assert said[0][1] == said[1][1]
