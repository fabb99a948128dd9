"""`framebank inspect`: what it prints, for people and as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from framebank.features.cache import catalog
from framebank.features.commands import inspect_command
from framebank.features.errors import UsageError
from framebank.features.video import Rejected, VideoRef
from tests.made.made_cache import SPEC, make_cache, make_shard


@pytest.fixture
def cache(tmp_path: Path) -> str:
    make_cache(str(tmp_path / "cache"))
    return str(tmp_path / "cache")


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    parser = argparse.ArgumentParser()
    inspect_command.add_arguments(parser)
    assert inspect_command.run(parser.parse_args(words), []) == 0
    return capsys.readouterr().out


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(_run(capsys, *words, "--json"))


def test_the_summary_as_json(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, cache)
    assert list(found)[:6] == ["videos", "frames", "shards", "bytes", "fingerprint", "spec"]
    assert found["videos"] == {"done": 4, "quarantined": 1}
    assert (found["frames"], found["shards"]) == (15, 3)
    assert found["bytes"] == sum(f.stat().st_size for f in Path(cache).glob("shards/*.tfrecord"))
    assert (found["fingerprint"], found["spec"]) == (SPEC.fingerprint, SPEC.to_json())
    assert found["quarantined_by_class"] == {"missing": 1}


def test_the_summary_for_people(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _run(capsys, cache)
    assert "4 done, 1 quarantined" in text and "RANDOM weights" in text
    assert "inception_v3" in text and "missing" in text and SPEC.fingerprint in text


def test_quarantined_rows(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    evil = Rejected(
        VideoRef("e\x1b[31m.mp4", "/e", 3, "4", attempt=2, columns={"label": float("nan")}),
        "decode", "corrupt", "line\nline",
    )  # fmt: skip
    rows = make_shard(cache, "r3-0", [evil], run_id="20261121-0300")
    catalog.write_catalog(cache, "20261121-0300", rows)
    found = _json(capsys, cache, "--quarantined")
    assert [(row["video_id"], row["error_class"]) for row in found] == [
        ("e\x1b[31m.mp4", "corrupt"), ("bad.mp4", "missing"),
    ]  # fmt: skip
    assert found[0]["label"] is None
    for name in ("uri", "stage", "message", "attempt", "time"):
        assert name in found[0]
    text = _run(capsys, cache, "--quarantined")
    assert "\x1b" not in text and "e\\x1b[31m.mp4" in text and "attempt 2" in text
    assert "missing (1): the file or object does not exist" in text


def test_one_video(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, cache, "--video", "b.mp4")
    assert (found["state"], found["rows"], found["partial"]) == ("done", 4, True)
    assert found["pts_ms"] == [0, 1000, 2000, 3000] and found["frame_index"] == [0, 25, 50, 75]
    assert found["features"] == {"shape": [4, 8], "dtype": "float16"}
    assert "float16[4, 8]" in _run(capsys, cache, "--video", "b.mp4")
    assert _json(capsys, cache, "--video", "bad.mp4")["error_class"] == "missing"
    assert "no file" in _run(capsys, cache, "--video", "bad.mp4")


def test_a_video_is_found_as_that_of_a_question_is(
    cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for wanted, found in (("d", "d.mp4"), ("u\u0308.mp4", "c/ü.mp4"), ("bad", "bad.mp4")):
        assert _json(capsys, cache, "--video", wanted)["video_id"] == found
    for wanted, near in (("D.mp4", "'d.mp4'"), ("a.mp3", "'a.mp4'"), ("x/ü.mp4", "'c/ü.mp4'")):
        with pytest.raises(UsageError, match="did you mean") as caught:
            _run(capsys, cache, "--video", wanted)
        assert near in str(caught.value)
    with pytest.raises(UsageError, match="5 videos, none of that id"):
        _run(capsys, cache, "--video", "#")


def test_a_damaged_shard_does_not_stop_it(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(cache) / "shards/r1-0.tfrecord").write_bytes(b"x")
    assert _json(capsys, cache)["videos"]["done"] == 4


def test_orphans_are_mentioned(cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_shard(cache, "r3-0", [], run_id="20261121-0300")
    parser = argparse.ArgumentParser()
    inspect_command.add_arguments(parser)
    inspect_command.run(parser.parse_args([cache, "--json"]), [])
    captured = capsys.readouterr()
    assert "1 committed shards are in no catalog" in captured.err
    assert json.loads(captured.out)["videos"]["done"] == 4
