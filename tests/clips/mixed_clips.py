"""A folder of clips of many kinds, good and bad, for tests of what counts or estimates them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.clips.barcode import CLOSED_GOP, OPEN_GOP, write_barcode_clip
from tests.clips.plain_clips import write_clip


def write_mixed_clips(folder: Path) -> Path:
    """Write h264, mpeg4, vp9 and gif; variable rates, a late start, one frame; and three bad."""
    write_clip(folder / "plain.mp4", frames=31)
    write_clip(folder / "large.mp4", frames=20, size=(320, 240), seed=1)
    write_clip(folder / "one.mp4", frames=1, seed=2)
    even = range(0, 4000, 40)
    write_barcode_clip(folder / "bframes.mp4", ticks=even, options=CLOSED_GOP)
    write_barcode_clip(folder / "open.mkv", ticks=[t + 1300 for t in even], options=OPEN_GOP)
    uneven = np.cumsum(np.random.default_rng(5).integers(5, 400, 60)).tolist()
    write_barcode_clip(folder / "uneven.mp4", ticks=uneven, options=CLOSED_GOP, last_ticks=700)
    write_barcode_clip(folder / "rare.mkv", ticks=[0, 40, 3000, 3040, 9000], last_ticks=40)
    write_barcode_clip(
        folder / "old.avi", ticks=range(50), time_base=Fraction(1, 25), last_ticks=1, codec="mpeg4"
    )
    write_barcode_clip(
        folder / "web.webm", ticks=range(0, 1600, 40), codec="libvpx-vp9", options={"cpu-used": "8"}
    )
    _write_gif(folder / "drawn.gif")
    whole = (folder / "bframes.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("no video at all")
    (folder / "empty.mp4").touch()
    return folder


def _write_gif(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        stream.codec_context.time_base = Fraction(1, 100)
        for number, ticks in enumerate((0, 10, 35, 40, 120)):
            picture = np.full((48, 64, 3), number * 40, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="rgb8")
            frame.pts, frame.time_base = ticks, Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
