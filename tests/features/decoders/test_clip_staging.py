"""Clips of a bucket: brought ahead of the decoders, over a bad line too, and cleaned up after."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framebank.features.decoders.clip_staging import ClipSource
from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.errors import JobError
from framebank.features.stores import storage
from framebank.features.video import Extracted, VideoRef
from tests.clips.plain_clips import FakeNetwork
from tests.features.extraction.test_engine import ref_of, run
from tests.servers import bucket_servers
from tests.servers.bucket_servers import environment, serve
from tests.servers.faulty_proxy import faulty_proxy


@pytest.mark.parametrize("kind", bucket_servers.KINDS)
def test_clips_over_a_bad_line_give_the_rows_of_the_local_ones(
    kind: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    local = run([ref_of(path) for path in sorted(clips.iterdir())], DecoderPolicy(), FakeNetwork())
    with serve(kind, tmp_path / "server") as server:
        with environment(**server.environment):
            for path in clips.iterdir():
                storage.write_atomic(f"{server.bucket}/set/{path.name}", path.read_bytes())
            listed = storage.list_files(f"{server.bucket}/set")
        refs = [
            VideoRef(file.path.rsplit("/", 1)[-1], file.path, file.size_bytes, file.generation)
            for file in listed
        ]
        gone = dataclasses.replace(refs[0], video_id="gone", uri=f"{server.bucket}/set/gone")
        old = dataclasses.replace(refs[0], video_id="old", generation="1")
        with (
            faulty_proxy(server.url, share=0.2, seed=3) as proxy,
            environment(**server.through(proxy.url).environment),
        ):
            results = run([*refs, gone, old], DecoderPolicy(decoders=2), FakeNetwork())
    bad = {name: results.pop(name) for name in ("gone", "old")}
    classes = {n: bad[n].error_class for n in bad}  # type: ignore[union-attr]
    assert classes == {"gone": "missing", "old": "unreadable"}
    assert results.keys() == local.keys()
    for name, expected in local.items():
        result = results[name]
        assert type(result) is type(expected)
        if isinstance(result, Extracted) and isinstance(expected, Extracted):
            np.testing.assert_array_equal(result.features, expected.features)
            assert result.content_sha256 == expected.content_sha256
    assert not [path for path in scratch.iterdir() if path.name.startswith("framebank-")]


def test_the_folder_goes_with_the_last_clip_also_when_the_end_is_known_later(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    last_done = threading.Event()
    with (
        serve("gcp-storage-emulator", tmp_path / "server") as server,
        environment(**server.environment),
    ):
        storage.write_atomic(f"{server.bucket}/a.mp4", b"of a clip")
        found = storage.list_files(f"{server.bucket}/")[0]
        ref = VideoRef("a.mp4", found.path, found.size_bytes, found.generation)

        def refs() -> Iterator[VideoRef]:
            yield ref
            last_done.wait(timeout=30)

        source = ClipSource(refs(), threading.Event(), downloads=1, max_size_bytes=1 << 30)
        clip = source.take()
    assert clip is not None and Path(clip.path).read_bytes() == b"of a clip"
    source.done(clip)
    assert list(scratch.iterdir())
    last_done.set()
    assert source.take() is None
    deadline = time.monotonic() + 10
    while list(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not list(scratch.iterdir())


def test_what_goes_wrong_with_the_list_of_clips_is_told_and_is_no_end_of_it() -> None:
    def refs() -> Iterator[VideoRef]:
        yield VideoRef("a.mp4", "/a.mp4", 1, "")
        raise JobError("the plan is gone")

    source = ClipSource(refs(), threading.Event(), downloads=2, max_size_bytes=1 << 30)
    clip = source.take()
    assert clip is not None
    with pytest.raises(JobError, match="the plan is gone"):
        source.take()
