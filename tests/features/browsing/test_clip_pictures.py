"""Contact sheets and frames: from the source, from what is kept, or why there are none."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framebank.features.browsing.clip_pictures import (
    PictureMaker,
    Pictures,
    intact,
    pictures_of,
)
from framebank.features.browsing.missing import NoPicturesError
from framebank.features.browsing.thumbnails import Taken
from framebank.features.cache import catalog, layout
from framebank.features.cache.reader import open_cache
from framebank.features.pages.page import jpeg_bytes
from framebank.features.pictures import Pictures as Encoded
from framebank.features.pictures import encode_picture
from tests.features.browsing.conftest import RUN, made_video
from tests.made.made_cache import SPEC, make_shard

WAIT_S = 60.0


@pytest.fixture(scope="module")
def maker(looked_into: str) -> Iterator[PictureMaker]:
    made = PictureMaker(open_cache(looked_into))
    yield made
    made.close()


def row_of(maker: PictureMaker, video_id: str) -> dict[str, object]:
    table = maker._cache.table()
    (row,) = catalog.where(table, "video_id", video_id).to_pylist()
    return row


def size_of(jpeg: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG"
        return picture.size


def test_a_sheet_and_frames_are_made_once(maker: PictureMaker, looked_into: str) -> None:
    row = row_of(maker, "day/a0.mp4")
    assert maker.kept(row) is None
    found = maker.get(row, wait_s=WAIT_S)
    assert (found.rows, found.pts_ms, found.of) == ([0, 1, 2, 3], [100, 300, 500, 700], 4)
    assert size_of(found.sheet) == (4 * 176, 132)
    assert {size_of(found.frame(number) or b"") for number in range(4)} == {(240, 180)}
    assert found.frame(4) is None
    again = PictureMaker(open_cache(looked_into)).kept(row)
    assert again is not None and again.sheet == found.sheet and again.frame(2) == found.frame(2)
    assert len(list((Path(looked_into) / "thumbnails").rglob("*.zip"))) == 1


def test_of_a_damaged_clip_the_frames_before_the_damage(maker: PictureMaker) -> None:
    found = maker.get(row_of(maker, "bad.mp4"), wait_s=WAIT_S)
    assert found.pts_ms == [0, 100, 200, 300, 400]  # of all frames, not of the rule's
    assert size_of(found.sheet) == (5 * 176, 132)  # its shape, though the catalog has none


@pytest.mark.parametrize(
    ("video_id", "told"),
    [("gone.mp4", "not there any more"), ("missing.mp4", "not there any more")],
)
def test_why_there_are_none(maker: PictureMaker, video_id: str, told: str) -> None:
    for _ in range(2):  # the second time it is known
        with pytest.raises(NoPicturesError, match=told):
            maker.get(row_of(maker, video_id), wait_s=WAIT_S)


def test_a_source_that_changed_shows_nothing(maker: PictureMaker) -> None:
    row = row_of(maker, "day/a1.mp4") | {"content_sha256": "0" * 64, "key": "another"}
    with pytest.raises(NoPicturesError, match="has changed since its features"):
        maker.get(row, wait_s=WAIT_S)
    row = row_of(maker, "bad.mp4") | {"generation": "1", "key": "another"}
    with pytest.raises(NoPicturesError, match="has changed since it was quarantined"):
        maker.get(row, wait_s=WAIT_S)


def made_pictures(count: int = 300) -> Pictures:
    jpeg = jpeg_bytes(np.zeros((48, 64, 3), np.uint8), width=64, height=48)
    rows = tuple(range(count))
    return pictures_of(
        Taken((jpeg,) * count, rows, tuple(1000 * row for row in rows), (64, 48), count)
    )


def test_of_many_frames_some_are_kept() -> None:
    found = made_pictures()
    assert len(found.rows) == 240 and (found.rows[0], found.rows[-1]) == (0, 299)
    assert size_of(found.sheet) == (8 * 176, 132)
    assert Pictures.from_bytes(found.to_bytes()).rows == found.rows


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "not jpeg", "html"])
def test_what_is_kept_is_doubted(damage: str) -> None:
    whole = made_pictures(3).to_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    data = {
        "empty": b"", "cut": whole[:-30], "flipped": bytes(flipped),
        "not jpeg": whole.replace(b"\xff\xd8\xff", b"GIF"), "html": b"<script>",
    }[damage]  # fmt: skip
    with pytest.raises(ValueError):
        Pictures.from_bytes(data)


def test_intact_reads_the_time_of_the_first_damage() -> None:
    taken = Taken((b"a", b"b", b"c"), (0, 1, 2), (0, 1000, 2000), of=3)
    assert intact(taken, "3 errors; first: a packet at 1.50 s").rows == (0, 1)
    assert intact(taken, "it ends at 1.00 s of 9.00 s stated") == taken
    assert intact(taken, "first: something at 0.00 s") == taken
    assert intact(Taken(reason="x"), "first: something at 1.00 s").reason == "x"


def test_a_cache_of_pixels_needs_no_source(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, backbone="pixels", dtype="png", input_size=32)
    image = np.full((32, 32, 3), 90, np.uint8)
    video = made_video("p.mp4", tmp_path / "gone.mp4", rows=2)
    video = dataclasses.replace(
        video, features=Encoded([encode_picture(image, "png")] * 2, "png", 32)
    )
    layout.write_spec(str(tmp_path), spec)
    rows = make_shard(str(tmp_path), "p-0", [video], run_id=RUN, spec=spec)
    catalog.write_catalog(str(tmp_path), RUN, rows)
    maker = PictureMaker(open_cache(str(tmp_path)))
    found = maker.get(row_of(maker, "p.mp4"), wait_s=WAIT_S)
    maker.close()
    assert found.pts_ms == [0, 1000] and size_of(found.frame(1) or b"") == (240, 180)
