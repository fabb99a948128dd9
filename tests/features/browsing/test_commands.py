"""`framebank ls`, `like` and `browse`, as they are called."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest

import framebank as fb
from framebank import cli
from framebank.features.cache import catalog, layout
from framebank.features.extraction.one_clip import make_spec
from framebank.features.spec import SpecChoice
from tests.made import forked
from tests.made.made_cache import make_cache, make_shard


@pytest.fixture
def cache(tmp_path: Path) -> str:
    make_cache(str(tmp_path / "cache"))
    return str(tmp_path / "cache")


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    assert cli.main(list(words)) == status
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_ls(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "ls", cache, "--sort", "frames", "--descending", "--limit", "2")
    lines = out.splitlines()
    assert lines[0].split() == ["video_id", "status", "frames", "duration_s"]
    assert [line.split()[0] for line in lines[1:]] == ["d.mp4", "b.mp4"]
    assert "the first 2 of 5 videos" in err
    out, _ = run(capsys, "ls", cache, "--where", "status=quarantined")
    assert "missing" in out and "no file" in out
    assert run(capsys, "ls", cache, "--where", "frames>100")[1] == "framebank: 0 of 5 videos\n"
    found = json.loads(
        run(capsys, "ls", cache, "--json", "--where", "video_id~.MP4", "--limit=1")[0]
    )
    assert found["total"] == 5 and found["rows"][0]["video_id"] == "a.mp4"
    assert found == fb.ls(cache, where="video_id~.MP4", limit=1)
    assert "did you mean frames" in run(capsys, "ls", cache, "--where", "frame>1", status=2)[1]
    assert "no cache" in run(capsys, "ls", "/nowhere", status=2)[1]


def test_like_a_video_of_the_cache(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "like", cache, "d", "--count", "2")
    assert len(out.splitlines()) == 2 and "d.mp4" not in out
    found = fb.like(cache, "a.mp4")
    assert found["video_id"] == "a.mp4" and found["method"] == "exact" and found["of"] == 4
    assert [row["video_id"] for row in found["neighbours"]][-1] in ("b.mp4", "c/ü.mp4", "d.mp4")
    assert "in quarantine as missing" in run(capsys, "like", cache, "bad", status=2)[1]
    assert "did you mean 'd.mp4'" in run(capsys, "like", cache, "D.mp4", status=2)[1]


def test_like_a_clip(clips: Path, tmp_path: Path) -> None:
    spec, _ = make_spec(SpecChoice(backbone="pixels:32", sample="uniform=2"))
    videos = [fb.extract_features(clips / f"a{number}.mp4", spec=spec) for number in range(2)]
    layout.write_spec(str(tmp_path), spec)
    rows = make_shard(str(tmp_path), "s-0", videos, run_id="20261121-0100", spec=spec)
    catalog.write_catalog(str(tmp_path), "20261121-0100", rows)
    found = fb.like(tmp_path, clips / "a1.mp4", count=1)
    assert found["video_id"] is None
    assert found["neighbours"] == [{"video_id": "a1.mp4", "cosine": 1.0}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_browse_says_where_and_ends_quietly(cache: str, number: signal.Signals) -> None:
    pytest.importorskip("uvicorn")
    words = ("-m", "framebank", "browse", cache, "--port", "0")
    process = forked.start(*words, stdout=forked.PIPE, stderr=forked.PIPE)
    assert process.stdout is not None and process.stderr is not None
    address = process.stdout.readline().strip()
    with urllib.request.urlopen(f"{address}api/cache/videos", timeout=30) as answer:
        assert json.load(answer)["total"] == 5
    process.send_signal(number)
    assert process.wait(30) == 0
    assert process.stderr.read() == "framebank: Ctrl-C ends this\n"


def test_browse_tells_what_it_cannot_do(
    cache: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn")
    for words, told in (
        ([cache, "--port", "70000"], "port 70000 cannot be used"),
        (["/nowhere", "--port", "0"], "no cache at /nowhere"),
        ([cache, "--port", "0", "--answers", str(tmp_path)], "no answers in"),
        ([cache, "--port", "0", "--questions", "/nowhere.csv"], "/nowhere.csv"),
    ):
        assert told in run(capsys, "browse", *words, "--no-open", status=2)[1]
