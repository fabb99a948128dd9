"""All ways on six small clips: the command is killed in the middle, and goes on to its page."""

from __future__ import annotations

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

import framebank as fb
from framebank import cli
from framebank.features.commands.steps import Steps
from framebank.features.errors import FramebankError
from tests.attackers.killing import MarkedJob
from tests.clips.plain_clips import write_clip

_WAIT_S = 600.0
SMALL: dict[str, Any] = {
    "backbone": "mobilenet_v2", "weights": "random:0", "sample": "uniform=2", "pixels": 16,
    "epochs": 1,
}  # fmt: skip


def _run_here(self: Steps, name: str, words: list[str]) -> dict[str, Any]:
    """Stand in for `Steps.run`: the same command in this process, which has Keras already."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.main(words) == 0, name
    return dict(json.loads(printed.getvalue()))


def test_killed_in_the_middle_it_goes_on_and_ends_in_the_figures_of_all_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apache_beam")
    clips, labels, out = tmp_path / "clips", tmp_path / "labels.csv", tmp_path / "out"
    clips.mkdir()
    rows = ["video_id,label,split"]
    for number, split in enumerate(("test", "test", "val", "train", "train", "train")):
        write_clip(clips / f"é{number}.mp4", frames=4, seed=number)
        rows.append(f"é{number}.mp4,{('jump', 'run')[number % 2]},{split}")
    labels.write_text("\n".join([*rows, "gone.mp4,run,train"]) + "\n")

    job, options = MarkedJob(), [f"--{name}={value}" for name, value in SMALL.items()]
    words = ["ways", clips, "--cache-dir", out, "--labels", labels, *options]
    going = job.framebank(*words, log=tmp_path / "log")
    limit_s = time.monotonic() + _WAIT_S
    try:
        while "extract pixels" not in _steps(out):
            assert going.poll() is None and time.monotonic() < limit_s, (
                tmp_path / "log"
            ).read_text()
            time.sleep(0.05)
        with pytest.raises(FramebankError, match="another run is comparing the ways"):
            fb.ways(str(clips), cache_dir=out, labels=labels, **SMALL)
        going.kill()
        assert going.wait() == -9 and job.wait_until_gone(10) == {}
    finally:
        job.kill_all()
    frames = {path: path.stat().st_mtime_ns for path in out.glob("caches/frames/shards/*")}
    assert frames and not (out / "report.json").exists()

    monkeypatch.setattr(Steps, "run", _run_here)
    found = fb.ways(str(clips), cache_dir=out, labels=labels, **SMALL)
    assert json.loads((out / "report.json").read_text()) == found
    assert (out / "index.html").stat().st_size
    assert {path: path.stat().st_mtime_ns for path in frames} == frames
    ways = found["ways"]
    assert [way["number"] for way in ways] == ["1", "2", "3", "4", "5", "6a", "6b", ""]
    for way in ways:
        low, high = way["interval"]
        assert 0 <= low <= way["accuracy"] <= high <= 1 and high - low > 0.5  # of two clips
        assert way["judged"] == 2 and way["left_out"] == 1
        assert min(way["extraction_s"], way["training_s"], way["cache_bytes"]) > 0
        assert min(way["model_bytes"], way["parameters"]) > 0
        assert way["killed"] == {"extraction_s": way["cache"] == "pixels", "training_s": False}
    assert found["caches"]["clips"]["rows"] == 6  # a clip of 16 frames each
    with pytest.raises(FramebankError, match="epochs 1"):
        fb.ways(str(clips), cache_dir=out, labels=labels, **SMALL | {"epochs": 2})


def _steps(out: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        return dict(json.loads((out / "ways.json").read_text())["steps"])
    return {}
