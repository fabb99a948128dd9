"""Clips for the benches, the same on every machine: a scene that moves, and films of any length.

What decoding costs depends on what is shown: a textured scene that is panned over, with things
that move by themselves and grain, so that H.264 has residuals and motion in every picture. A long
film is a stretch of a prime number of frames again and again, its packets copied: nothing is
encoded twice, and frames at regular times are different pictures until the stretch came round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE_FPS = 30
# As x264 does by default, at a third of the time: three B-frames, of which one is a reference.
NATURAL = {"preset": "veryfast", "crf": "23", "x264-params": "bframes=3:b-pyramid=normal"}


def gop(frames: int, *, closed: bool = True) -> dict[str, str]:
    """Return options of x264 for a key frame every `frames` frames."""
    more = f":keyint={frames}:min-keyint={frames}:scenecut=0:open-gop={int(not closed)}"
    return NATURAL | {"x264-params": NATURAL["x264-params"] + more}


def scene(count: int, size: tuple[int, int], *, seed: int) -> Iterator[av.VideoFrame]:
    """Yield `count` yuv420p frames of `size` (width, height) of a scene that `seed` makes."""
    (w, h), dice = size, np.random.default_rng(seed)
    tall, wide = h + h // 2, w + w // 2
    canvas = np.full((tall, wide), 60.0, np.float32)
    for octave in (4, 16, 64):  # coarse to fine, weaker and weaker
        coarse = dice.random((tall // (h // octave) + 2, wide // (h // octave) + 2), np.float32)
        grown = coarse.repeat(h // octave, 0).repeat(h // octave, 1)
        canvas += grown[:tall, :wide] * (320 / octave**0.5)
    luma = np.clip(canvas / canvas.max() * 200 + 16, 16, 235).astype(np.uint8)
    chroma = np.clip(dice.normal(128, 25, (8, 8)), 40, 210).astype(np.uint8)
    chroma = chroma.repeat(h // 8 + 1, 0).repeat(w // 8 + 1, 1)
    grain = dice.integers(0, 11, (16, h, w), np.uint8)
    things = dice.integers(0, 1000, (4, 5))
    for number in range(count):
        top = round((h // 4) * (1 + np.sin(number / 71 + seed)))
        left = round((w // 4) * (1 + np.sin(number / 113 + 2 * seed)))
        picture = np.empty((h * 3 // 2, w), np.uint8)
        picture[:h] = luma[top : top + h, left : left + w] + grain[number % len(grain)]
        for x, y, dx, dy, shade in things.tolist():
            at_x, at_y = (x + number * (dx % 9 - 4)) % w, (y + number * (dy % 7 - 3)) % h
            picture[at_y : min(h, at_y + h // 6), at_x : at_x + w // 8] = 16 + shade % 220
        planes = picture[h:].reshape(2, h // 2, w // 2)
        planes[:] = chroma[top // 4 : top // 4 + h // 2, left // 4 : left // 4 + w // 2]
        yield av.VideoFrame.from_ndarray(picture, format="yuv420p")


def slides(count: int, size: tuple[int, int], *, every: int, seed: int) -> Iterator[av.VideoFrame]:
    """Yield `count` frames of which each `every`-th is a new picture, the others its copies."""
    stills = scene(count // every + 1, size, seed=seed)
    still = next(stills).to_ndarray()
    for number in range(count):
        if number and number % every == 0:
            still = np.roll(next(stills).to_ndarray(), 97 * number, axis=1)
        yield av.VideoFrame.from_ndarray(still, format="yuv420p")


def encode(
    path: Path,
    frames: Iterator[av.VideoFrame],
    *,
    codec: str = "libx264",
    rate_fps: int = RATE_FPS,
    options: dict[str, str] | None = None,
) -> Path:
    """Write `frames` to `path`, whose suffix says what file it is; return the path."""
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    part = path.with_name(f"part-{path.name}")
    with av.open(str(part), "w", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream(codec, rate=rate_fps, options=options or {})
        stream.pix_fmt = pixels
        for number, frame in enumerate(frames):
            if not number:
                stream.width, stream.height = frame.width, frame.height
            shown = frame.reformat(format=pixels)
            shown.pts, shown.time_base = number, Fraction(1, rate_fps)
            out.mux(stream.encode(shown))
        out.mux(stream.encode())
    return part.rename(path)


def repeat(source: Path, target: Path, *, seconds: float) -> Path:
    """Write the packets of `source`, whose groups of pictures are closed, again and again, up to
    the first key frame at or after `seconds`; return `target`."""
    part = target.with_name(f"part-{target.name}")
    with (
        av.open(str(source)) as film,
        av.open(str(part), "w", options={"fflags": "+bitexact"}) as out,
    ):
        stream = film.streams.video[0]
        copy, base = out.add_stream_from_template(stream), stream.time_base
        packets = [packet for packet in film.demux(stream) if packet.dts is not None]
        for packet, (pts, dts) in rounds(packets, step=round(1 / stream.average_rate / base)):
            if packet.is_keyframe and pts * base >= seconds:
                break
            packet.pts, packet.dts, packet.stream, packet.time_base = pts, dts, copy, base
            out.mux(packet)
    return part.rename(target)


def rounds(packets: list[av.Packet], *, step: int) -> Iterator[tuple[av.Packet, tuple[int, int]]]:
    """Yield the packets of a stretch for ever, with their pts and dts as they go on."""
    places = [(packet.pts, packet.dts) for packet in packets]
    for shift in itertools.count(0, step * len(packets)):
        for packet, (pts, dts) in zip(packets, places, strict=True):
            yield packet, (pts + shift, dts + shift)


def small(made: Path, *, seconds: int) -> Path:
    """Return a folder in `made` of 360p clips of this length, as most collections for questions
    about videos have them; made if it is not there."""
    return filled(made / f"360p-{seconds}", lambda folder: _fill_small(folder, seconds))


def mixed(made: Path, *, seconds: int) -> Path:
    """Return a folder in `made` of clips of several kinds and about this length, most of them 720p
    or 1080p; made if it is not there."""
    return filled(made / f"mixed-{seconds}", lambda folder: _fill_mixed(folder, seconds))


def filled(target: Path, fill: Callable[[Path], object]) -> Path:
    """Return the folder `target`, whole: if it is not there, `fill` puts clips into it."""
    folder = target.with_name(f"{target.name}.part")
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder)
    return folder.rename(target)


def _fill_small(folder: Path, seconds: int) -> None:
    for seed in range(4):
        film = scene(seconds * RATE_FPS, (640, 360), seed=30 + seed)
        encode(folder / f"h264-360p-{seed}.mp4", film, options=NATURAL)


def _fill_mixed(folder: Path, seconds: int) -> None:
    frames = seconds * RATE_FPS
    for seed in range(3):
        film = scene(frames, (1280, 720), seed=seed)
        encode(folder / f"h264-720p-{seed}.mp4", film, options=NATURAL)
    for seed in range(2):
        film = scene(frames, (1920, 1080), seed=10 + seed)
        encode(folder / f"h264-1080p-{seed}.mp4", film, options=NATURAL)
    shown = slides(seconds * 20, (480, 270), every=10, seed=20)
    encode(folder / "slides.gif", shown, codec="gif", rate_fps=10)
    encode(folder / "mpeg4.avi", scene(frames, (640, 360), seed=21), codec="mpeg4")
    film = encode(folder / "part.mp4", scene(241, (1280, 720), seed=22), options=gop(60))
    repeat(film, folder / "film.mkv", seconds=3 * seconds)
    film.unlink()
