"""What is asked of a clip, and what decoding it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoding import sampling
from framebank.features.decoding.container import Clip, DecodeLimits, check_duration
from framebank.features.decoding.damage import DamageReport
from framebank.features.decoding.sampling import SampleRule, Shown
from framebank.features.errors import VideoRejected
from framebank.features.video import SourceInfo

EmitFrame = Callable[..., None]  # (token, picture, further pictures…)
Beat = Callable[[int], None]
CHECKS = ("whole", "sampled")  # how much of a clip is decoded, and so judged


@dataclasses.dataclass(frozen=True)
class DecodeRequest:
    """What to decode and how: `resize` is "stretch" or "crop", `size` the side in pixels.

    `path` may be the descriptor of an open file (`container.open_file`).
    `also` are further pictures of each frame, (size, resize).
    `max_frames` limits the rows; the clip is decoded and judged whole all the same.
    `strict` makes a stated end that is not there a cut, though every frame is.
    `check` is "whole", or "sampled": only what the rule needs is decoded where that gives the same
    rows, and only that is judged (infra/decisions/0017). With `allow_partial` it is always whole.
    """

    path: str | int
    sample: str
    max_frames: int | None = None
    size: int = 299
    resize: str = "stretch"
    allow_partial: bool = False
    strict: bool = False
    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)
    threads: int = 1
    also: Sequence[tuple[int, str]] = ()
    check: str = "whole"

    @property
    def pictures(self) -> list[tuple[int, str]]:
        """Return (size, resize) of each picture that is made of a frame."""
        return [(self.size, self.resize), *self.also]


@dataclasses.dataclass(frozen=True)
class DecodeResult:
    """The rows of one clip; `tokens` names the picture of each row as `emit_frame` got it.

    `decode_errors` counts what the demuxer and decoder reported; `partial` says that there were any
    or that the clip ended early; `capped` that `max_frames` cut rows off. `warning` says what the
    container states of a whole clip that is not so. `checked` is what was decoded and judged: all
    of it ("whole"), or what the rows needed ("sampled").
    """

    tokens: NDArray[np.int64]  # [n]
    frame_index: NDArray[np.int64]  # [n] in order of presentation
    pts_ms: NDArray[np.int64]  # [n] relative to the first presented frame
    source: SourceInfo
    partial: bool
    decode_errors: int
    capped: bool
    warning: str = ""
    checked: str = "whole"


def check_rows(rule: SampleRule, rows: int, limits: DecodeLimits) -> None:
    """Raise VideoRejected (too_large) where the rule asks for too many rows of a clip."""
    if rows > limits.max_rows:
        message = f"{rule.text} asks for {rows} rows, the limit is {limits.max_rows}"
        raise VideoRejected("decode", "too_large", message)


def no_rows(rule: SampleRule, frames: int) -> VideoRejected:
    """Return the verdict on a clip of `frames` frames of which the rule picks none: only one
    without a key frame that is shown, such as where an edit list begins after it."""
    message = (
        f"{rule.text} picks none of its {frames} frames: no frame that is shown is a key frame"
    )
    return VideoRejected("decode", "no_keyframes", message)


def pick_rows(
    request: DecodeRequest, rule: SampleRule, shown: Shown
) -> tuple[NDArray[np.int64], bool]:
    """Return the rows as int64[n] indices in order of presentation, and whether they were capped.

    Raises VideoRejected where there are none, too many, no times in 64 bits, or too long a time.
    """
    if abs(shown.ticks * shown.time_base * 1000) >= 1 << 62:
        raise VideoRejected("decode", "corrupt", "its timestamps span more than 64 bits of ms")
    check_duration(float(shown.ticks * shown.time_base), request.limits)
    total = sampling.count_rows(
        rule, frames=len(shown.pts), span=shown.ticks, time_base=shown.time_base
    )
    cap = request.max_frames
    if cap is None or cap > request.limits.max_rows:
        check_rows(rule, total, request.limits)
    rows, capped = sampling.select_rows(rule, shown, max_frames=cap)
    if not rows:
        raise no_rows(rule, len(shown.pts))
    return np.array(rows, np.int64), capped


def result_of(
    clip: Clip,
    report: DamageReport,
    shown: Shown,
    rows: NDArray[np.int64],
    *,
    size: tuple[int, int],
    capped: bool,
    checked: str,
) -> DecodeResult:
    """Return the answer; `size` is (width, height) of the first frame as shown."""
    return DecodeResult(
        tokens=shown.numbers[rows],
        frame_index=rows,
        pts_ms=np.array([shown.milliseconds(row) for row in rows.tolist()], np.int64),
        source=SourceInfo(
            clip.format,
            clip.stream.codec_context.codec.canonical_name,
            *size,
            rate_fps=shown.rate_fps(clip.nominal_rate),
            duration_s=float(shown.ticks * shown.time_base),
            frames=len(shown.pts),
        ),
        partial=report.damaged,
        decode_errors=report.errors,
        capped=capped,
        warning=report.warning,
        checked=checked,
    )
