"""pipelines/inputs/listing.py on real folders, links, pipes, manifests and a bucket."""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from framebank.features.decoders.clip_staging import ClipSource
from framebank.features.errors import UsageError
from framebank.features.video import UNLISTED, VideoRef, catalog_text
from framebank.pipelines.inputs.listing import InputListing, expand_inputs
from tests import ROOT
from tests.servers.fake_bucket import serve_bucket


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for name in ("b.mp4", "a.MKV", "sub/c.mp4", "sub/d.jpg", "notes.txt", "Makefile", "x[1].mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def _expand(*inputs: object, images: bool = False, cache: str | None = None) -> InputListing:
    return expand_inputs([str(text) for text in inputs], images=images, cache=cache)


def _ids(*inputs: object, images: bool = False) -> list[str]:
    return [ref.video_id for ref in _expand(*inputs, images=images).refs]


def test_a_folder_gives_its_videos_and_counts_the_rest(clips: Path) -> None:
    listing = _expand(clips)
    assert [ref.video_id for ref in listing.refs] == ["a.MKV", "b.mp4", "x[1].mp4", "sub/c.mp4"]
    assert listing.skipped_by_suffix == {"": 1, ".jpg": 1, ".txt": 1}
    ref = listing.refs[1]
    status = (clips / "b.mp4").stat()
    assert (ref.uri, ref.size_bytes, ref.generation) == (
        str(clips / "b.mp4"), 5, str(status.st_mtime_ns),
    )  # fmt: skip
    assert "sub/d.jpg" in _ids(clips, images=True)
    assert _ids(f"{clips}/") == _ids(f"file://{clips}") == _ids(clips)


def test_relative_paths_become_absolute(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clips.parent)
    for text in ("clips", "./clips/", "clips/../clips"):
        listing = _expand(text)
        assert listing.refs == _expand(clips).refs
    assert _expand("clips/b.mp4").refs[0].uri == str(clips / "b.mp4")


def test_a_file_named_outright_is_always_tried(clips: Path) -> None:
    assert _ids(clips / "notes.txt", clips / "sub/c.mp4") == ["notes.txt", "c.mp4"]
    assert _ids(clips / "x[1].mp4") == ["x[1].mp4"]


def test_globs(clips: Path) -> None:
    assert _ids(f"{clips}/*.mp4") == ["b.mp4", "x[1].mp4"]
    assert _ids(f"{clips}/**/*.mp4") == ["b.mp4", "sub/c.mp4", "x[1].mp4"]
    assert _ids(f"{clips}/*.txt") == ["notes.txt"]
    assert _ids(f"{clips}/*") == ["a.MKV", "b.mp4", "sub/c.mp4", "x[1].mp4"]
    assert _ids(f"{clips}/**") == ["a.MKV", "b.mp4", "sub/c.mp4", "x[1].mp4"]
    assert _expand(f"{clips}/**").skipped_by_suffix == {"": 1, ".jpg": 1, ".txt": 1}
    (clips / "sub/up").symlink_to("..")
    assert _ids(f"{clips}/**/c.mp4") == ["sub/c.mp4"]
    assert _ids(f"{clips.parent}/*/sub/c.mp4") == ["clips/sub/c.mp4"]


@pytest.mark.parametrize("name", ["clip", "clips/c.mp4", "absent/*.mp4", "clips/*.mov", ""])
def test_what_does_not_exist_is_a_mistake(
    clips: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips.parent)
    with pytest.raises(UsageError) as caught:
        _expand(name)
    assert caught.value.exit_status == 2
    if name == "clip":
        assert "did you mean clips?" in str(caught.value)
    if name == "clips/c.mp4":
        assert "did you mean clips/b.mp4" in str(caught.value)


def test_a_folder_without_videos_is_a_mistake(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nothing at all"):
        _expand(clips, tmp_path / "empty")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.PNG").touch()
    with pytest.raises(UsageError, match="--images"):
        _expand(tmp_path / "pictures")
    assert _ids(tmp_path / "pictures", images=True) == ["a.PNG"]


def test_pipes_and_dangling_links_come_along_unopened(clips: Path) -> None:
    os.mkfifo(clips / "pipe.mp4")
    (clips / "link.mp4").symlink_to("nowhere")
    (clips / "loop.mp4").symlink_to("loop.mp4")
    (clips / "folder.mp4").mkdir()
    found: list[InputListing] = []
    reader = threading.Thread(
        target=lambda: found.append(_expand(clips, clips / "pipe.mp4")), daemon=True
    )
    reader.start()
    reader.join(timeout=20)
    assert found, "it opened the pipe"
    refs = {ref.video_id: ref for ref in found[0].refs}
    for name in ("pipe.mp4", "link.mp4", "loop.mp4"):
        assert refs[name].size_bytes == 0 and refs[name].generation.isdigit()
    assert "folder.mp4" not in refs
    assert _ids(clips / "link.mp4") == ["link.mp4"]


def test_two_videos_with_one_id_are_named_both(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.mp4").write_bytes(b"other")
    with pytest.raises(UsageError) as caught:
        _expand(clips, tmp_path / "other")
    assert str(clips / "b.mp4") in str(caught.value)
    assert str(tmp_path / "other/b.mp4") in str(caught.value)
    listing = _expand(clips, clips / "b.mp4", clips / "sub/c.mp4")
    assert [ref.video_id for ref in listing.refs][-2:] == ["sub/c.mp4", "c.mp4"]
    assert listing.notes == [
        "1 videos were named more than once; each counts once",
        "1 files come in under more than one video_id",
    ]


def test_a_name_that_is_no_utf8_is_taken(clips: Path) -> None:
    (clips / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    ref = next(ref for ref in _expand(clips).refs if "caf" in ref.video_id)
    assert ref.video_id == "caf\\xe9.mp4" and Path(ref.uri).read_bytes() == b"x"
    json.dumps(dataclasses.asdict(ref)).encode()


def test_a_manifest(tmp_path: Path, clips: Path) -> None:
    rows = [
        {"uri": "clips/b.mp4", "label": "x", "n": 3},
        {"uri": str(clips / "sub/c.mp4"), "video_id": "mine"},
        {"uri": f"file://{clips}/x%5B1%5D.mp4"},
        {"uri": "clips/absent.mp4"},
        {"uri": "clips/sub"},
        {"uri": "/dev/null"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    listing = _expand(tmp_path / "m.jsonl")
    refs = listing.refs
    assert [ref.video_id for ref in refs] == [
        "clips/b.mp4", "mine", "clips/x[1].mp4", "clips/absent.mp4", "clips/sub", "null",
    ]  # fmt: skip
    assert refs[0].columns == {"label": "x", "n": 3} and refs[0].uri == str(clips / "b.mp4")
    assert (refs[3].size_bytes, refs[3].generation) == (-1, "")
    assert [ref.size_bytes for ref in refs] == [5, 9, 8, -1, 0, 0]
    assert listing.notes == [
        f"1 videos of {tmp_path}/m.jsonl do not exist; they will be quarantined"
    ]


def test_faults_of_a_manifests_rows(tmp_path: Path, clips: Path) -> None:
    path = tmp_path / "m.csv"
    for text, words in (
        ("uri,video_id\nclips/b.mp4,same\nclips/sub/c.mp4,same\n", "two videos"),
        ("uri\nftp://bucket/x\n", "line 2: Framebank cannot reach ftp://"),
        ("uri\ngs:///x\n", "line 2"),
        (f"uri,video_id\nclips/b.mp4,{'x' * 1025}\n", "line 2: not a video_id"),
        ("uri,video_id\nclips/b.mp4,  \n", "not a video_id"),
        ("uri,video_id\n", "no video in"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            _expand(path)
        assert words in str(caught.value)
    path.write_text("uri\n../clips/b.mp4\n")
    assert _ids(clips.parent / "clips" / ".." / "m.csv", clips / "sub") == ["b.mp4", "c.mp4"]


def test_the_cache_is_never_an_input(clips: Path) -> None:
    (clips / "cache").mkdir()
    (clips / "cache/x.mp4").touch()
    cache = str(clips / "cache")
    assert "cache/x.mp4" not in [ref.video_id for ref in _expand(clips, cache=cache).refs]
    with pytest.raises(UsageError, match="the cache itself"):
        _expand(cache, cache=cache)


def test_a_bucket() -> None:
    pytest.importorskip("google.cloud.storage")
    with serve_bucket("films") as bucket:
        for name in ("in/a.mp4", "in/sub/b.webm", "in/readme.md", "in2/c.mp4", "x"):
            bucket.put(name, name.encode())
        bucket.put("in/m.csv", b"uri\na.mp4\ngs://films/in2/c.mp4\nabsent.mp4\n")
        listing = _expand("gs://films/in")
        assert [(ref.video_id, ref.uri) for ref in listing.refs] == [
            ("a.mp4", "gs://films/in/a.mp4"), ("sub/b.webm", "gs://films/in/sub/b.webm"),
        ]  # fmt: skip
        assert listing.skipped_by_suffix == {".csv": 1, ".md": 1}
        assert (listing.refs[0].size_bytes, listing.refs[0].generation) == (8, "1001")
        assert _ids("gs://films/x", "gs://films/in2/") == ["x", "c.mp4"]
        assert _ids("gs://films/i") == ["in/a.mp4", "in/sub/b.webm", "in2/c.mp4"]
        assert _ids("gs://films") == ["in/a.mp4", "in/sub/b.webm", "in2/c.mp4"]
        assert _ids("gs://films/in*/*.mp4") == ["in/a.mp4", "in2/c.mp4"]
        assert _ids("gs://films/in/**/*.webm") == ["sub/b.webm"]
        refs = _expand("gs://films/in/m.csv").refs
        assert [(ref.video_id, ref.size_bytes) for ref in refs] == [
            ("a.mp4", 8), ("c.mp4", 9), ("absent.mp4", -1),
        ]  # fmt: skip
        for text in ("gs://films/none", "gs://films/none/*.mp4", "gs://nobucket/x"):
            with pytest.raises(UsageError):
                _expand(text)


def test_many_files_are_listed_quickly(tmp_path: Path) -> None:
    for folder in range(10):
        (tmp_path / str(folder)).mkdir()
        for number in range(300):
            (tmp_path / str(folder) / f"{number}.mp4").touch()
    start = time.perf_counter()
    assert len(_expand(tmp_path).refs) == 3000
    assert time.perf_counter() - start < 2


def test_a_file_takes_few_bytes_of_memory_and_many_calls_none(tmp_path: Path) -> None:
    for folder in range(5):
        (tmp_path / f"{folder:03d}").mkdir()
        for number in range(1000):
            path = tmp_path / f"{folder:03d}" / f"{number:07d}.mp4"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    try:
        listing = _expand(tmp_path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(listing.refs) == 5000
    name_bytes = 2 * len(listing.refs[0].uri)
    assert held / 5000 < 500 + name_bytes and peak / 5000 < 900 + name_bytes


def test_odd_names_give_what_looking_at_each_file_gives(tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    for name in ("ü.mp4", "new\nline.mp4", "...mp4", "..x.MP4", "a.b/.mp4", "a.b/c.mp4", "a.b/d",
                 "b\udcff.mp4", " .mp4", "sub/e.mp4.mp4", "sub/.hidden/f.webm"):  # fmt: skip
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    other.mkdir()
    (other / "g.mp4").write_bytes(b"elsewhere")
    (base / "linked").symlink_to(other)
    (base / "sub" / "up").symlink_to(base)
    (base / "link.mp4").symlink_to(other / "g.mp4")
    (base / "nowhere.mp4").symlink_to(other / "none.mp4")
    (base / "itself.mp4").symlink_to(base / "itself.mp4")
    os.mkfifo(base / "pipe.mp4")
    paths = [os.path.join(at, name) for at, _, names in os.walk(base) for name in names]
    expected = {}
    for path in [*paths, str(base / "linked" / "g.mp4")]:
        if os.path.splitext(path)[1].lower() in (".mp4", ".webm"):
            try:
                status, size_bytes = os.stat(path), os.path.getsize(path)
            except OSError:
                status, size_bytes = os.lstat(path), 0
            video_id = catalog_text(os.path.relpath(path, base))
            expected[video_id] = (path, size_bytes, str(status.st_mtime_ns))
    listing = _expand(base)
    found = {ref.video_id: (ref.uri, ref.size_bytes, ref.generation) for ref in listing.refs}
    assert found == expected and len(listing.refs) == len(found)
    assert listing.skipped_by_suffix == {"": 3}
    assert listing.refs == _expand(base, base).refs
    by_id = operator.attrgetter("video_id")
    assert sorted(listing.refs, key=by_id) == sorted(_expand(f"{base}/**/*").refs, key=by_id)


_LIST = """
import json, sys
from framebank.features.errors import FramebankError
from framebank.pipelines.inputs.listing import expand_inputs
try:
    found = expand_inputs(sys.argv[1:], images=False)
    refs = [[ref.video_id, ref.size_bytes, ref.why_unlisted] for ref in found.refs]
    print(json.dumps([refs, found.notes]))
except FramebankError as error:
    print(json.dumps(str(error)))
"""


def _list_without_rights(*inputs: object) -> Any:
    """Expand inputs as somebody whom the rights of folders bind: root's own account without these
    capabilities is one."""
    words: list[str] = []
    if os.geteuid() == 0:
        less = "-dac_override,-dac_read_search"
        words = ["setpriv", f"--inh-caps={less}", f"--bounding-set={less}"]
        if not shutil.which("setpriv"):
            pytest.skip("root is bound by no rights of folders, and there is no setpriv")
    found = subprocess.run(
        [*words, sys.executable, "-c", _LIST, *map(str, inputs)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(found.stdout)


def test_a_folder_that_cannot_be_listed_is_a_row_and_costs_no_other(clips: Path) -> None:
    for name in ("shut/e.mp4", "sub/shut/f.mp4", "names/g.mp4"):
        (clips / name).parent.mkdir()
        (clips / name).touch()
    for name, mode in (("shut", 0), ("sub/shut", 0), ("names", 0o400)):
        (clips / name).chmod(mode)
    try:
        refs, notes = _list_without_rights(clips)
        rows = {video_id: why for video_id, _, why in refs}
        why = "Permission denied"
        assert rows["shut"] == rows["sub/shut"] == why
        assert set(rows) == {"a.MKV", "b.mp4", "x[1].mp4", "sub/c.mp4", "shut", "sub/shut",
                             "names/g.mp4"}  # fmt: skip
        assert "not known: 2, each quarantined as unreadable" in notes[-1]
        for pattern in ("*/*.mp4", "**/*.mp4", "*"):
            rows = {
                video_id: why for video_id, _, why in _list_without_rights(f"{clips}/{pattern}")[0]
            }
            assert rows["shut"] == why and "sub/c.mp4" in rows, pattern
        for shut in (clips / "shut", f"{clips}/shut/*.mp4", f"{clips}/shut/**/*.mp4"):
            assert "permission denied" in _list_without_rights(clips, shut), (
                shut
            )  # an INPUT of its own is a mistake
    finally:
        for name in ("shut", "sub/shut", "names"):
            (clips / name).chmod(0o700)


def test_an_unlisted_folder_is_unreadable_wherever_the_job_runs(clips: Path) -> None:
    ref = VideoRef("sub", str(clips / "sub"), -1, f"{UNLISTED}Permission denied")
    source = ClipSource([ref], threading.Event(), downloads=1, max_size_bytes=1)
    clip = source.take()
    assert clip is not None and clip.rejected is not None
    assert clip.rejected.error_class == "unreadable"
    assert "cannot be listed (Permission denied)" in clip.rejected.message
    source.done(clip)


def test_a_path_of_a_manifest_may_begin_in_the_home_folder(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "list.csv").write_text("uri\n~/clips/b.mp4\n~no one.mp4\n")
    refs = _expand(tmp_path / "list.csv").refs
    assert [(ref.video_id, ref.size_bytes >= 0) for ref in refs] == [
        ("clips/b.mp4", True), ("~no one.mp4", False),
    ]  # fmt: skip
