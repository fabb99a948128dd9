"""Thumbnails of source videos: the frames that were sampled, or the reason why there are none."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from pathlib import Path

import av
import pytest

from framebank.features.browsing.thumbnails import make_thumbnails
from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import Cache, open_cache
from framebank.features.stores import storage
from framebank.features.video import SourceInfo, VideoRef
from tests.made.made_cache import SPEC, make_extracted, make_shard
from tests.servers import bucket_servers

_SPEC = dataclasses.replace(SPEC, sample="uniform=4", input_size=75)


def _cache(path: Path, uris: dict[str, str], digests: dict[str, str]) -> Cache:
    """Return a cache whose catalog says that the videos are at `uris`."""
    videos = []
    for name, uri in uris.items():
        found = storage.find(uri) if uri else None
        size, generation = (found.size_bytes, found.generation) if found else (5, "7")
        videos.append(
            dataclasses.replace(
                make_extracted(name),
                ref=VideoRef(name, uri, size, generation),
                source=SourceInfo("mov,mp4", "h264", 64, 48, 10.0, 1.0, 10),
                content_sha256=digests.get(name, "0" * 64),
            )
        )
    layout.write_spec(str(path), _SPEC)
    rows = make_shard(str(path), "s", videos, run_id="20261121-0100", spec=_SPEC)
    catalog.write_catalog(str(path), "20261121-0100", rows)
    return open_cache(str(path))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _size(picture: str) -> tuple[int, int]:
    data = base64.b64decode(picture.removeprefix("data:image/jpeg;base64,"))
    with av.open(io.BytesIO(data)) as jpeg:
        frame = next(jpeg.decode(video=0))
    return frame.width, frame.height


def test_frames_and_reasons(clips: Path, tmp_path: Path) -> None:
    good, bad = clips / "a0.mp4", tmp_path / "bad.mp4"
    bad.write_bytes(good.read_bytes()[:200])
    uris = {
        "good": str(good), "changed": str(clips / "a1.mp4"), "bad": str(bad),
        "gone": str(tmp_path / "gone.mp4"), "unknown": "", "unasked": str(good),
    }  # fmt: skip
    cache = _cache(tmp_path / "cache", uris, {"good": _sha256(good)})
    found = make_thumbnails(cache, set(uris) - {"unasked"})
    assert set(found) == set(uris) - {"unasked"}
    assert len(found["good"].pictures) == 4 and found["good"].pts_ms == (100, 300, 500, 700)
    assert {_size(picture) for picture in found["good"].pictures} == {found["good"].size}
    assert found["good"].size == (176, 132)  # the shape of the clip, not the network's square
    for name, words in {
        "changed": "has changed", "bad": "cannot be decoded", "gone": "not there any more",
        "unknown": "does not say where",
    }.items():  # fmt: skip
        assert words in found[name].reason and not found[name].pictures, found[name].reason


def test_clips_of_a_bucket_are_fetched(clips: Path, tmp_path: Path) -> None:
    with (
        bucket_servers.serve("moto", tmp_path / "moto") as server,
        bucket_servers.environment(**server.environment),
    ):
        uris = {name: f"{server.bucket}/{name}.mp4" for name in ("here", "gone")}
        storage.write_atomic(uris["here"], (clips / "a0.mp4").read_bytes())
        digests = {"here": _sha256(clips / "a0.mp4")}
        cache = _cache(tmp_path / "cache", uris, digests)
        found = make_thumbnails(cache, set(uris))
    assert len(found["here"].pictures) == 4
    assert "not there any more" in found["gone"].reason


def test_a_store_that_does_not_answer_leaves_the_page_without_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framebank.features.stores.objects.FIRST_CONTACT_S", 0.1)
    cache = _cache_of_bucket(tmp_path / "bucket")
    port = bucket_servers.free_port()
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    with bucket_servers.environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", **keys):
        found = make_thumbnails(cache, {"a"})
    assert "cannot be" in found["a"].reason


def _cache_of_bucket(path: Path) -> Cache:
    video = dataclasses.replace(
        make_extracted("a"), ref=VideoRef("a", "s3://nowhere/a.mp4", 1000, "tag")
    )
    layout.write_spec(str(path), _SPEC)
    rows = make_shard(str(path), "s", [video], run_id="20261121-0100", spec=_SPEC)
    catalog.write_catalog(str(path), "20261121-0100", rows)
    return open_cache(str(path))
