"""Decodes of a clip what the wanted pictures need, and nothing else: `--check sampled`.

All packets are read first, and none is decoded: their timestamps say which pictures the rule wants,
by the same definition as always, and `access` says which packets those need. Then the packets are
read again, and what is needed is decoded: for each wanted picture from the place before it at which
decoding may begin, without pictures that no other needs.

Whatever does not fit raises `Doubt`, and the clip is decoded wholly by `decode`, from its opening
on: there is one definition of what a damaged or odd clip gives, and it is not here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from array import array
from collections.abc import Callable, Iterator

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from framebank.features.decoding.access import Reader, reader_of
from framebank.features.decoding.container import Clip, open_clip
from framebank.features.decoding.damage import (
    DamageReport,
    Message,
    ffmpeg_messages,
    has_sidedata,
    stated_end,
)
from framebank.features.decoding.frames import (
    PacketReader,
    WorkBudget,
    decode_packet,
    start_decoder,
)
from framebank.features.decoding.nal_units import Unclear
from framebank.features.decoding.pixels import FrameScaler, no_rgb
from framebank.features.decoding.request import (
    Beat,
    DecodeRequest,
    DecodeResult,
    EmitFrame,
    pick_rows,
    result_of,
)
from framebank.features.decoding.sampling import SampleRule, Shown, Timeline
from framebank.features.errors import VideoRejected

_SHOWN, _BEGINS, _DISPOSABLE, _LAYER = 1, 2, 4, 3  # bits of a packet, and where its layer begins
_MOST_DELAY = 16  # pictures that a decoder may hold back (H.264, A.3.1; H.265, A.4.1)
_INDEXED = ("mov", "matroska")  # containers whose index tells where a packet lies
_SEEK_OVER = 2048  # packets; reading so many takes as long as going to a place
_CHANGES = ("new_extradata", "param_change")  # of a packet that the decoder is set anew by


class Doubt(Exception):
    """Decoding in part may not give what decoding wholly does."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Packets `first` to `last` (by their number), decoded one after the other from a beginning."""

    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be decoded of a clip, and what becomes of it.

    `fed` uint8[packets] tells which packets of a run go to the decoder, `stamps` int64[packets]
    their time of showing, `ranks` which picture (in order of presentation) each packet shows that
    is wanted. `first` is the packet of the first picture, which tells the size of all. `runs` are
    in the order of the file, and none needs another.
    """

    shown: Shown
    rows: NDArray[np.int64]
    capped: bool
    fed: NDArray[np.uint8]
    visible: NDArray[np.uint8]
    stamps: NDArray[np.int64]
    ranks: dict[int, int]
    first: int
    runs: tuple[Run, ...]

    def work(self) -> list[int]:
        """Return how many packets each run has for the decoder."""
        return [int(self.fed[run.first : run.last + 1].sum()) for run in self.runs]

    def share(self, number: int, count: int) -> tuple[Run, ...]:
        """Return the `number`-th (from 0) of `count` parts of the runs, of about equal work.

        The parts are contiguous, have each run once, and may be empty.
        """
        work = np.cumsum(self.work())
        middle = work - np.diff(work, prepend=0) / 2
        part = np.minimum(middle * count // work[-1], count - 1)
        return tuple(run for run, place in zip(self.runs, part, strict=True) if place == number)


_LATEST: dict[str, Plan] = {}  # of the film that was cut last: its next share needs it again


def _clip_of(request: DecodeRequest) -> str:
    """Return what two requests share that are of the same bytes and ask for the same pictures."""
    status = os.fstat(request.path) if isinstance(request.path, int) else os.stat(request.path)
    file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return repr((file, dataclasses.replace(request, path="")))


def decode_needed(
    request: DecodeRequest,
    rule: SampleRule,
    *,
    emit_frame: EmitFrame,
    beat: Beat,
    share: tuple[int, int] | None = None,
    cut: Callable[[int], int] = lambda work: 1,
    planned: Callable[[int], None] = lambda pictures: None,
) -> DecodeResult:
    """Decode a clip as `decode.decode_video` does, without what no row needs. Raises Doubt.

    With `share` (k, n) the k-th of n shares of the wanted pictures is emitted; without, the first
    of as many as `cut` says of the pixels to decode. The result is that of the whole clip, but for
    a share that is not the first: of it only the pictures count. `planned` is told how many
    pictures will be decoded for all of them.
    """
    with _opened(request) as (clip, messages, report):
        known = _LATEST.get(_clip_of(request)) if share is not None and share[0] else None
        plan = known or _plan(clip, report, request, rule, beat)
        pictures = sum(plan.work())
        planned(pictures)
        if share is None:
            context = clip.stream.codec_context
            work = pictures * context.width * context.height
            share = (0, cut(work) if len(plan.runs) > 1 else 1)
        if share[1] > 1 and known is None:
            _keep(request, plan)
        with contextlib.nullcontext(clip) if known else clip.reopened() as again:
            decoding = _Decoding(request, plan, emit_frame, beat)
            decoding.run(again, messages, plan.share(*share))
        return result_of(
            clip,
            report,
            plan.shown,
            plan.rows,
            size=decoding.shown_size,
            capped=plan.capped,
            checked="sampled",
        )


def plan_film(request: DecodeRequest, rule: SampleRule, *, beat: Beat) -> None:
    """Plan a clip of which a share will be asked for, but not the first. Raises Doubt."""
    with _opened(request) as (clip, _, report):
        _keep(request, _plan(clip, report, request, rule, beat))


def _keep(request: DecodeRequest, plan: Plan) -> None:
    _LATEST.clear()
    _LATEST[_clip_of(request)] = plan


@contextlib.contextmanager
def _opened(request: DecodeRequest) -> Iterator[tuple[Clip, list[Message], DamageReport]]:
    """Open the clip of a request, with FFmpeg's messages and a report of it. Whatever is found
    wrong with it raises Doubt: a verdict is of all of it, and packets that are no packets trip
    whoever reads them."""
    try:
        with ffmpeg_messages() as messages, open_clip(request.path, request.limits) as clip:
            yield clip, messages, DamageReport(clip, messages, strict=request.strict)
    except (Unclear, VideoRejected, av.FFmpegError, IndexError, ValueError, OverflowError) as err:
        raise Doubt(str(err)) from err


@dataclasses.dataclass
class _Packets:
    """What is kept of each packet, beside its place in the timeline: seventeen bytes."""

    stamps: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    orders: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    bits: bytearray = dataclasses.field(default_factory=bytearray)


def _plan(
    clip: Clip, report: DamageReport, request: DecodeRequest, rule: SampleRule, beat: Beat
) -> Plan:
    if clip.later:
        raise Doubt("files that were put one behind the other")
    context = clip.stream.codec_context
    reader = reader_of(context.codec.canonical_name, bytes(context.extradata or b""))
    timeline = Timeline(clip.time_base, clip.nominal_rate)
    packets = _read_packets(clip, report, reader, timeline, request, beat)
    bits = np.frombuffer(packets.bits, np.uint8)
    orders = np.frombuffer(packets.orders, np.int64)
    if not len(timeline):
        raise Doubt("no picture is shown")
    shown = timeline.shown()
    at = np.flatnonzero(bits & _SHOWN)  # the packet of each picture of the timeline
    held_back = context.reorder_depth if reader.delay is None else reader.delay
    _check_order(np.frombuffer(timeline.pts, np.int64), orders[at], held_back)
    rows, capped = pick_rows(request, rule, shown)
    wanted = np.unique(rows)
    ranks = dict(zip(at[shown.numbers[wanted]].tolist(), wanted.tolist(), strict=True))
    first = int(at[shown.numbers[0]])
    fed, runs = _runs(bits, orders, np.array(sorted({first, *ranks}), np.int64))
    if runs[0].first:
        raise Doubt("a clip that is shown from its second beginning on")
    # Decoding wholly numbers pictures as they leave the decoder: in the order of their times.
    shown = dataclasses.replace(shown, numbers=np.arange(len(timeline)))
    stamps = np.frombuffer(packets.stamps, np.int64)
    return Plan(shown, rows, capped, fed, bits & np.uint8(_SHOWN), stamps, ranks, first, runs)


def _read_packets(
    clip: Clip,
    report: DamageReport,
    reader: Reader,
    timeline: Timeline,
    request: DecodeRequest,
    beat: Beat,
) -> _Packets:
    """Read all packets, adding those that are shown to `timeline`; raises Doubt of any damage."""
    end, tracks = stated_end(clip), len(clip.container.streams)
    context = clip.stream.codec_context
    budget = WorkBudget(request.limits, clip.file.whole_bytes)
    pixels, order = context.width * context.height, 0
    packets = _Packets()
    report.take_pictures_for_granted()
    source = PacketReader(clip, report, all_tracks=end is not None and end.whole_file)
    for packet in source:
        beat(0)
        budget.spend(pixels)
        if source.seam or packet.is_corrupt or packet.pts is None:
            raise Doubt("a seam, a damaged packet, or one without its time")
        if has_sidedata(packet, *_CHANGES):
            raise Doubt("a decoder that is set anew")
        picture = reader.picture(packet)
        visible = picture is not None and not packet.is_discard
        if visible:
            timeline.add(packet.pts, packet.duration, packet.is_keyframe)
        packets.stamps.append(packet.pts)
        order = picture.order if picture is not None else order  # what shows nothing goes along
        packets.orders.append(order)
        bits = int(visible)
        if picture is not None:
            bits |= _BEGINS * picture.begins | _DISPOSABLE * picture.disposable
            bits |= picture.layer << _LAYER
        packets.bits.append(bits)
    report.finish(timeline, end, source.last_end_s)
    if report.damaged or report.heard or len(clip.container.streams) != tracks:
        raise Doubt("damage, what may be some, or tracks that begin within the file")
    return packets


def _check_order(stamps: NDArray[np.int64], orders: NDArray[np.int64], held_back: int) -> None:
    """Raise Doubt unless a decoder that holds back so many pictures shows all by their times."""
    by_time = np.argsort(stamps, kind="stable")
    if not (np.diff(stamps[by_time]) > 0).all() or not (np.diff(orders[by_time]) > 0).all():
        raise Doubt("pictures that are not shown in the order of their times")
    most, back = len(stamps), 1
    for back in range(1, min(2 * _MOST_DELAY, most)):
        if not (stamps[:-back] > stamps[back:]).any():
            break
    latest = np.maximum.accumulate(stamps)
    if most > back and (latest[:-back] > stamps[back:]).any():
        raise Doubt("pictures far from their place")
    later = np.zeros(most, np.uint8)
    for step in range(1, back):
        later[step:] += stamps[:-step] > stamps[step:]
    delay = int(later.max(initial=0))
    if delay > held_back:
        raise Doubt("pictures that wait longer than the stream says")


def _runs(
    bits: NDArray[np.uint8], orders: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], tuple[Run, ...]]:
    """Return which packets are fed to the decoder, and in which runs, for those that are wanted.

    A picture that is shown before the beginning that it follows may need the one before that.
    """
    begins = np.flatnonzero(bits & _BEGINS)
    group_of = np.searchsorted(begins, np.arange(len(bits)), side="right") - 1
    leading = orders < orders[begins[group_of]]
    if (leading & (group_of == 0) & (bits & _SHOWN > 0)).any():
        raise Doubt("pictures before the first beginning")
    layers = bits >> _LAYER
    fed = ((bits & _DISPOSABLE == 0) | (layers < layers.max(initial=0))).astype(np.uint8)
    fed[wanted] = 1
    groups = group_of[wanted]
    first_places = np.flatnonzero(np.diff(groups, prepend=-1))  # of each group, in `wanted`
    runs: list[list[int]] = []  # the first group, the last one, the last packet
    for place, after in itertools.pairwise([*first_places.tolist(), len(wanted)]):
        group = int(groups[place])
        base = group - bool(leading[wanted[place:after]].any())
        last = int(wanted[after - 1])
        if runs and base <= runs[-1][1]:
            runs[-1][1:] = group, last
        else:
            runs.append([base, group, last])
    for base, _, _ in runs:
        head = slice(int(begins[base]), int(begins[base + 1]) if base + 1 < len(begins) else None)
        fed[head] &= ~leading[head]
    return fed, tuple(Run(int(begins[base]), last) for base, _, last in runs)


@contextlib.contextmanager
def _delay_kept(context: VideoCodecContext) -> Iterator[None]:
    """Have what flushes a decoder, which may reset it, not shorten how long that holds pictures."""
    held_back = context.reorder_depth
    yield
    context.reorder_depth = max(held_back, context.reorder_depth)


@dataclasses.dataclass
class _Decoding:
    """The second pass: what the plan says goes to the decoder, and what comes out is looked at."""

    request: DecodeRequest
    plan: Plan
    emit_frame: EmitFrame
    beat: Beat

    def __post_init__(self) -> None:
        self._scaler = FrameScaler(self.request.pictures)
        self._due: dict[int, int] = {}  # packets whose pictures are to come, by their time
        self._last = -(1 << 63)  # time of the picture before, in this run
        self._kind: object = None
        self._decoded = 0
        self.shown_size = (0, 0)

    def run(self, clip: Clip, messages: list[Message], runs: tuple[Run, ...]) -> None:
        """Decode the runs, emitting their wanted pictures, and the first one for its size alone."""
        report = DamageReport(clip, messages)
        report.take_pictures_for_granted()
        start_decoder(clip, self.request.threads, report)
        self._scaler.cut_off(clip.crop)
        context = clip.stream.codec_context
        emitted = set(runs)
        if not runs or runs[0] != self.plan.runs[0]:
            runs = (Run(self.plan.runs[0].first, self.plan.first), *runs)
        for run, packets in self._packets_of(clip, report, runs):
            for packet in packets:
                self._take(decode_packet(clip, packet, report), report, emit=run in emitted)
            self._take(decode_packet(clip, None, report), report, emit=run in emitted)
            if self._due:
                raise Doubt("pictures that did not come")
            with _delay_kept(context):
                context.flush_buffers()
            self._last = -(1 << 63)

    def _packets_of(
        self, clip: Clip, report: DamageReport, runs: tuple[Run, ...]
    ) -> Iterator[tuple[Run, Iterator[Packet[VideoStream]]]]:
        """Yield each run with its packets, which are to be taken before the next."""
        numbered: Iterator[tuple[int, Packet[VideoStream]]]
        numbered, at = enumerate(PacketReader(clip, report)), 0
        for run in runs:
            if run.first - at > _SEEK_OVER and clip.format in _INDEXED:
                numbered = self._sought(clip, report, run.first)
            yield run, self._fed(numbered, run)
            at = run.last + 1

    def _sought(
        self, clip: Clip, report: DamageReport, number: int
    ) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Go to a key frame that is packet `number` or comes before it; yield packets from there
        on, with their numbers."""
        stamps = self.plan.stamps
        # An index goes by times of decoding, which lie before those of showing by that many.
        earlier = int(stamps[max(0, number - 2 * _MOST_DELAY) : number + 1].min())
        with _delay_kept(clip.stream.codec_context):
            clip.container.seek(earlier, stream=clip.stream)
        packets = iter(PacketReader(clip, report))
        first = next(packets, None)
        found = np.flatnonzero(stamps == first.pts) if first is not None else stamps[:0]
        if first is None or len(found) != 1 or found[0] > number:
            raise Doubt("an index that leads elsewhere")
        yield int(found[0]), first
        yield from enumerate(packets, int(found[0]) + 1)

    def _fed(
        self, numbered: Iterator[tuple[int, Packet[VideoStream]]], run: Run
    ) -> Iterator[Packet[VideoStream]]:
        plan = self.plan
        for number, packet in numbered:
            self.beat(self._decoded)
            if number < run.first or not plan.fed[number]:
                pass
            elif packet.pts != plan.stamps[number]:
                raise Doubt("other packets than before")
            else:
                if plan.visible[number]:
                    self._due[packet.pts] = number
                yield packet
            if number >= run.last:
                return
        raise Doubt("fewer packets than before")

    def _take(self, frames: list[av.VideoFrame], report: DamageReport, *, emit: bool) -> None:
        if report.damaged or report.heard:
            raise Doubt("damage, or what may be some")
        for frame in frames:
            self._decoded += 1
            number = self._due.pop(frame.pts, None) if frame.pts is not None else None
            if number is None or frame.pts <= self._last:
                raise Doubt("a picture that was not due")
            self._last = frame.pts
            kind = frame.width, frame.height, frame.format.name
            self._kind = self._kind or kind
            if kind != self._kind:
                raise Doubt("pictures that change their size")
            if number == self.plan.first:
                self.shown_size = self._scaler.shown_size(frame)
            rank = self.plan.ranks.get(number)
            if rank is not None and emit:
                self._emit(frame, rank)

    def _emit(self, frame: av.VideoFrame, rank: int) -> None:
        try:
            pictures = self._scaler(frame)
        except (av.FFmpegError, MemoryError) as err:
            raise VideoRejected("decode", "unsupported_codec", no_rgb(frame, err)) from err
        self.emit_frame(rank, *pictures)
