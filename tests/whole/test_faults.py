"""Parts of a job are killed at random moments, in bad weather, on each runner at hand.

The cache and the clips lie in a bucket a tenth of whose calls fail. At moments drawn from a seed a
decoder, an SDK worker, the runner or the submitter is killed with SIGKILL; then the same command
runs again. Nothing may be lost, done twice or left behind, and the records are those of a run that
nobody disturbed. FRAMEBANK_KILLS says how many kills each runner gets, FRAMEBANK_SEED from what.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import framebank
from framebank.features.cache import layout
from framebank.features.cache.catalog import catalog_rows, read_catalog
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.stores import storage
from tests.attackers.killing import MarkedJob
from tests.clips.plain_clips import write_clip
from tests.made import built
from tests.servers.bucket_servers import BucketServer, environment, free_port, serve
from tests.servers.faulty_proxy import faulty_proxy

KILLS = int(os.environ.get("FRAMEBANK_KILLS", "4"))
SEED = int(os.environ.get("FRAMEBANK_SEED", "0"))
VIDEOS = 24
QUICK = [
    "--precision", "float32", "--backbone", "mobilenet_v2", "--weights", "random:0",
    "--sample", "uniform=4", "--videos-per-shard", "2", "--max-bad-ratio", "1",
]  # fmt: skip
# A worker that a pool has just started waits 60 s (Beam's SdkHarness) for a runner that is killed.
GONE_S = 75.0
VICTIMS = ("decoder", "sdk_worker", "runner", "submitter")
Records = dict[str, tuple[bytes, list[int], list[int]]]


@dataclasses.dataclass(frozen=True)
class Truth:
    """The clips, and what an undisturbed run over them on one machine gives."""

    clips: Path
    records: Records
    states: dict[str, tuple[str, str | None]]


def records_of(cache: str) -> Records:
    return {
        record.video_id: (
            record.features.tobytes(),
            record.pts_ms.tolist(),
            record.frame_index.tolist(),
        )
        for record in framebank.open_cache(cache)
    }


def states_of(cache: str) -> dict[str, tuple[str, str | None]]:
    rows = list(catalog_rows(read_catalog(cache)))
    assert len({row.video_id for row in rows}) == len(rows)
    return {row.video_id: (row.state, row.error_class) for row in rows}


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    clips = tmp_path_factory.mktemp("clips")
    for number in range(VIDEOS - 2):
        write_clip(clips / f"c{number:02d}.mp4", frames=40, seed=number, size=(320, 240))
    (clips / "empty.mp4").touch()
    whole = (clips / "c00.mp4").read_bytes()
    (clips / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    cache = str(tmp_path_factory.mktemp("undisturbed") / "cache")
    assert framebank.main(["extract", str(clips), "--cache", cache, *QUICK]) == 0
    return Truth(clips, records_of(cache), states_of(cache))


@pytest.fixture(scope="module")
def server(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    with serve("fake-gcs-server", tmp_path_factory.mktemp("server")) as server:
        with environment(**server.environment):
            for path in sorted(truth.clips.iterdir()):
                storage.write_atomic(f"{server.bucket}/in/{path.name}", path.read_bytes())
        yield server


@contextlib.contextmanager
def direct(job: MarkedJob, folder: Path) -> Iterator[list[str]]:
    yield []


@contextlib.contextmanager
def prism(job: MarkedJob, folder: Path) -> Iterator[list[str]]:
    yield ["--runner", "PrismRunner", "--prism_location", str(built.prism())]


@contextlib.contextmanager
def prism_with_pool(job: MarkedJob, folder: Path) -> Iterator[list[str]]:
    binary = built.prism()  # before the pool, as it may skip
    port = free_port()
    pool = job.start(
        [sys.executable, "-m", "framebank.pipelines.jobs.worker_pool",
         f"--service_port={port}"],
        log=folder / "pool.log",
    )  # fmt: skip
    try:
        yield [
            "--runner", "PrismRunner", "--prism_location", str(binary),
            "--environment_type", "EXTERNAL", "--environment_config", f"localhost:{port}",
        ]  # fmt: skip
    finally:
        pool.kill()
        pool.wait()


RUNNERS: dict[str, Callable[[MarkedJob, Path], contextlib.AbstractContextManager[list[str]]]] = {
    "direct": direct,
    "prism": prism,
    "prism_with_pool": prism_with_pool,
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_kills_in_bad_weather_lose_nothing_and_do_nothing_twice(
    runner: str, truth: Truth, server: BucketServer, tmp_path: Path
) -> None:
    dice = random.Random(f"{SEED} {runner}")
    (tmp_path / "tmp").mkdir()
    with faulty_proxy(server.url, share=0.1, seed=SEED) as proxy:
        job = MarkedJob(
            server.through(proxy.url).environment
            | {
                "TMPDIR": str(tmp_path / "tmp"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            }
        )
        try:
            with RUNNERS[runner](job, tmp_path) as options:
                trial = _Trial(job, server, truth, tmp_path, options, dice, runner)
                while sum(trial.killed.values()) < KILLS:
                    trial.disturbed_run()
                trial.undisturbed_run()
                assert job.wait_until_gone(GONE_S, but=("pool",)) == {}
        finally:
            job.kill_all()
    print(f"{runner}: killed {dict(trial.killed)}, the bucket's calls {dict(proxy.drawn)}")


class _Trial:
    """The same command again and again over one cache, a new one when all was done too soon."""

    def __init__(
        self,
        job: MarkedJob,
        server: BucketServer,
        truth: Truth,
        folder: Path,
        options: list[str],
        dice: random.Random,
        name: str,
    ) -> None:
        self._job, self._server, self._truth, self._dice = job, server, truth, dice
        self._folder, self._options, self._name = folder, options, name
        self.killed: Counter[str] = Counter()
        self._caches = 0
        self._begin()

    def _begin(self) -> None:
        self._caches += 1
        self._cache = f"{self._server.bucket}/cache-{self._name}-{self._caches}"
        self._committed: dict[str, str] = {}  # sidecar → the generation it was first seen with

    def disturbed_run(self) -> None:
        """Run and kill; a job that ended with all it had to do is held against the truth."""
        process = self._start()
        while process.poll() is None and sum(self.killed.values()) < KILLS:
            time.sleep(self._dice.uniform(1.0, 12.0))
            victim = self._job.kill_one(VICTIMS, self._dice)
            if victim:
                self.killed[victim] += 1
        if sum(self.killed.values()) >= KILLS and process.poll() is None:
            process.kill()
            self.killed["submitter"] += 1
        status = process.wait()
        assert self._job.wait_until_gone(GONE_S, but=("pool",)) == {}
        self._note_commits()
        if status == 0:
            self._check()
            self._begin()

    def undisturbed_run(self) -> None:
        """Run to the end; what was committed stays, and nothing temporary is left."""
        process = self._start()
        log = self._folder / "framebank.log"
        assert process.wait(timeout=300) == 0, log.read_text(errors="replace")[-3000:]
        self._note_commits()
        self._check()
        left = [path for path in (self._folder / "tmp").glob("*framebank*") if path.is_dir()]
        assert {path.name: sorted(os.listdir(path)) for path in left} == {}

    def _start(self):  # type: ignore[no-untyped-def]
        words = ["extract", f"{self._server.bucket}/in/", "--cache", self._cache]
        log = self._folder / "framebank.log"
        return self._job.framebank(*words, *QUICK, *self._options, log=log)

    def _note_commits(self) -> None:
        with environment(**self._server.environment):
            for file in storage.list_files(layout.shards_folder(self._cache)):
                if file.path.endswith(layout.SIDECAR_SUFFIX):
                    first = self._committed.setdefault(file.path, file.generation)
                    assert file.generation == first, f"{file.path} was done twice"

    def _check(self) -> None:
        with environment(**self._server.environment):
            assert states_of(self._cache) == self._truth.states
            assert records_of(self._cache) == self._truth.records
            shards = layout.committed_shards(self._cache)
            rows = [row.video_id for name in shards for row in read_sidecar(self._cache, name).rows]
            assert sorted(rows) == sorted(self._truth.states)  # each once, in one shard
            assert framebank.main(["verify", self._cache]) == 0
