"""A real Flink inside Beam's job server: the bytes of the local runner, and nothing left behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attackers.killing import MarkedJob
from tests.made import built, forked

QUICK = [
    "--precision", "float32", "--backbone", "mobilenet_v2", "--weights", "random:0",
    "--videos-per-shard", "1",
]  # fmt: skip


@pytest.fixture
def marked(tmp_path: Path) -> Iterator[MarkedJob]:
    (tmp_path / "tmp").mkdir()
    family = MarkedJob(
        {
            "TMPDIR": str(tmp_path / "tmp"),
            "FRAMEBANK_FLINK_JOB_SERVER_JAR": str(built.job_server_jar()),
        }
    )
    yield family
    family.kill_all()


def records(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("shards/*.tfrecord")}


def test_the_same_bytes_and_a_clean_end(marked: MarkedJob, clips: Path, tmp_path: Path) -> None:
    direct, flink = tmp_path / "direct", tmp_path / "flink"
    for cache, words in ((direct, []), (flink, ["--runner", "FlinkRunner"])):
        own = ["extract", str(clips), "--cache", str(cache), "--sample", "every=3", *QUICK]
        done = forked.run("-m", "framebank", *own, *words, env=marked.environment)
        assert done.returncode == 0, done.stderr
        assert all(
            line.startswith(("framebank: ", "extract: ")) for line in done.stderr.split("\n")[:-1]
        )
    assert len(records(direct)) == 6 and records(flink) == records(direct)
    assert marked.wait_until_gone(10) == {}
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_java_outlives_the_command(
    marked: MarkedJob, clips: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = ["extract", clips, "--cache", tmp_path / "cache", "--sample", "all", *QUICK]
    process = marked.framebank(*words, "--runner", "FlinkRunner", log=tmp_path / "log")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("tmp/*/java/*")) and time.monotonic() < deadline:
        time.sleep(0.05)  # until Java is there
    process.send_signal(number)
    process.wait(20)
    assert marked.wait_until_gone(10) == {}
    assert "Traceback" not in (tmp_path / "log").read_text()
    if number == signal.SIGINT:
        assert process.returncode == 128 + number
        assert list((tmp_path / "tmp").iterdir()) == []
