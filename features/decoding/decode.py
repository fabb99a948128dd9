"""Decodes one clip and hands out the pictures that a sampling rule picks, as they come.

One pass decodes every frame without keeping any, and hands out those that `_Forecast` says the rule
will need. At the end `sampling.select_rows` looks at all timestamps and decides; a frame it needs
that was not handed out is fetched by one more pass. So the definition alone fixes the rows.

What a decoder conceals is not a picture of the clip: frames that it marks as damaged count as not
shown, and the clip is refused as `corrupt` or `truncated` unless `allow_partial`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import av
import numpy as np
from numpy.typing import NDArray

from framebank.features.decoding import sampling
from framebank.features.decoding.container import Clip, DecodeLimits, open_clip
from framebank.features.decoding.damage import DamageReport, Message, ffmpeg_messages, stated_end
from framebank.features.decoding.frames import (
    KeyFlags,
    PacketReader,
    WorkBudget,
    check_ahead,
    decode_packet,
    parts_of,
    stamp_of,
    start_decoder,
)
from framebank.features.decoding.pixels import FrameScaler, no_rgb
from framebank.features.decoding.sampling import BestTimestamp, SampleRule, Shown, Timeline
from framebank.features.errors import VideoRejected
from framebank.features.video import SourceInfo

EmitFrame = Callable[..., None]  # (token, picture, further pictures…)
Beat = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class DecodeRequest:
    """What to decode and how: `resize` is "stretch" or "crop", `size` the side in pixels.

    `path` may be the descriptor of an open file (`container.open_file`).
    `also` are further pictures of each frame, (size, resize).
    `max_frames` limits the rows; the clip is decoded and judged whole all the same.
    `strict` makes a stated end that is not there a cut, though every frame is.
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


@dataclasses.dataclass(frozen=True)
class DecodeResult:
    """The rows of one clip; `tokens` names the picture of each row as `emit_frame` got it.

    `decode_errors` counts what the demuxer and decoder reported; `partial` says that there were any
    or that the clip ended early; `capped` that `max_frames` cut rows off. `warning` says what the
    container states of a whole clip that is not so.
    """

    tokens: NDArray[np.int64]  # [n]
    frame_index: NDArray[np.int64]  # [n] in order of presentation
    pts_ms: NDArray[np.int64]  # [n] relative to the first presented frame
    source: SourceInfo
    partial: bool
    decode_errors: int
    capped: bool
    warning: str = ""


def decode_video(request: DecodeRequest, *, emit_frame: EmitFrame, beat: Beat) -> DecodeResult:
    """Decode a clip and return its rows.

    `emit_frame(token, rgb)` gets each picture that the rule (probably) needs once, as early as it
    is certain, as uint8[size, size, 3] RGB, and after it those that the request asks for `also`; at
    most two frames are held. `beat(frames)` is called for every packet with the number of frames
    decoded so far.
    Raises VideoRejected (stages open, probe, decode) and UsageError for a rule that is none.
    """
    rule = sampling.parse_rule(request.sample)
    with ffmpeg_messages() as messages, open_clip(request.path, request.limits) as clip:
        return _Decoding(request, rule, emit_frame, beat, messages).run(clip)


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


class _Forecast:
    """Says while a clip is decoded which frames a rule will need, one frame behind.

    It may be wrong where timestamps go back; `select_rows` has the last word.
    """

    def __init__(self, rule: SampleRule, timeline: Timeline, wanted: frozenset[int] | None) -> None:
        """`wanted` holds the timestamps that `uniform=N` is expected to pick."""
        self._rule, self._timeline, self._wanted = rule, timeline, wanted
        self.rows = 0

    def needs(self, number: int, next_pts: int | None) -> bool:
        """Tell whether frame `number` gets rows (`next_pts`: the next frame's, None: no next)."""
        rows = self._rows(number, next_pts)
        self.rows += rows
        return rows > 0

    def _rows(self, number: int, next_pts: int | None) -> int:
        rule, timeline = self._rule, self._timeline
        if rule.kind == "every":
            return number % rule.count == 0
        if rule.kind == "keyframes":
            return timeline.keyframes[number]
        pts = timeline.pts
        if rule.kind == "uniform":
            return self._wanted is not None and pts[number] in self._wanted
        if next_pts is None:
            next_pts = pts[0] + sampling.shown_ticks(pts, timeline.durations[number])
        step = 1 / (rule.value * timeline.time_base)
        first = max(0, math.ceil((pts[number] - pts[0]) / step))
        rows = math.ceil((next_pts - pts[0]) / step) - first
        return max(rows, number == 0)


@dataclasses.dataclass
class _Decoding:
    """One clip's way from file to rows."""

    request: DecodeRequest
    rule: SampleRule
    emit_frame: EmitFrame
    beat: Beat
    messages: list[Message]

    def __post_init__(self) -> None:
        first = (self.request.size, self.request.resize)
        self._scaler = FrameScaler([first, *self.request.also])
        self._emitted: set[int] = set()
        self._decoded = 0
        self._refused = False
        self._shown_size = (0, 0)
        self._keys = KeyFlags()
        self._work = WorkBudget(self.request.limits, 0)

    def run(self, clip: Clip) -> DecodeResult:
        """Decode `clip` once, judge it, and fetch by one more pass what the first left out."""
        wanted = None
        if self.rule.kind == "uniform" and not clip.later:
            with clip.reopened() as ahead:
                wanted = self._expected_timestamps(ahead)
        report = DamageReport(clip, self.messages, strict=self.request.strict)
        check_ahead(clip, lambda: self.beat(self._decoded))
        timeline = self._first_pass(clip, report, wanted)
        if not len(timeline):
            raise report.no_frames()
        if report.damaged and not self.request.allow_partial:
            raise report.rejection()
        shown = timeline.shown()
        if abs(shown.ticks * shown.time_base * 1000) >= 1 << 62:
            raise VideoRejected("decode", "corrupt", "its timestamps span more than 64 bits of ms")
        rows, capped = self._rows(shown)
        if not len(rows):
            raise no_rows(self.rule, len(shown.pts))
        tokens = shown.numbers[rows]
        missing = set(tokens.tolist()) - self._emitted
        if missing:
            with clip.reopened() as again:
                self._fetch(again, missing)
        return DecodeResult(
            tokens=tokens,
            frame_index=rows,
            pts_ms=np.array([shown.milliseconds(row) for row in rows.tolist()], np.int64),
            source=SourceInfo(
                clip.format,
                clip.stream.codec_context.codec.canonical_name,
                *self._shown_size,
                rate_fps=shown.rate_fps(clip.nominal_rate),
                duration_s=float(shown.ticks * shown.time_base),
                frames=len(shown.pts),
            ),
            partial=report.damaged,
            decode_errors=report.errors,
            capped=capped,
            warning=report.warning,
        )

    def _first_pass(
        self, clip: Clip, report: DamageReport, wanted: frozenset[int] | None
    ) -> Timeline:
        """Decode every frame, handing out what the forecast says; return the timeline."""
        timeline = Timeline(clip.time_base, clip.nominal_rate)
        forecast = _Forecast(self.rule, timeline, wanted)
        self._work = WorkBudget(clip.limits, clip.file.whole_bytes)
        for part in parts_of(clip, report):
            timeline.begin_part(part.time_base, part.nominal_rate)
            self._read_part(part, report, timeline, forecast)
        return timeline

    def _read_part(
        self, clip: Clip, report: DamageReport, timeline: Timeline, forecast: _Forecast
    ) -> None:
        self._scaler.cut_off(clip.crop)
        end = stated_end(clip)
        reader = PacketReader(clip, report, all_tracks=end is not None and end.whole_file)
        held: av.VideoFrame | None = None
        for frame, pts in self._frames(clip, reader, report):
            self._refused = report.damaged and not self.request.allow_partial
            try:
                ticks = timeline.add(pts, frame.duration, self._keys.of(frame))
            except OverflowError as err:
                raise VideoRejected("decode", "corrupt", f"the timestamp {pts}") from err
            if len(timeline) == 1:
                self._shown_size = self._scaler.shown_size(frame)
            if held is not None:
                self._hand_out(held, len(timeline) - 2, forecast, ticks)
            held = frame
        if held is not None:
            self._hand_out(held, len(timeline) - 1, forecast, None)
        report.finish(timeline, end, reader.last_end_s)

    def _hand_out(
        self, frame: av.VideoFrame, number: int, forecast: _Forecast, next_pts: int | None
    ) -> None:
        limit = self.request.max_frames
        if limit is not None and forecast.rows >= limit:
            return
        if forecast.needs(number, next_pts) and not self._refused:
            self._emit(frame, number)

    def _emit(self, frame: av.VideoFrame, number: int) -> None:
        try:
            pictures = self._scaler(frame)
        except (av.FFmpegError, MemoryError) as err:
            raise VideoRejected("decode", "unsupported_codec", no_rgb(frame, err)) from err
        self._emitted.add(number)
        self.emit_frame(number, *pictures)

    def _fetch(self, clip: Clip, missing: set[int]) -> None:
        """Decode again and emit the frames that the first pass numbered as in `missing`."""
        report = DamageReport(clip, self.messages)
        self._work = WorkBudget(clip.limits, clip.file.whole_bytes)
        numbers = itertools.count()
        for part in parts_of(clip, report):
            self._scaler.cut_off(part.crop)
            for frame, _ in self._frames(part, PacketReader(part, report), report):
                number = next(numbers)
                if number in missing:
                    missing.discard(number)
                    self._emit(frame, number)
                if not missing:
                    return
        raise VideoRejected("decode", "corrupt", "decoding twice gave different frames")

    def _frames(
        self, clip: Clip, reader: PacketReader, report: DamageReport
    ) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """Yield every sound frame with its best timestamp, in the decoder's order."""
        clock = BestTimestamp()
        self._keys = KeyFlags()
        start_decoder(clip, self.request.threads, report)
        for packet in itertools.chain(reader, [None]):
            self.beat(self._decoded)
            frames: list[av.VideoFrame] = []
            # Elsewhere only the clock jumped: the pictures that follow need those before it.
            if packet is not None and reader.seam and packet.is_keyframe:
                frames += decode_packet(clip, None, report)
                clip.stream.codec_context.flush_buffers()
                report.begin_part()
            first_of_part = len(frames)
            if packet is not None:
                self._keys.note(packet)
            frames += decode_packet(clip, packet, report)
            for number, frame in enumerate(frames):
                if number == first_of_part and first_of_part:
                    clock = BestTimestamp()
                self._decoded += 1
                self._work.spend(frame.width * frame.height)
                yield frame, clock(frame.pts, frame.dts)

    def _expected_timestamps(self, clip: Clip) -> frozenset[int]:
        """Return the timestamps that `uniform=N` will pick, from the packets alone."""
        timeline = Timeline(clip.time_base, clip.nominal_rate)
        for packet in PacketReader(clip, DamageReport(clip, self.messages)):
            self.beat(self._decoded)
            if not packet.is_discard and (stamp := stamp_of(packet)) is not None:
                timeline.add(stamp, packet.duration, packet.is_keyframe)
        if not len(timeline):
            return frozenset()
        shown = timeline.shown()
        rows = sampling.iter_rows(self.rule, shown)
        limit, cap = self.request.limits.max_rows, self.request.max_frames
        most = limit if cap is None else min(limit, cap)
        return frozenset(shown.pts[row] for row in itertools.islice(rows, most + 1))

    def _rows(self, shown: Shown) -> tuple[NDArray[np.int64], bool]:
        """Return int64[n] indices in order of presentation, and whether they were capped."""
        total = sampling.count_rows(
            self.rule, frames=len(shown.pts), span=shown.ticks, time_base=shown.time_base
        )
        cap = self.request.max_frames
        if cap is None or cap > self.request.limits.max_rows:
            check_rows(self.rule, total, self.request.limits)
        rows, capped = sampling.select_rows(self.rule, shown, max_frames=cap)
        return np.array(rows, np.int64), capped
