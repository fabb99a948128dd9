"""Decodes one clip and hands out the pictures that a sampling rule picks, as they come.

One pass decodes every frame without keeping any, and hands out those that `Forecast` says the rule
will need. At the end `sampling.select_rows` looks at all timestamps and decides; a frame it needs
that was not handed out is fetched by one more pass. So the definition alone fixes the rows.

What a decoder conceals is not a picture of the clip: frames that it marks as damaged count as not
shown, and the clip is refused as `corrupt` or `truncated` unless `allow_partial`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator

import av

from framebank.features.decoding import sampling, sparse
from framebank.features.decoding.container import Clip, open_clip
from framebank.features.decoding.damage import DamageReport, Message, ffmpeg_messages, stated_end
from framebank.features.decoding.forecast import Forecast
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
from framebank.features.decoding.request import (
    Beat,
    DecodeRequest,
    DecodeResult,
    EmitFrame,
    pick_rows,
    result_of,
)
from framebank.features.decoding.sampling import BestTimestamp, SampleRule, Timeline
from framebank.features.decoding.sparse import Doubt
from framebank.features.errors import VideoRejected

__all__ = ["DecodeRequest", "DecodeResult", "Doubt", "decode_share", "decode_video"]


def decode_video(
    request: DecodeRequest,
    *,
    emit_frame: EmitFrame,
    beat: Beat,
    restart: Callable[[], None] = lambda: None,
    cut: Callable[[int], int] = lambda work: 1,
) -> DecodeResult:
    """Decode a clip and return its rows.

    `emit_frame(token, rgb)` gets each picture that the rule (probably) needs once, as early as it
    is certain, as uint8[size, size, 3] RGB, and after it those that the request asks for `also`; at
    most two frames are held. `beat(frames)` is called for every packet with the number of frames
    decoded so far. `restart()` is called where a clip that was decoded in part has to be decoded
    wholly: the pictures given so far count for nothing. `cut(work)` is told how many pixels are to
    be decoded where only what is needed is, and says into how many shares that is cut; the first is
    decoded here, and the others are `decode_share`'s.
    Raises VideoRejected (stages open, probe, decode) and UsageError for a rule that is none, and
    Doubt where a clip that was cut has to be decoded wholly.
    """
    rule = sampling.parse_rule(request.sample)
    shares = 1

    def note_cut(work: int) -> int:
        nonlocal shares
        shares = cut(work)
        return shares

    if request.check == "sampled" and not request.allow_partial:
        try:
            return sparse.decode_needed(
                request, rule, emit_frame=emit_frame, beat=beat, cut=note_cut
            )
        except Doubt:
            if shares > 1:
                raise
            restart()
    # Nothing of what came before reaches this: a fresh container, decoder, scaler and report.
    with ffmpeg_messages() as messages, open_clip(request.path, request.limits) as clip:
        return _Decoding(request, rule, emit_frame, beat, messages).run(clip)


def decode_share(
    request: DecodeRequest, share: tuple[int, int], *, emit_frame: EmitFrame, beat: Beat
) -> DecodeResult:
    """Decode the k-th of n shares (k, n) of a clip; of the first one return the rows of all of it.

    Raises Doubt where the clip has to be decoded wholly.
    """
    rule = sampling.parse_rule(request.sample)
    return sparse.decode_needed(request, rule, emit_frame=emit_frame, beat=beat, share=share)


def plan_film(request: DecodeRequest, *, beat: Beat) -> None:
    """Plan a clip of which `decode_share` will be asked a share; of an odd one nothing is kept."""
    with contextlib.suppress(Doubt):
        sparse.plan_film(request, sampling.parse_rule(request.sample), beat=beat)


@dataclasses.dataclass
class _Decoding:
    """One clip's way from file to rows."""

    request: DecodeRequest
    rule: SampleRule
    emit_frame: EmitFrame
    beat: Beat
    messages: list[Message]

    def __post_init__(self) -> None:
        self._scaler = FrameScaler(self.request.pictures)
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
        rows, capped = pick_rows(self.request, self.rule, shown)
        missing = set(shown.numbers[rows].tolist()) - self._emitted
        if missing:
            with clip.reopened() as again:
                self._fetch(again, missing)
        return result_of(
            clip, report, shown, rows, size=self._shown_size, capped=capped, checked="whole"
        )

    def _first_pass(
        self, clip: Clip, report: DamageReport, wanted: frozenset[int] | None
    ) -> Timeline:
        """Decode every frame, handing out what the forecast says; return the timeline."""
        timeline = Timeline(clip.time_base, clip.nominal_rate)
        forecast = Forecast(self.rule, timeline, wanted)
        self._work = WorkBudget(clip.limits, clip.file.whole_bytes)
        for part in parts_of(clip, report):
            timeline.begin_part(part.time_base, part.nominal_rate)
            self._read_part(part, report, timeline, forecast)
        return timeline

    def _read_part(
        self, clip: Clip, report: DamageReport, timeline: Timeline, forecast: Forecast
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
        self, frame: av.VideoFrame, number: int, forecast: Forecast, next_pts: int | None
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
        """Yield every intact frame with its best timestamp, in the decoder's order."""
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
