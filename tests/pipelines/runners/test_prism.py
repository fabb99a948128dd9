"""Prism, Beam's portable runner in Go: the same bytes as the local runner, and a clean way out."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attackers.killing import ROOT, MarkedJob
from tests.clips.plain_clips import write_clip
from tests.made import built, forked
from tests.made.made_cache import SPEC, make_cache
from tests.made.made_model import make_model

QUICK = [
    "--precision", "float32", "--backbone", "mobilenet_v2", "--weights", "random:0",
    "--sample", "uniform=2",
]  # fmt: skip
REAL = ROOT.parent / "shared" / "data" / "clips" / "natural"
LIMIT_S = 100
# Runs the command in this process, and says at its end what it has loaded.
_TELLING = (
    "import sys, framebank\n"
    "status = framebank.main(sys.argv[1:])\n"
    "print('loaded:', *sorted({'tensorflow', 'keras', 'av'} & set(sys.modules)))\n"
    "sys.exit(status)"
)


@dataclasses.dataclass(frozen=True)
class Engine:
    """Starts jobs on Prism, with temporary files of their own."""

    marked: MarkedJob
    temporary: Path
    prism: Path

    @property
    def words(self) -> list[str]:
        return ["--runner", "PrismRunner", f"--prism_location={self.prism}"]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _TELLING, *map(str, words), *self.words],
            cwd=ROOT,
            env=self.marked.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    def left(self) -> list[str]:
        """Return the processes and temporary files of jobs that have ended."""
        processes = self.marked.wait_until_gone(10, but=("pool", "sdk_worker")).values()
        return [*processes, *(path.name for path in self.temporary.iterdir())]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "tmp").mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # a pool starts `python`
    marked = MarkedJob({"TMPDIR": str(tmp_path / "tmp"), "PATH": path})
    yield Engine(marked, tmp_path / "tmp", built.prism())
    marked.kill_all()


@pytest.fixture(scope="module")
def dozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twelve clips, four of them real ones where there are any."""
    folder = tmp_path_factory.mktemp("dozen")
    real = sorted(REAL.glob("*.mp4"), key=lambda path: path.stat().st_size)[:4]
    for path in real:
        shutil.copy(path, folder)
    for number in range(12 - len(real)):
        write_clip(folder / f"m{number}.mp4", frames=8 + number, seed=number)
    return folder


@pytest.fixture(scope="module")
def direct(dozen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache of a run on the local runner."""
    cache = tmp_path_factory.mktemp("direct") / "cache"
    words = ["extract", str(dozen), "--cache", str(cache), "--videos-per-shard", "2", *QUICK]
    assert forked.run("-m", "framebank", *words).returncode == 0
    return cache


def start_pool(
    marked: MarkedJob,
    folder: Path,
    *,
    cwd: Path = ROOT,
    module: str = "apache_beam.runners.worker.worker_pool_main",
) -> list[str]:
    """Start Beam's own worker pool, or ours; return the words that send a job to it."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", module, f"--service_port={port}"]
    marked.start(command, log=folder / "pool.log", cwd=cwd)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    return ["--environment_type=EXTERNAL", f"--environment_config=localhost:{port}"]


def records(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("shards/*.tfrecord")}


def test_loopback_and_external_make_the_bytes_of_the_local_runner(
    engine: Engine, dozen: Path, direct: Path, tmp_path: Path
) -> None:
    for name, words in {"loopback": [], "pool": start_pool(engine.marked, tmp_path)}.items():
        cache = tmp_path / name
        own = ["extract", dozen, "--cache", cache, "--videos-per-shard", 2, *QUICK]
        done = engine.run(*own, *words)
        assert done.returncode == 0, done.stderr
        assert len(records(direct)) == 6 and records(cache) == records(direct)
        chatter = [line for line in done.stderr.splitlines() if not line.startswith("framebank: ")]
        assert all(line.startswith("extract: ") for line in chatter), done.stderr
        (summary,) = (json.loads(path.read_text()) for path in cache.glob("runs/*"))
        assert (summary["done"], summary["inputs"]) == (12, 12)
        # With a pool, this process submits and no more: it builds no network, decodes nothing.
        assert ("tensorflow" in done.stdout) == (name == "loopback")
        if name == "loopback":
            assert engine.left() == []


def test_a_pool_without_framebank_is_told(engine: Engine, clips: Path, tmp_path: Path) -> None:
    pool = start_pool(engine.marked, tmp_path, cwd=tmp_path)
    bare = [str(Path(sys.executable)), "-c", "import framebank"]
    if subprocess.run(bare, cwd=tmp_path, capture_output=True).returncode == 0:
        pytest.skip("Framebank is installed here, so a pool cannot lack it")
    done = engine.run("extract", clips, "--cache", tmp_path / "cache", *QUICK, *pool)
    assert done.returncode == 2
    assert "has not the Framebank that this job needs" in done.stderr
    assert "No module named 'framebank'" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("cache/runs/*"))


def test_a_worker_that_dies_before_it_is_connected_is_told(
    engine: Engine, clips: Path, tmp_path: Path
) -> None:
    """Beam's own pool says nothing, and a runner waits for its worker."""
    pool = start_pool(engine.marked, tmp_path, module="framebank.pipelines.jobs.worker_pool")
    over = threading.Event()

    def kill_workers() -> None:
        while not over.wait(0.02):
            for pid, kind in engine.marked.processes().items():
                if kind == "sdk_worker":
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        done = engine.run("extract", clips, "--cache", tmp_path / "cache", *QUICK, *pool)
    finally:
        over.set()
        killer.join()
    assert done.returncode == 1
    assert "the SDK worker " in done.stderr and "died" in done.stderr
    assert "SIGKILL (out of memory?)" in done.stderr and "Traceback" not in done.stderr
    assert "SIGKILL (out of memory?)" in (tmp_path / "pool.log").read_text()


def test_scores_are_the_same_on_every_runner(engine: Engine, tmp_path: Path) -> None:
    make_cache(str(tmp_path / "cache"))
    make_model(tmp_path / "model", SPEC, width=8)
    questions = [
        {"video_id": name, "question": "what is the man doing?", "answer": "loading"}
        for name in ("a.mp4", "b.mp4", "bad.mp4", "gone.mp4")
    ]
    text = "".join(json.dumps(row) + "\n" for row in questions)
    (tmp_path / "questions.jsonl").write_text(text)
    places = ["--model", tmp_path / "model", "--cache", tmp_path / "cache"]
    own = ["score", *places, "--questions", tmp_path / "questions.jsonl", "--out"]
    assert forked.run("-m", "framebank", *own, tmp_path / "local").returncode == 0
    for name, words in {"loopback": [], "pool": start_pool(engine.marked, tmp_path)}.items():
        done = engine.run(*own, tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
        for path in (tmp_path / "local").glob("answers-*"):
            assert (tmp_path / name / path.name).read_bytes() == path.read_bytes()
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {path.name for path in (tmp_path / "local").iterdir()}
        assert ("tensorflow" in done.stdout) == (name == "loopback")


def start_long_job(engine: Engine, clips: Path, cache: Path) -> forked.Forked:
    """Start a job that is far from done when this returns: its first shard is committed."""
    words = ["extract", clips, "--cache", cache, "--videos-per-shard", 1, "--decoders", 1]
    slow = ["--backbone", "mobilenet_v2", "--weights", "random:0", "--sample", "all"]
    process = engine.marked.framebank(*words, *slow, *engine.words, log=cache.parent / "log")
    deadline = time.monotonic() + LIMIT_S
    while not list(cache.glob("shards/*.index.json")) and time.monotonic() < deadline:
        assert process.poll() is None, (cache.parent / "log").read_text()
        time.sleep(0.02)
    return process


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    for number in range(12):
        write_clip(folder / f"l{number:02d}.mp4", frames=60, seed=number, size=(320, 240))
    return folder


def test_a_signal_ends_the_job_and_prism(engine: Engine, long_clips: Path, tmp_path: Path) -> None:
    process = start_long_job(engine, long_clips, tmp_path / "cache")
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 128 + signal.SIGTERM
    said = (tmp_path / "log").read_text()
    assert "Run the same command again" in said and "Traceback" not in said
    assert engine.left() == []
    assert not list(tmp_path.glob("cache/runs/*"))
    assert 0 < len(list(tmp_path.glob("cache/shards/*.index.json"))) < 12


def test_a_killed_job_leaves_no_prism_and_the_next_run_cleans_up(
    engine: Engine, long_clips: Path, tmp_path: Path
) -> None:
    process = start_long_job(engine, long_clips, tmp_path / "cache")
    process.kill()
    process.wait()
    assert engine.marked.wait_until_gone(10) == {}
    assert engine.left() != []  # what it had in the temporary folder
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/shards/*.index.json")}
    own = ["--backbone", "mobilenet_v2", "--weights", "random:0", "--sample", "all"]
    words = ["extract", long_clips, "--cache", tmp_path / "cache", "--videos-per-shard", 1, *own]
    words += engine.words
    done = forked.run("-m", "framebank", *words, env=engine.marked.environment, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in kept.items())
    assert engine.left() == []
