"""shard: one network a process, what a shard says of itself, faults in words."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.utils.shared import Shared

from framebank import __version__
from framebank.features.cache import layout
from framebank.features.cache.sidecar import CatalogRow, read_sidecar
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import JobError, UsageError
from framebank.features.extraction.engine import Engine
from framebank.features.extraction.one_clip import make_spec
from framebank.features.spec import SpecChoice
from framebank.features.video import VideoRef
from framebank.pipelines.extract import shard
from framebank.pipelines.extract.plan import ExtractConfig, ShardPlan
from framebank.pipelines.extract.shard import (
    ExtractShard,
    check_version,
)
from framebank.pipelines.extract.shard_writer import ShardWriter
from framebank.pipelines.jobs.beam_options import WorkerError, find_marked
from framebank.pipelines.jobs.worker_faults import told_to_client
from tests.clips.plain_clips import FakeNetwork, write_clip

SPEC, WEIGHTS = make_spec(
    SpecChoice(backbone="mobilenet_v2", weights="random:0", sample="uniform=2")
)


def config_of(cache: Path, **changes: Any) -> ExtractConfig:
    layout.write_spec(str(cache), SPEC)
    policy = DecoderPolicy(decoders=1)
    config = ExtractConfig(str(cache), "20260101T00-ab", SPEC, WEIGHTS, policy, batch_size=4)
    return dataclasses.replace(config, **changes)


def plan_of(folder: Path, name: str, count: int = 2) -> ShardPlan:
    refs = []
    for number in range(count):
        path = write_clip(folder / f"{name}{number}.mp4", frames=4, seed=len(name) + number)
        refs.append(
            VideoRef(path.name, str(path), path.stat().st_size, str(path.stat().st_mtime_ns))
        )
    return ShardPlan(name, tuple(refs))


def file_of(cache: str, shard: str) -> str:
    return layout.tfrecord_path(cache, read_sidecar(cache, shard).file)


class _Built:
    """Stands for `build_network`; counts how often it is called, slowly."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object, **__: object) -> FakeNetwork:
        self.count += 1
        threading.Event().wait(0.2)
        return FakeNetwork(feature_dim=1280)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> _Built:
    counter = _Built()
    monkeypatch.setattr(shard, "build_network", counter)
    monkeypatch.setattr(shard, "_NETWORKS", Shared())
    return counter


def run_one(config: ExtractConfig, plan: ShardPlan) -> list[dict[str, Any] | CatalogRow]:
    work = ExtractShard(config)
    work.setup()
    try:
        return [row for _, row in work.process((plan,))]
    finally:
        work.teardown()


def test_four_threads_share_one_network(tmp_path: Path, built: _Built) -> None:
    plans = [plan_of(tmp_path, f"s{number}") for number in range(4)]
    alone, together = config_of(tmp_path / "alone"), config_of(tmp_path / "together")
    threads = [
        threading.Thread(target=run_one, args=(dataclasses.replace(together), plan))
        for plan in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built.count == 1
    for plan in plans:  # a later stage of the same job, too
        run_one(alone, plan)
        files = [Path(file_of(c.cache, plan.shard)) for c in (alone, together)]
        assert files[0].read_bytes() == files[1].read_bytes() != b""
    assert built.count == 1


def test_another_spec_is_another_network(tmp_path: Path, built: _Built) -> None:
    run_one(config_of(tmp_path / "a"), plan_of(tmp_path, "a", 1))
    run_one(config_of(tmp_path / "b", batch_size=8), plan_of(tmp_path, "b", 1))
    assert built.count == 2


def test_a_shard_says_who_made_it_and_how_long_that_took(
    tmp_path: Path, built: _Built, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of(tmp_path, "s")
    with caplog.at_level(logging.INFO):
        report, *rows = run_one(config_of(tmp_path / "c"), plan)
    assert isinstance(report, dict) and json.loads(json.dumps(report)) == report
    assert (report["videos"], report["frames"], report["video_bytes"]) == (2, 4, plan.video_bytes)
    assert report["host"] and report["seconds"] > 0
    assert [row.video_id for row in rows if isinstance(row, CatalogRow)] == ["s0.mp4", "s1.mp4"]
    assert f"shard s: 2 videos, 4 frames, {plan.video_bytes / 2**20:.1f} MiB" in caplog.text
    again, *rows_again = run_one(config_of(tmp_path / "c", run_id="later"), plan)
    assert (again, rows_again) == (report, rows)
    assert built.count == 1


def test_a_committed_shard_needs_no_network(tmp_path: Path, built: _Built) -> None:
    plan = plan_of(tmp_path, "s", 1)
    run_one(config_of(tmp_path / "c"), plan)
    before = read_sidecar(str(tmp_path / "c"), "s")
    count = built.count
    run_one(config_of(tmp_path / "c", batch_size=16), plan)
    assert built.count == count and read_sidecar(str(tmp_path / "c"), "s") == before


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of videos of each run of an engine."""
    found: list[int] = []
    run_all = Engine.run_all

    def counted(engine: Engine, refs: Any, **words: Any) -> Iterator[Any]:
        found.append(0)
        for result in run_all(engine, refs, **words):
            found[-1] += 1
            yield result

    monkeypatch.setattr(Engine, "run_all", counted)
    return found


def run_together(config: ExtractConfig, plans: list[ShardPlan], together: int) -> list[Any]:
    """Return what a bundle of these shards gives, as it stands in its windows or not."""
    work = ExtractShard(config, together=together)
    work.setup()
    try:
        work.start_bundle()
        rows = [row for plan in plans for row in work.process((plan,))]
        return rows + [windowed.value for windowed in work.finish_bundle()]
    finally:
        work.teardown()


def test_shards_that_are_extracted_in_one_go_are_those_of_a_go_each(
    tmp_path: Path, built: _Built, runs: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    plans = [plan_of(tmp_path, f"s{number}", 1 + number) for number in range(5)]
    alone, together = config_of(tmp_path / "alone"), config_of(tmp_path / "together")
    for plan in plans:
        run_one(alone, plan)
    run_one(together, plans[1])  # is there already
    runs.clear()
    with caplog.at_level(logging.INFO):
        rows = run_together(together, plans, 3)
    assert runs == [1 + 3, 4 + 5]
    told = [row["shard"] if isinstance(row, dict) else row.video_id for _, row in rows]
    assert told == [
        name for plan in plans for name in (plan.shard, *sorted(ref.video_id for ref in plan.refs))
    ]
    for plan in plans:
        files = [Path(file_of(c.cache, plan.shard)) for c in (alone, together)]
        assert files[0].read_bytes() == files[1].read_bytes() != b""
        logged = f"{len(plan.refs)} videos, {2 * len(plan.refs)} frames"
        logged = "is committed already" if plan is plans[1] else logged
        assert re.search(f"shard {plan.shard}:? {logged}", caplog.text)
    # What the engine did is told once.
    timed = [read_sidecar(together.cache, plan.shard).balance for plan in plans]
    assert sum(balance.get("pictures", 0) for balance in timed) == 2 * sum(1 + n for n in range(5))


def test_what_is_whole_of_shards_in_one_go_is_kept_when_one_fails(
    tmp_path: Path, built: _Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [plan_of(tmp_path, f"s{number}", 2) for number in range(3)]
    config = config_of(tmp_path / "c")
    commit, committed = ShardWriter.commit, []

    def dying(writer: ShardWriter, *words: Any) -> list[str]:
        if committed:
            raise JobError("the disk is gone")
        committed.append(writer)
        return commit(writer, *words)

    work = ExtractShard(config, together=3)
    work.setup()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(ShardWriter, "commit", dying)
            work.start_bundle()
            with pytest.raises(WorkerError):
                _ = [row for plan in plans for row in work.process((plan,))]
        whole = {name for name in layout.committed_shards(config.cache) if "." not in name}
        assert len(whole & {plan.shard for plan in plans}) == 1
        work.start_bundle()  # Beam tries it once more
        rows = [row for plan in plans for row in work.process((plan,))]
        assert len(rows) == 3 + 6 and not list(work.finish_bundle())
    finally:
        work.teardown()
    for plan in plans:
        assert len(read_sidecar(config.cache, plan.shard).rows) == 2


def test_a_shard_that_lacks_a_result_is_not_committed(
    tmp_path: Path, built: _Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [plan_of(tmp_path, f"s{number}", 2) for number in range(2)]
    config = config_of(tmp_path / "c")
    run_all = Engine.run_all

    def forgetful(engine: Engine, refs: Any, **words: Any) -> Iterator[Any]:
        yield from [*run_all(engine, refs, **words)][:-1]

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "run_all", forgetful)
        with pytest.raises(WorkerError) as caught:
            run_together(config, plans, 2)
    assert "1 results too few" in str(find_marked(str(caught.value)))
    whole = set(layout.committed_shards(config.cache)) & {plan.shard for plan in plans}
    assert len(whole) == 1  # the other one
    assert len(run_together(config, plans, 2)) == 2 + 4


def test_another_version_on_a_worker_is_said_at_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, framebank_version="0.0.1")
    with pytest.raises(UsageError, match="another version of Framebank") as caught:
        check_version(config)
    assert __version__ in str(caught.value.got) and "0.0.1" in str(caught.value.expected)
    with pytest.raises(WorkerError) as marked:
        ExtractShard(config).setup()
    assert isinstance(find_marked(str(marked.value)), UsageError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "too little memory"),
        (MemoryError("Unable to allocate 3 GiB"), "too little memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "too little memory"),
        (RuntimeError("can't start new thread"), "too little memory"),
        (ImportError("No module named 'av'"), "cannot load a library"),
    ],
)
def test_faults_of_a_worker_reach_the_client_in_words(error: Exception, words: str) -> None:
    with pytest.raises(WorkerError) as caught, told_to_client():
        raise error
    told = find_marked(str(caught.value))
    assert isinstance(told, JobError)
    assert words in str(told)


def test_an_unknown_fault_passes_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), told_to_client():
        raise ZeroDivisionError


def test_a_worker_with_bounded_memory_fails_with_words_and_another_succeeds(
    tmp_path: Path,
) -> None:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4")
    cache = tmp_path / "cache"
    words = ["extract", tmp_path / "clips", "--cache", cache, "--backbone", "mobilenet_v2"]
    words += ["--weights", "random:0", "--sample", "uniform=2", "--decoders", "1"]

    def extract(limit_bytes: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "framebank", *map(str, words)],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes,) * 2),
            capture_output=True,
            text=True,
            timeout=120,
        )

    poor = extract(1_900_000_000)
    assert poor.returncode == 1, poor.stderr
    assert re.search("too little memory|more memory than there is", poor.stderr), poor.stderr
    assert "Traceback" not in poor.stderr
    modest = extract(4_600_000_000)  # bounds the decoders too, and they can work in it
    assert modest.returncode == 0, modest.stderr
