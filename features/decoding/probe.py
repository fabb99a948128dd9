"""One probe: how many frames a rule takes of a clip, and what decoding it costs.

A probe opens a clip as decoding does (`container`: allow-lists, limits, no name), walks its packets
and lets the sampling rule count on their timestamps, so headers that lie do no harm. Of some clips
a fraction of a second is decoded as well, which tells what decoding costs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time

from framebank.features.decoding import sampling, sparse
from framebank.features.decoding.container import Clip, open_clip
from framebank.features.decoding.damage import DamageReport, ffmpeg_messages, stated_end
from framebank.features.decoding.decode import decode_video
from framebank.features.decoding.frames import PacketReader, parts_of, stamp_of, start_decoder
from framebank.features.decoding.request import DecodeRequest, check_rows, no_rows
from framebank.features.decoding.sampling import Shown, Timeline

_READING_S = 2.0  # processor seconds for all packets of a clip, which sampled decoding reads first
READ_BYTES = 64 * 2**20  # of packets; what follows is judged by the part that was read


@dataclasses.dataclass(frozen=True)
class Probe:
    """What extraction will find in one clip.

    `rows` is what the rule takes, `pictures` the different frames among them (a frame that stands
    for two rows goes through the network once). `decode_s` are processor seconds to decode the
    whole clip, judged by the part that was decoded; None where none was. `sampled_s` are those that
    `--check sampled` takes for it, None where that is not known. `estimated` is set where only a
    part of the packets was read. A clip for the quarantine has an `error_class` and no rows.
    """

    rows: int = 0
    pictures: int = 0
    frames: int = 0
    duration_s: float = 0.0
    codec: str = ""
    pixels: int = 0
    decode_s: float | None = None
    estimated: bool = False
    error_class: str = ""
    sampled_s: float | None = None


def probe_clip(request: DecodeRequest, *, decode_s: float = 0.0) -> Probe:
    """Probe a clip; `decode_s`: processor seconds to decode a part in.

    Raises VideoRejected as extraction will, as far as that shows without decoding all of it.
    """
    with ffmpeg_messages() as messages, open_clip(request.path, request.limits) as clip:
        found = _walk(clip, DamageReport(clip, messages, strict=request.strict), request)
    if decode_s <= 0:
        return found
    timed = _time_decoding(request, found, decode_s)
    if request.allow_partial:  # which decodes all
        return timed
    return dataclasses.replace(timed, sampled_s=_time_sampled(request, timed, decode_s / 2))


def _walk(clip: Clip, report: DamageReport, request: DecodeRequest) -> Probe:
    timeline = Timeline(clip.time_base, clip.nominal_rate)
    read_bytes, share = 0, 1.0
    for part in parts_of(clip, report):
        timeline.begin_part(part.time_base, part.nominal_rate)
        read_bytes, share = _walk_part(part, report, timeline, read_bytes)
        if read_bytes > READ_BYTES:
            break
    if read_bytes <= READ_BYTES and report.damaged and not request.allow_partial:
        raise report.rejection()
    if not len(timeline):
        raise report.no_frames()
    context = clip.stream.codec_context
    counts = _count(timeline.shown(), min(1.0, max(share, 1e-6)), request)
    return dataclasses.replace(
        counts, codec=context.codec.canonical_name, pixels=context.width * context.height
    )


def _walk_part(
    clip: Clip, report: DamageReport, timeline: Timeline, read_bytes: int
) -> tuple[int, float]:
    """Add a part's packets; return the bytes read so far and their share (0 to 1) of the file."""
    end = stated_end(clip)
    start_decoder(clip, 1, report)
    reader = PacketReader(clip, report, all_tracks=end is not None and end.whole_file)
    for packet in reader:
        read_bytes += packet.size
        if read_bytes > READ_BYTES:
            alone = clip.file.size_bytes == clip.file.whole_bytes
            if alone and end is not None and end.end_s > 0 and reader.last_end_s is not None:
                return read_bytes, float(reader.last_end_s / end.end_s)
            return read_bytes, read_bytes / clip.file.whole_bytes
        if not packet.is_discard:
            timeline.add(stamp_of(packet), packet.duration, packet.is_keyframe)
    report.finish(timeline, end, reader.last_end_s)
    return read_bytes, 1.0


def _count(shown: Shown, part: float, request: DecodeRequest) -> Probe:
    """Count the rows of a clip of which `part` (0 to 1) is in `shown`."""
    rule = sampling.parse_rule(request.sample)
    frames, ticks = round(len(shown.pts) / part), round(shown.ticks / part)
    rows = sampling.count_rows(rule, frames=frames, span=ticks, time_base=shown.time_base)
    if rule.kind == "keyframes":
        rows = round(sum(shown.keyframes) / part)
        if not rows and part == 1.0:
            raise no_rows(rule, frames)
    cap = request.max_frames
    rows = rows if cap is None else min(rows, cap)
    check_rows(rule, rows, request.limits)
    if part == 1.0:
        pictures = len(set(itertools.islice(sampling.iter_rows(rule, shown), rows)))
    else:
        pictures = min(rows, frames)
    duration_s = float(ticks * shown.time_base)
    return Probe(rows, pictures, frames, duration_s, estimated=part < 1.0)


class _Enough(Exception):
    """Decoding took the time that it was given."""


@dataclasses.dataclass
class _Clock:
    """Processor time of this process while a clip decodes, from its first frame on."""

    limit_s: float
    start_limit_s: float = math.inf  # until the first frame
    start_s: float = dataclasses.field(default_factory=time.process_time)
    first_s: float | None = None
    first_frames: int = 0
    frames: int = 0

    def beat(self, frames: int) -> None:
        """Take note of `frames` decoded; raises _Enough when the time is up."""
        now = time.process_time()
        if frames and self.first_s is None:
            self.first_s, self.first_frames = now, frames
        self.frames = frames
        if self.first_s is None:
            late = now - self.start_s > self.start_limit_s
        else:
            late = now - self.first_s > self.limit_s
        if late:
            raise _Enough

    def whole_s(self, frames: int) -> float:
        """Return what `frames` take: the way to the first frame, and the rest in proportion."""
        now, first_s = time.process_time(), self.first_s
        if first_s is None or self.frames <= self.first_frames:
            return now - self.start_s
        each_s = (now - first_s) / (self.frames - self.first_frames)
        return first_s - self.start_s + each_s * max(0, frames - self.first_frames)


def _time_decoding(request: DecodeRequest, found: Probe, limit_s: float) -> Probe:
    """Decode for `limit_s` processor seconds; a clip that ends before is known exactly."""
    clock = _Clock(limit_s)
    request = dataclasses.replace(request, check="whole")
    try:
        result = decode_video(request, emit_frame=lambda token, rgb: None, beat=clock.beat)
    except _Enough:
        return dataclasses.replace(found, decode_s=clock.whole_s(found.frames))
    return dataclasses.replace(
        found,
        rows=len(result.tokens),
        pictures=len(set(result.tokens.tolist())),
        frames=result.source.frames,
        duration_s=result.source.duration_s,
        decode_s=time.process_time() - clock.start_s,
        estimated=False,
    )


def _time_sampled(request: DecodeRequest, whole: Probe, limit_s: float) -> float | None:
    """Return the processor seconds of decoding what the rule needs, judged by `limit_s` of them."""
    clock, pictures = _Clock(limit_s, _READING_S), [0]
    try:
        sparse.decode_needed(
            request,
            sampling.parse_rule(request.sample),
            emit_frame=lambda token, rgb: None,
            beat=clock.beat,
            planned=pictures.append,
        )
    except sparse.Doubt:
        return whole.decode_s
    except _Enough:
        return None if clock.first_s is None else clock.whole_s(pictures[-1])
    return time.process_time() - clock.start_s
