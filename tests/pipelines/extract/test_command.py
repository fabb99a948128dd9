"""`framebank extract` on real clips: accounting, resume, retry, refusals, and signals."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import framebank
from framebank.features.cache import layout
from framebank.features.cache.catalog import catalog_rows, read_catalog
from framebank.features.cache.sidecar import read_sidecar
from framebank.features.decoders.sandbox import confinement_here
from tests.clips.plain_clips import write_clip
from tests.made import forked

QUICK = [
    "--precision", "float32", "--backbone", "mobilenet_v2", "--weights", "random:0",
    "--layer", "block_2_add", "--sample", "every=3",
]  # fmt: skip


def extract(*words: object, status: int = 0) -> None:
    assert framebank.main(["extract", *map(str, words), *QUICK]) == status


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Return mtime and hash of each file."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def records(cache: Path) -> dict[str, tuple[bytes, list[int], list[int]]]:
    return {
        record.video_id: (
            record.features.tobytes(),
            record.pts_ms.tolist(),
            record.frame_index.tolist(),
        )
        for record in framebank.open_cache(str(cache))
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of five good clips, one empty file and a text file."""
    folder = tmp_path_factory.mktemp("input")
    (folder / "deep").mkdir()
    for number in range(5):
        write_clip(folder / "deep" / f"c{number}.mp4", frames=7 + number, seed=number)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("whole") / "cache"
    extract(folder, "--cache", cache, "--videos-per-shard", 2)
    return cache


def test_every_input_is_accounted_for(cache: Path) -> None:
    rows = {row.video_id: row for row in catalog_rows(read_catalog(str(cache)))}
    assert set(rows) == {f"deep/c{i}.mp4" for i in range(5)} | {"empty.mp4"}
    assert rows["empty.mp4"].error_class == "empty"
    assert all(rows[f"deep/c{i}.mp4"].rows == (7 + i + 2) // 3 for i in range(5))
    (summary,) = [json.loads(path.read_text()) for path in (cache / "runs").glob("*.json")]
    assert (summary["done"], summary["quarantined"], summary["inputs"]) == (5, 1, 6)
    assert summary["skipped_by_suffix"] == {".txt": 1}
    assert summary["shards"] == 3
    assert summary["random_weights"] is True
    assert summary["decoders"] == confinement_here().line()
    assert framebank.main(["verify", str(cache)]) == 0


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    cache: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(folder, "--cache", tmp_path / "none", "--dry_run=true")
    told = capsys.readouterr()
    assert f"6 videos in 1 shards to extract into {tmp_path / 'none'}" in told.err
    assert "nothing was submitted and nothing written" in told.err and told.out == ""
    assert not list(tmp_path.iterdir())
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "new.mp4", frames=7)
    before = tree(cache)
    extract(tmp_path / "in", "--cache", cache, "--dry_run", "True")
    assert "1 videos in 1 shards" in capsys.readouterr().err and tree(cache) == before
    extract(folder, "--cache", tmp_path / "none", "--dry_run=perhaps", status=2)
    assert "--dry_run is not right" in capsys.readouterr().err


def test_readers_get_what_the_rule_asks_for(cache: Path) -> None:
    for record in framebank.open_cache(str(cache)):
        count = (7 + int(record.video_id[6]) + 2) // 3
        assert record.features.dtype == np.float16
        assert record.features.shape == (count, 24)
        assert record.frame_index.tolist() == [3 * i for i in range(count)]
        assert record.pts_ms.tolist() == [300 * i for i in range(count)]


def test_a_run_over_unchanged_input_touches_nothing(
    cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(cache)
    extract(folder, "--cache", cache)
    assert "nothing to do" in capsys.readouterr().out
    assert tree(cache) == before


def test_records_do_not_depend_on_batch_decoders_or_shards(
    cache: Path, folder: Path, tmp_path: Path
) -> None:
    extract(
        *(folder, "--cache", tmp_path / "cache", "--videos-per-shard", 64),
        *("--batch-size", 5, "--decoders", 1),
    )
    assert records(tmp_path / "cache") == records(cache)


def test_a_name_that_is_no_utf8(folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    name = os.fsdecode(b"caf\xe9.mp4")
    (clips / name).write_bytes((folder / "deep/c0.mp4").read_bytes())
    extract(clips, "--cache", tmp_path / "cache")
    assert framebank.open_cache(str(tmp_path / "cache")).video_ids == ["caf\\xe9.mp4"]


def test_a_lost_shard_and_one_without_its_sidecar_are_made_again_and_leave_no_copy(
    cache: Path, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    one, other = sorted((copy / "shards").glob("*.tfrecord"))[:2]
    Path(layout.sidecar_path(str(copy), one.stem)).unlink()
    other.unlink()
    assert framebank.main(["verify", str(copy)]) == 1
    extract(folder, "--cache", copy)
    assert not one.exists()
    assert records(copy) == records(cache)
    assert framebank.main(["verify", str(copy)]) == 0


def test_a_cache_that_was_killed_while_it_began(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ".spec.json.12-0123abcd.tmp").write_text("{")
    extract(folder, "--cache", cache)
    assert not list(cache.glob(".*"))


def test_a_runner_that_cannot_run_is_told_without_a_traceback(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["extract", str(folder), "--cache", str(tmp_path / "cache"), "--runner", "nonsense"]
    assert framebank.main([*words, "--weights", "random:0"]) == 2
    said = capsys.readouterr().err
    assert "Unexpected pipeline runner: nonsense" in said
    assert "Traceback" not in said


def test_new_changed_and_retried_videos(folder: Path, tmp_path: Path) -> None:
    cache, clips = tmp_path / "cache", tmp_path / "clips"
    clips.mkdir()
    write_clip(clips / "a.mp4", frames=6)
    write_clip(clips / "b.mp4", frames=6, seed=1)
    (clips / "c.mp4").write_bytes(b"no clip at all")
    extract(clips, "--cache", cache, "--max-bad-ratio", 1)
    first = tree(cache)
    write_clip(clips / "a.mp4", frames=9, seed=5)  # changed
    write_clip(clips / "d.mp4", frames=3, seed=2)  # new
    extract(clips, "--cache", cache, "--max-bad-ratio", 1, "--retry-quarantined")
    after = tree(cache)
    assert {name: after[name] for name in first} == first  # committed shards never change
    rows = {row.video_id: row for row in catalog_rows(read_catalog(str(cache)))}
    assert {name: row.rows for name, row in rows.items()} == {
        "a.mp4": 3, "b.mp4": 2, "c.mp4": 0, "d.mp4": 1,
    }  # fmt: skip
    assert rows["c.mp4"].attempt == 2
    assert sorted(records(cache)) == ["a.mp4", "b.mp4", "d.mp4"]
    assert len(records(cache)["a.mp4"][1]) == 3  # readers see the newest row only


def test_a_part_of_an_accepted_folder_is_accepted(
    cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(folder / "empty.mp4", "--cache", cache)  # a sixth of the folder, all of this input
    assert "0 are done and 1 quarantined" in capsys.readouterr().out


def test_too_many_bad_videos_fail_the_job_and_keep_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(clips / "a.mp4", frames=6)
    (clips / "b.mp4").write_bytes(b"no clip at all")
    for _ in range(2):  # nothing is new the second time, and still nobody has accepted it
        extract(clips, "--cache", tmp_path / "cache", status=1)
    assert "--max-bad-ratio" in capsys.readouterr().err
    assert list(records(tmp_path / "cache")) == ["a.mp4"]


def test_another_spec_is_refused_side_by_side(
    cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["extract", str(folder), "--cache", str(cache), *QUICK[:-1], "fps=1"]
    assert framebank.main([*words, "--dtype", "float32"]) == 2
    told = capsys.readouterr().err
    marked = [line.split()[1] for line in told.splitlines() if line.startswith("  * ")]
    assert marked == ["sample", "dtype"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{folder}/absent", "--cache", "{new}"], "absent"),
        (["{folder}/deep", "--cache", "{folder}"], "is no cache"),
        (["{folder}/deep", "--cache", "{folder}/notes.txt"], "is a file"),
        (["{folder}/deep", "--cache", "{new}", "--smaple", "fps=2"], "--sample"),
        (["{folder}/deep", "--cache", "{new}", "--decoders", "0"], "--decoders"),
        (["{folder}/deep", "--cache", "{new}", "--layer", "nolayer"], "layer"),
        (["{new}", "--cache", "{new}"], "input"),
    ],
)
def test_a_mistake_is_told_in_one_message(
    folder: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "input").mkdir()
    filled = [word.format(folder=folder, new=tmp_path / "input") for word in words]
    assert framebank.main(["extract", *filled, *QUICK]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
    assert list((tmp_path / "input").iterdir()) == []


def test_a_full_disk_is_one_message(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", str(tmp_path / "cache")]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("making a small disk needs the right to mount")
    try:
        extract(folder, "--cache", tmp_path / "cache", status=1)
        said = capsys.readouterr().err
        assert "the disk is full" in said
        assert "Traceback" not in said
        assert not list((tmp_path / "cache").rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(tmp_path / "cache")], check=True)


def start(*words: object) -> forked.Forked:
    return forked.start("-m", "framebank", "extract", *words, *QUICK, stdout=forked.DEVNULL)


def session_of(pid: int) -> list[int]:
    """Return the live processes of a session."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == pid and fields[0] != "Z":
                found.append(int(path.name))
    return found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder of 40 clips, and a cache of an undisturbed run over it."""
    clips = tmp_path_factory.mktemp("many")
    for number in range(40):
        write_clip(clips / f"m{number:02d}.mp4", frames=60, seed=number, size=(320, 240))
    whole = tmp_path_factory.mktemp("undisturbed") / "cache"
    extract(clips, "--cache", whole, "--videos-per-shard", 3)
    return clips, whole


def wait_for_shards(cache: Path, count: int, process: forked.Forked) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(cache.glob("shards/*.index.json"))) >= count:
            return
        time.sleep(0.01)


def test_a_killed_job_goes_on_where_it_was(many: tuple[Path, Path], tmp_path: Path) -> None:
    clips, whole = many
    cache = tmp_path / "cache"
    for kills in range(1, 4):
        process = start(clips, "--cache", cache, "--videos-per-shard", 3)
        wait_for_shards(cache, 2 * kills, process)
        time.sleep(0.05 * kills)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 5
        while session_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert session_of(process.pid) == []  # no decoder outlives the job
    committed = {path.name: path.stat().st_mtime_ns for path in cache.glob("shards/*.index.json")}
    assert committed
    extract(clips, "--cache", cache, "--videos-per-shard", 3)
    for name, mtime in committed.items():
        assert (cache / "shards" / name).stat().st_mtime_ns == mtime  # nothing was done twice
    assert records(cache) == records(whole)
    assert framebank.main(["verify", str(cache)]) == 0
    assert not [path for path in cache.rglob("*") if ".tmp" in path.name or ".plan-" in path.name]


def kept_videos(cache: Path) -> list[str]:
    """Return the ids of all rows in committed shards and in parts whose whole is none."""
    names = layout.committed_shards(str(cache))
    live = [name for name in names if layout.whole_of(name) not in names]
    return [row.video_id for name in live for row in read_sidecar(str(cache), name).rows]


def test_a_stop_keeps_what_is_finished_of_the_shard_in_hand(
    many: tuple[Path, Path], tmp_path: Path
) -> None:
    """With one shard for all, as a small folder had once: nothing of it is done twice."""
    clips, whole = many
    cache = tmp_path / "cache"
    process = start(clips, "--cache", cache, "--videos-per-shard", 40)
    assert process.stderr is not None
    for line in process.stderr:
        frames = re.search(r"extract: .* (\d+) frames", line)
        if frames and int(frames[1]) >= 80:  # of four clips, of which some are done
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    kept = kept_videos(cache)
    assert f"stopped; {len(kept)} of 40 videos are done and kept" in said
    assert 0 < len(kept) < 40
    again = start(clips, "--cache", cache, "--videos-per-shard", 40)
    _, said = again.communicate(timeout=120)
    assert f"kept {len(kept)} videos in " in said
    assert f"{40 - len(kept)} videos in 1 shards to extract" in said
    assert sorted(kept_videos(cache)) == sorted(f"m{number:02d}.mp4" for number in range(40))
    assert records(cache) == records(whole)
    assert framebank.main(["verify", str(cache)]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_job_well(
    many: tuple[Path, Path], tmp_path: Path, number: signal.Signals
) -> None:
    clips, _ = many
    cache = tmp_path / "cache"
    process = start(clips, "--cache", cache, "--videos-per-shard", 3)
    wait_for_shards(cache, 1, process)
    os.kill(process.pid, number)
    start_s = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - start_s < 10
    assert process.returncode == 128 + number
    assert "Run the same command again" in said
    kept = kept_videos(cache)
    assert f"stopped; {len(kept)} of 40 videos are done and kept" in said
    assert len(set(kept)) == len(kept)
    assert "Traceback" not in said
    assert session_of(process.pid) == []
    names = {path.name for path in cache.rglob("*") if path.is_file()}
    assert not [name for name in names if ".tmp" in name or ".plan-" in name]
    shards = {
        layout.shard_of(name.removesuffix(".tfrecord"))
        for name in names
        if name.endswith(".tfrecord")
    }
    assert shards == {n.removesuffix(".index.json") for n in names if n.endswith(".index.json")}
