"""train.data.shard_files: shards of a bucket on a local disk, whole, in time, and not all of
them."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framebank.features.cache import layout
from framebank.features.cache.reader import open_cache
from framebank.features.errors import CacheError, UsageError
from framebank.features.questions.question import Question
from framebank.features.stores import storage
from framebank.train.data.batches import QuestionTable, cached_features
from framebank.train.data.shard_files import StagedShards, Staging, shard_files
from tests.made.made_cache import SPEC, make_extracted, make_shard
from tests.servers import bucket_servers

SHARDS, CLIPS = 40, 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a cache of 40 shards in a bucket of Google's storage emulator."""
    from framebank.features.cache import catalog

    folder = tmp_path_factory.mktemp("bucket")
    with (
        bucket_servers.serve("gcp-storage-emulator", folder) as server,
        bucket_servers.environment(**server.environment),
    ):
        path = f"{server.bucket}/cache"
        layout.write_spec(path, SPEC)
        rows = []
        for number in range(SHARDS):
            videos = [make_extracted(f"{number:02d}-{clip}.mp4") for clip in range(CLIPS)]
            rows += make_shard(path, f"r1-{number:02d}", videos, run_id="20261121-0100")
        catalog.write_catalog(path, "20261121-0100", rows)
        yield path


def staged(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def content(cache: str, shard: str) -> bytes:
    return storage.read_bytes(layout.tfrecord_path(cache, shard))


def test_shards_are_the_same_and_kept_under_their_hash(cache: str, tmp_path: Path) -> None:
    files = StagedShards(cache, Staging(str(tmp_path)))
    names = [f"r1-{number:02d}" for number in range(4)]
    files.announce(names)
    for name in names:
        with files.open(name) as file:
            assert file.read() == content(cache, name)
    files.close()
    hashes = {hashlib.sha256(content(cache, name)).hexdigest() for name in names}
    assert staged(tmp_path) == {f"{each}.staged" for each in hashes}

    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    again = StagedShards(cache, Staging(str(tmp_path)))
    again.open(names[0]).close()
    again.close()
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before  # not fetched again


def test_the_least_recently_used_goes_when_the_folder_is_full(cache: str, tmp_path: Path) -> None:
    size = len(content(cache, "r1-00"))
    files = StagedShards(cache, Staging(str(tmp_path), size_bytes=3 * size + 9, parallel=1))
    opened = [files.open(name) for name in ("r1-00", "r1-01", "r1-02", "r1-00", "r1-03")]
    names = {f"{hashlib.sha256(content(cache, f'r1-0{n}')).hexdigest()}.staged" for n in (0, 2, 3)}
    assert staged(tmp_path) == names  # 1 was used longest ago
    assert opened[1].read() == content(cache, "r1-01")  # and stays readable where it is open
    for file in opened:
        file.close()
    files.close()


def test_what_others_fetch_counts_and_what_a_killed_one_left_is_removed(
    cache: str, tmp_path: Path
) -> None:
    size = len(content(cache, "r1-00"))
    (tmp_path / "killed.part").write_bytes(b"half")
    with (tmp_path / "other.part").open("wb") as other:  # another process is at it
        fcntl.flock(other, fcntl.LOCK_EX)
        other.truncate(2 * size)
        files = StagedShards(cache, Staging(str(tmp_path), size_bytes=3 * size + 9, parallel=1))
        for name in ("r1-00", "r1-01"):
            files.open(name).close()
        files.close()
    digest = hashlib.sha256(content(cache, "r1-01")).hexdigest()
    assert staged(tmp_path) == {"other.part", f"{digest}.staged"}


def test_a_shard_that_is_not_what_its_sidecar_says_is_named(cache: str, tmp_path: Path) -> None:
    path = layout.tfrecord_path(cache, "r1-39")
    good = storage.read_bytes(path)
    storage.write_atomic(path, good[:-1] + b"?")
    try:
        files = StagedShards(cache, Staging(str(tmp_path)))
        with pytest.raises(CacheError, match=r"r1-39.tfrecord is not what its sidecar says"):
            files.open("r1-39")
        files.close()
    finally:
        storage.write_atomic(path, good)
    assert not staged(tmp_path)


def test_batches_come_before_the_last_shard_is_there(cache: str, tmp_path: Path) -> None:
    opened = open_cache(cache)
    questions = [Question(name, name, "what?", "a") for name in opened.video_ids]
    count = len(questions)
    table = QuestionTable(questions, np.ones((count, 1), np.int32), np.zeros(count, np.int32))
    files = StagedShards(cache, Staging(str(tmp_path), parallel=2))
    features = cached_features(opened, dict.fromkeys(opened.video_ids), files=files)
    batches = features.batches(table, batch_size=4, seed=[0, 0])
    seen = [next(batches)]
    assert len(staged(tmp_path)) <= SHARDS // 2
    seen += list(batches)
    assert len([name for name in staged(tmp_path) if name.endswith(".staged")]) == SHARDS
    for batch in seen:
        for row, index in enumerate(batch["index"].numpy()):
            wanted = make_extracted(questions[index].video_id).features.astype(np.float16)
            np.testing.assert_array_equal(batch["features"][row], wanted)
    files.close()


def test_a_temporary_folder_goes_with_the_run(cache: str) -> None:
    files = shard_files(cache, Staging())
    assert isinstance(files, StagedShards)
    files.open("r1-00").close()
    folder = files._folder
    assert folder.exists()
    files.close()
    assert not folder.exists()
    with pytest.raises(UsageError, match="--stage-bytes"):
        Staging(size_bytes=0)
