"""Two writers, zombies and damage: refused or sound, and sound for `verify` after the next run.

On a disk and on servers that speak the real protocols, one of which heeds no precondition.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import framebank
from framebank.features.cache import layout
from framebank.features.cache.catalog import catalog_files
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.errors import CacheError
from framebank.features.extraction.one_clip import make_spec
from framebank.features.spec import SpecChoice
from framebank.features.stores import locks, storage
from framebank.features.stores.disk import bytes_sha256
from tests.clips.plain_clips import write_clip
from tests.made import forked
from tests.servers.bucket_servers import environment, serve

QUICK = [
    "--precision", "float32", "--backbone", "mobilenet_v2", "--weights", "random:0",
    "--sample", "every=3",
]  # fmt: skip
OTHER = [*QUICK[:-1], "every=2"]
VIDEOS = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(VIDEOS):
        write_clip(folder / f"c{number}.mp4", frames=6 + number, seed=number)
    return folder


@pytest.fixture(scope="module", params=["disk", "gcp-storage-emulator", "moto"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "disk":
        yield str(folder)
        return
    with serve(request.param, folder) as server, environment(**server.environment):
        yield server.bucket


def words(clips: Path, cache: str, options: list[str] = QUICK) -> list[str]:
    return ["extract", str(clips), "--cache", cache, "--videos-per-shard", "2", *options]


def start(*arguments: str) -> forked.Forked:
    return forked.start("-m", "framebank", *arguments, stderr=forked.STDOUT)


def written(folder: str) -> dict[str, str]:
    """Return what tells of each file whether it was written over: its generation, or its bytes
    where the server heeds no precondition and one that is written as it was is no harm."""
    return {
        f.path: bytes_sha256(storage.read_bytes(f.path))
        if f.path.startswith("gs://")
        else f.generation
        for f in storage.iter_files(folder)
    }


def check_sound(cache: str) -> None:
    """Hold that all videos are there, each once, in features of one spec, and all reads back."""
    assert framebank.main(["verify", cache]) == 0
    opened = framebank.open_cache(cache)
    assert sorted(record.video_id for record in opened) == [f"c{n}.mp4" for n in range(VIDEOS)]
    assert {row.fingerprint for row in opened.rows()} == {opened.fingerprint}


def test_two_runs_of_different_specs_at_once(place: str, clips: Path) -> None:
    cache = f"{place}/specs"
    runs = [start(*words(clips, cache))]
    time.sleep(1.0)
    runs.append(start(*words(clips, cache, OTHER)))
    said = [run.communicate(timeout=240)[0] for run in runs]
    assert sorted(run.returncode for run in runs)[0] == 0, said
    assert sorted(run.returncode for run in runs)[1] == 2, said
    loser = said[0 if runs[0].returncode else 1]
    assert "another run is writing to" in loser or "made in another way" in loser
    check_sound(cache)


def test_two_same_runs_that_see_no_lock(place: str, clips: Path) -> None:
    """As when the lease was stolen, or a job on a cluster outlived its client."""
    cache = f"{place}/same"
    code = (
        "import contextlib, sys; from framebank.features.stores import locks as lease;"
        "lease.held = lambda place, what: contextlib.nullcontext();"
        "import framebank; sys.exit(framebank.main(sys.argv[1:]))"
    )
    runs = [forked.start("-c", code, *words(clips, cache), stderr=forked.STDOUT) for _ in range(2)]
    said = [run.communicate(timeout=240)[0] for run in runs]
    assert 0 in [run.returncode for run in runs], said
    assert framebank.main(words(clips, cache)) == 0
    check_sound(cache)


def test_a_writer_that_was_stopped_wakes_after_another_one_is_through(
    place: str, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STALE_S", locks.RENEW_S + 1)
    cache = f"{place}/zombie"
    zombie = start(*words(clips, cache), "--allow-partial")
    try:
        shards = f"{cache}/shards"
        deadline = time.monotonic() + 120
        while not layout.committed_shards(cache) and time.monotonic() < deadline:
            time.sleep(0.02)
        zombie.send_signal(signal.SIGSTOP)
        if storage.is_local(cache):
            assert framebank.main(words(clips, cache)) == 2  # the lock is the stopped one's
        else:
            assert framebank.main(words(clips, cache)) == 0
            before = written(shards)
    finally:
        zombie.send_signal(signal.SIGCONT)
    zombie.communicate(timeout=240)
    if not storage.is_local(cache):
        after = written(shards)
        assert {path: after[path] for path in before} == before
    assert framebank.main(words(clips, cache)) == 0
    check_sound(cache)


def test_what_verify_finds_the_next_run_makes_anew(
    place: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = f"{place}/damaged"
    assert framebank.main(words(clips, cache)) == 0
    one, two, three = layout.committed_shards(cache)
    path = layout.tfrecord_path(cache, read_sidecar(cache, one).file)
    data = storage.read_bytes(path)
    storage.write_atomic(path, data[:40] + b"?" + data[41:])  # a byte, seen by its checksum only
    storage.delete(layout.tfrecord_path(cache, read_sidecar(cache, two).file))
    storage.write_atomic(layout.sidecar_path(cache, three), b"{")
    (catalog,) = catalog_files(cache)
    assert framebank.main(["verify", cache]) == 1
    assert framebank.main(words(clips, cache)) == 0
    assert "repaired: the 6 videos were extracted again" in capsys.readouterr().err
    check_sound(cache)
    storage.write_atomic(catalog, b"no parquet")
    storage.write_atomic(f"{cache}/runs/x.json", b"{")
    with pytest.raises(CacheError, match="cannot be read"):
        framebank.open_cache(cache)
    assert framebank.main(words(clips, cache)) == 0
    said = capsys.readouterr()
    assert "removed" in said.err and "nothing to do" in said.out
    check_sound(cache)


def test_features_of_another_spec_are_seen_by_readers_and_made_anew(
    place: str, clips: Path
) -> None:
    cache = f"{place}/mixed"
    assert framebank.main(words(clips, cache)) == 0
    spec, _ = make_spec(SpecChoice(backbone="mobilenet_v2", weights="random:0", sample="every=2"))
    storage.delete(layout.spec_path(cache))
    layout.write_spec(cache, spec)
    with pytest.raises(CacheError, match=r"6 videos of .* were made with another spec"):
        framebank.open_cache(cache)
    assert framebank.main(words(clips, cache, OTHER)) == 0
    check_sound(cache)


def test_whichever_file_is_lost_the_next_run_mends_it(
    place: str, clips: Path, tmp_path: Path
) -> None:
    """Every file of a cache is deleted, then cut to a byte, one at a time."""
    if place.startswith("s3"):
        pytest.skip("what is mended does not depend on the protocol")
    cache = f"{place}/each"
    assert framebank.main(words(clips, cache)) == 0
    names = ["spec.json"]
    for folder in layout.FOLDERS:
        files = storage.list_files(storage.join(cache, folder))
        names += [file.path[len(cache) + 1 :] for file in files[:2]]
    for name in names:
        for data in (None, b"{"):
            path = storage.join(cache, name)
            if not storage.exists(path):  # of a shard that was made anew meanwhile
                continue
            storage.delete(path) if data is None else storage.write_atomic(path, data)
            framebank.main(["verify", cache])
            assert framebank.main(words(clips, cache)) == 0, (name, data)
            check_sound(cache)
    dead = [file for file in storage.iter_files(f"{cache}/shards") if not live(cache, file.path)]
    assert dead == []


def live(cache: str, path: str) -> bool:
    shard = layout.shard_of_file(path)
    return shard is None or read_sidecar(cache, shard).file in path
