"""`framebank plan`: its numbers are those of the run, it writes nothing, mistakes are one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import framebank
from framebank.features.cache import layout
from framebank.features.cache.catalog import catalog_rows, read_catalog
from framebank.features.stores import storage
from framebank.pipelines.forecast import survey
from tests.clips.barcode import write_barcode_clip
from tests.clips.mixed_clips import write_mixed_clips
from tests.clips.plain_clips import write_clip
from tests.pipelines.extract.test_command import tree
from tests.servers.fake_bucket import serve_bucket

QUICK = [
    "--precision", "float32", "--backbone", "mobilenet_v2", "--weights", "random:0",
    "--sample", "every=5",
]  # fmt: skip


def plan(capsys: pytest.CaptureFixture[str], *words: object, measure: bool = False) -> Any:
    """Run the command with --json and return its document."""
    more = [] if measure else ["--no-measure"]
    capsys.readouterr()
    assert framebank.main(["plan", *map(str, words), *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_clips(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def cache(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that was made of the mixed clips."""
    cache = tmp_path_factory.mktemp("whole") / "cache"
    assert (
        framebank.main(["extract", str(mixed), "--cache", str(cache), *QUICK]) == 1
    )  # 3 of 13 bad
    return cache


def test_a_trimmed_clip_without_a_key_frame_costs_itself_in_plan_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `ffmpeg -ss 1.5 -i full.mp4 -c copy` leaves it: an edit list hides the only key frame."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        write_clip(folder / f"whole{number}.mp4", seed=number)
    trimmed = write_barcode_clip(
        folder / "trimmed.mp4",
        ticks=range(-1500, 1000, 100),
        options={"g": "250", "preset": "ultrafast"},
        muxing={"avoid_negative_ts": "disabled"},
    )
    words = [str(folder), *QUICK[:-1], "keyframes"]
    found = plan(capsys, *words)
    assert found["forecast"]["rows"]["value"] == 4
    assert found["sample"]["quarantined_by_class"] == {"no_keyframes": 1}
    assert framebank.main(["extract", *words, "--cache", str(tmp_path / "cache")]) == 0
    rows = {row.video_id: row for row in catalog_rows(read_catalog(str(tmp_path / "cache")))}
    assert rows[trimmed.path.name].error_class == "no_keyframes"
    assert "none of its 10 frames" in rows[trimmed.path.name].message
    assert [row.rows for row in rows.values()] == [
        0 if name == "trimmed.mp4" else 1 for name in rows
    ]


def test_frames_and_bytes_are_those_that_extraction_makes(
    mixed: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(capsys, mixed, *QUICK)
    (path,) = storage.list_files(str(cache / "runs"))
    made = json.loads(Path(path.path).read_text())
    assert found["sample"]["complete"]
    assert found["notes"][0].startswith("13 of 13 clips were looked into, 1 of them by the listing")
    assert found["forecast"]["rows"]["value"] == made["frames"]
    assert found["forecast"]["done"]["value"] == made["done"]
    assert found["forecast"]["quarantined"]["value"] + found["videos"]["empty"] == 3
    size_bytes = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    assert found["cache_bytes"]["value"] == pytest.approx(size_bytes, rel=0.05)
    assert found["shards"] == made["shards"]


def test_pictures_and_clips_of_frames_have_bytes_of_their_own(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = plan(capsys, clips, "--backbone", "pixels:64", "--sample", "all")
    rows, videos = pixels["forecast"]["rows"]["value"], 6 * 1900
    assert rows == sum(range(8, 14))
    assert pixels["cache_bytes"]["value"] == pytest.approx(rows * (3 * 64**2 / 4 + 6) + videos)
    of_clips = plan(capsys, clips, "--backbone", "c3d", "--weights", "random:0")
    assert of_clips["forecast"]["rows"]["value"] == rows  # sampled frames
    assert of_clips["cache_bytes"]["value"] == pytest.approx(rows * (2 * 4096 + 6) / 16 + videos)


def test_only_what_is_left_is_planned_and_nothing_is_written(
    mixed: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = shutil.copytree(mixed, tmp_path / "more", copy_function=shutil.copy2)
    before = tree(cache)
    none = plan(capsys, mixed, "--cache", cache, *QUICK)
    assert none["videos"] | {"missing": 0} == {
        "listed": 13, "done": 10, "quarantined": 3, "left": 0, "missing": 0, "empty": 0,
    }  # fmt: skip
    manifest = tmp_path / "list.csv"
    write_clip(more / "new.mp4", frames=21)
    manifest.write_text(
        "uri,video_id\n"
        + "".join(f"{path},{path.name}\n" for path in sorted(mixed.iterdir()))
        + f"{more / 'new.mp4'},new\n{more / 'gone.mp4'},gone\n"
    )
    left = plan(capsys, manifest, "--cache", cache, *QUICK)
    assert left["videos"]["left"] == 2 and left["videos"]["missing"] == 1
    assert left["forecast"]["rows"]["value"] == 5 and left["shards"] == 1
    again = plan(capsys, mixed, "--cache", cache, "--retry-quarantined", *QUICK)
    assert again["videos"]["left"] == 3
    assert tree(cache) == before
    assert not (tmp_path / "new").exists()
    plan(capsys, mixed, "--cache", tmp_path / "new", *QUICK)
    assert not (tmp_path / "new").exists()


def test_shards_that_are_in_no_catalog_yet_are_done(
    mixed: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = shutil.copytree(cache, tmp_path / "cache")
    shutil.rmtree(killed / "catalog")
    assert plan(capsys, mixed, "--cache", killed, *QUICK)["videos"]["left"] == 0


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"currency": "EUR", "worker_hour": 0.4, "vcpus": 8}))
    return path


def test_a_measured_plan_has_time_and_price(
    mixed: Path, prices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runner", "DataflowRunner", "--max_num_workers=3", "--prices", prices]
    found = plan(capsys, mixed, *QUICK, "--videos-per-shard", 2, *words, measure=True)
    here = found["here"]
    assert 0 < here["wall_s"]["low"] < here["wall_s"]["value"] < here["wall_s"]["high"]
    assert 0 < here["frame_s"] < 5 and 0 < here["busy"] <= here["cores"]
    assert found["dataflow"]["workers"] == 3 and found["dataflow"]["prices"]["vcpus"] == 8
    assert 0 < found["dataflow"]["price"]["low"] < found["dataflow"]["price"]["high"]
    assert found["dataflow"]["prices"]["currency"] == "EUR"


def test_without_prices_there_is_none(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, mixed, *QUICK, "--runner", "DataflowRunner")
    assert found["dataflow"] is None
    assert "price" not in json.dumps(found)


def test_the_command_is_the_one_to_run(
    mixed: Path, prices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(mixed, tmp_path / "a folder's $clips")
    words = ["--cache", tmp_path / "the cache", *QUICK, "--max-frames", 7, "--allow-partial",
             "--probes", 5, "--prices", prices]  # fmt: skip
    beam = [
        "--runner",
        "DataflowRunner",
        "--temp_location=gs://b/with space",
        "--region",
        "us-east1",
    ]
    command = shlex.split(plan(capsys, folder, *words, *beam)["command"])
    assert command[:3] == ["framebank", "extract", str(folder)]
    assert sorted(command[3:]) == sorted(
        [
            "--cache",
            str(tmp_path / "the cache"),
            *QUICK,
            "--max-frames",
            "7",
            "--allow-partial",
            *beam,
        ]
    )
    without = plan(capsys, folder, *QUICK)["command"]
    assert without.endswith("--cache CACHE")


def test_people_get_a_table(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert framebank.main(["plan", str(mixed), *QUICK, "--no-measure"]) == 0
    out = capsys.readouterr().out
    assert "13 listed: 0 done, 0 in quarantine, 13 left to do" in out
    assert "3 of those left (seen: 1 empty, 1 not_a_video, 1 truncated)" in out
    assert "not measured" in out and out.splitlines()[-1].startswith("framebank extract ")


def test_many_clips_are_sampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        write_clip(tmp_path / f"a{number}.mp4", frames=10 + 10 * number, seed=number)
    (tmp_path / "many").mkdir()
    for number in range(800):
        os.link(tmp_path / f"a{number % 8}.mp4", tmp_path / "many" / f"{number}.mp4")
    found = plan(capsys, tmp_path / "many", *QUICK, "--probes", 100)
    rows = found["forecast"]["rows"]
    true = 100 * sum((10 + 10 * number) // 5 for number in range(8))
    assert not found["sample"]["complete"] and found["sample"]["probed"] <= 100
    assert rows["low"] <= true <= rows["high"]
    assert rows["value"] == pytest.approx(true, rel=0.1)


def test_imagenet_weights_that_cannot_be_had_do_not_end_a_plan(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(capsys, mixed, "--backbone", "mobilenet_v2")  # Keras publishes no hash of these
    assert found["spec"]["weights"] == "imagenet"
    assert any("random ones" in note for note in found["notes"])
    assert "random" not in found["command"]


def test_objects_of_a_bucket_are_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = write_clip(tmp_path / "small.mp4", frames=20)
    large = write_clip(tmp_path / "large.mp4", frames=400, size=(320, 240))
    monkeypatch.setattr(survey, "_STAGED_BYTES", large.stat().st_size - 1)
    with serve_bucket("clips") as server:
        for number in range(4):
            server.put(f"in/{number}.mp4", small.read_bytes())
        server.put("in/large.mp4", large.read_bytes())
        found = plan(capsys, "gs://clips/in", *QUICK, "--cache", "gs://clips/cache")
        assert not [name for name in server.objects if name.startswith("cache")]
    assert found["videos"]["left"] == 5 and found["sample"]["too_large"] == 1
    assert found["forecast"]["rows"]["value"] > 16
    assert any("by their size alone" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sample", "fps=x"], "no such sampling rule"),
        (["--probes", "0"], "--probes is out of range"),
        (["--decoders", "0"], "--decoders is out of range"),
        (["--prices", "/no/such/file"], "cannot be used"),
        (["--backbone", "none"], "no such backbone"),
        (["--weights", "/no/file.h5"], "no such weights"),
        (["--layer", "none"], "no such layer"),
        (["--accelerator", "t4"], "--accelerator is not right"),
        (["--max_num_workerz", "3"], "did you mean --max_num_workers"),
    ],
)
def test_mistakes_are_one_message(
    clips: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = [] if "--weights" in words else ["--weights", "random:0"]
    assert framebank.main(["plan", str(clips), *weights, *words]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_cache_that_extraction_would_refuse_is_refused(
    mixed: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> str:
        assert framebank.main(["plan", str(mixed), *QUICK, *map(str, words)]) == 2
        return capsys.readouterr().err

    assert "holds features made in another way" in refused("--cache", cache, "--dtype", "float32")
    assert "is no cache of Framebank" in refused("--cache", mixed.parent)
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused("--cache", tmp_path / "file")
    assert layout.read_spec(str(cache)) is not None


def test_ctrl_c_ends_it_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    clip = write_clip(tmp_path / "clip.mp4", frames=600, size=(320, 240))
    for number in range(200):
        os.link(clip, tmp_path / "clips" / f"{number}.mp4")
    command = [sys.executable, "-m", "framebank", "plan", str(tmp_path / "clips"), *QUICK]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
        # A shell that runs the tests in the background has them ignore it, and so their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    process.send_signal(2)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in error
    assert not list(tmp_path.glob("framebank-*"))
