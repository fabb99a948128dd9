"""The loop around FFmpeg: packets of a clip, frames of a packet, the pixels that they may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from framebank.features.decoding.container import Clip, DecodeLimits, open_part, too_many_pixels
from framebank.features.decoding.damage import DamageReport
from framebank.features.decoding.structure import MOST_UNPACKED, UNPACKING, png_unpacks_over
from framebank.features.errors import VideoRejected

MOST_LATE_TRACKS = 64
# Only these formats can be put one behind the other by `cat`: one clock has no index over it.
_GLUED_FORMATS = ("mpegts", "mpeg", "matroska", "ogg", "flv", "nut")
_LOOSE_CLOCKS = ("mpegts", "mpeg")  # in which a jump ahead, too, is a part's own clock
# ffmpeg's own bounds (fftools, ts_discontinuity_detect).
_BACK_S, _AHEAD_S = Fraction(1, 10), 10
# A file that only gives errors is not read to its end: each costs time, and none gives a picture.
MOST_ERRORS = 10_000
# Clips that may cost much are first counted by their packets, which takes no decoding.
_COUNTED_PIXELS = 2**22
_COUNTED_BYTES = 64 * 2**20


def parts_of(clip: Clip, report: DamageReport) -> Iterator[Clip]:
    """Yield a clip and what was glued to it, part by part, each until the next is asked for.

    A part without pictures is skipped; one that is no whole file is reported as damage.
    """
    yield clip
    for number, window in enumerate(clip.later, 2):
        try:
            with open_part(clip.file.part(window), clip.limits) as part:
                report.enter(part)
                yield part
        except VideoRejected as err:
            if err.error_class in ("truncated", "not_a_video"):
                report.add_lost_part(number, err, last=number > len(clip.later))
            elif err.error_class != "no_video_stream":
                raise


def stamp_of(item: Packet[VideoStream] | av.VideoFrame) -> int | None:
    """Return the time of showing in ticks, that of decoding where there is no other."""
    return item.pts if item.pts is not None else item.dts


class PacketReader:
    """Reads a clip's packets in the order of the file, the parts of a glued one after the other.

    `last_end_s` is where the picture track ends by its packets so far, or with `all_tracks` the
    longest; None where none had a time.
    `seam` is set while the first packet of a further part is in hand.
    """

    def __init__(self, clip: Clip, report: DamageReport, *, all_tracks: bool = False) -> None:
        self._clip, self._report, self._all = clip, report, all_tracks
        self._ends: dict[int, int] = {}  # ticks, by the number of the track
        self.seam = False
        self._seams = Seams(clip.format, clip.time_base, rate=clip.nominal_rate)
        for track in clip.container.streams:  # which the demuxer is to skip, or not
            if track is not clip.stream:
                track.discard = Discard.default if all_tracks else Discard.all

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        """Yield the picture track's packets; what goes wrong is reported and ends the clip."""
        container, stream = self._clip.container, self._clip.stream
        tracks = list(container.streams) if self._all else [stream]
        source, restarts = container.demux(*tracks), 0
        while self._report.errors < MOST_ERRORS:
            try:
                packet = next(source, None)
            except IndexError:
                # PyAV stumbles over tracks that appeared while it read; it may go on from there.
                if restarts == MOST_LATE_TRACKS:
                    return
                restarts += 1
                source = container.demux(*tracks)
                continue
            except av.FFmpegError as err:
                self._report.add_demux_error(err)
                return
            except OSError as err:
                raise VideoRejected("decode", "unreadable", f"reading failed: {err}") from err
            if packet is None:
                return
            if not packet.size:
                continue
            own = packet.stream_index == stream.index
            # Each part of a chained Ogg brings a comment (Theora, 6.3), no picture.
            comment = own and self._clip.format == "ogg" and bytes(packet)[:7] == b"\x81theora"
            if not comment:
                self.seam = own and self._seams.mend(packet)
                self._note_end(packet)
                if own:
                    self._report.add_packet(packet, seam=self.seam)
                    yield packet

    @property
    def last_end_s(self) -> Fraction | None:
        tracks = self._clip.container.streams
        bases = {number: tracks[number].time_base for number in self._ends}
        ends = [end * base for number, end in self._ends.items() if (base := bases[number])]
        return max(ends, default=None)

    def _note_end(self, packet: Packet[VideoStream]) -> None:
        stamp = stamp_of(packet)
        if stamp is not None:
            number, end = packet.stream_index, stamp + (packet.duration or 0)
            self._ends[number] = max(self._ends.get(number, end), end)


class Seams:
    """Puts the parts of a glued file one after the other, as ffmpeg shows them.

    A part begins where the clock goes back, which decoding times never do in a whole file, nor the
    presentation time of a key frame; in transport and programme streams also where it leaps ahead.
    """

    def __init__(self, container: str, time_base: Fraction, *, rate: Fraction) -> None:
        """`rate`: pictures a second, where nothing else tells how long the last one is shown."""
        self._glued, self._leaps = container in _GLUED_FORMATS, container in _LOOSE_CLOCKS
        self._back, self._ahead = _BACK_S / time_base, _AHEAD_S / time_base
        self._shift = 0  # ticks that this part is moved by
        self._last_dts: int | None = None  # both as they stand in the file
        self._last_pts: int | None = None
        self._end: int | None = None  # of what was read, after the move
        self._delay = 0  # the longest from a packet's decoding to its showing
        self._gap = max(1, round(1 / (rate * time_base)))  # the longest that was no seam

    def mend(self, packet: Packet[VideoStream]) -> bool:
        """Move the packet's timestamps to its part's place; tell whether a part begins with it."""
        pts, dts = packet.pts, packet.dts
        stamp = stamp_of(packet)
        if not self._glued or stamp is None:
            return False
        seam = self._begins(packet)
        if seam and self._end is not None:
            self._shift = self._end - stamp
            self._last_pts = self._last_dts = None
        if dts is not None:
            if self._last_dts is not None:
                self._gap = max(self._gap, dts - self._last_dts)
            self._last_dts = dts
        self._last_pts = stamp if self._last_pts is None else max(self._last_pts, stamp)
        duration = packet.duration or self._gap
        if pts is not None and dts is not None:
            self._delay = max(self._delay, pts - dts)
        # Without its own time a picture is shown no later after its decoding than the others are.
        end = stamp + self._shift + duration + (self._delay if pts is None else 0)
        self._end = end if self._end is None else max(self._end, end)
        if self._shift:
            packet.pts = None if pts is None else pts + self._shift
            packet.dts = None if dts is None else dts + self._shift
        return seam

    def _begins(self, packet: Packet[VideoStream]) -> bool:
        pts, dts = packet.pts, packet.dts
        if dts is not None and self._last_dts is not None:
            if dts + self._back < self._last_dts:
                return True
            if self._leaps and dts - self._last_dts > max(self._ahead, 10 * self._gap):
                return True
        if packet.is_keyframe and pts is not None and self._last_pts is not None:
            return pts + self._back < self._last_pts
        return False


class KeyFlags:
    """Which frames the stream flags as key: its packets say it, for many decoders do not."""

    _MOST_HELD = 1024  # packets whose frames never came

    def __init__(self) -> None:
        self._held: dict[int, bool] = {}

    def note(self, packet: Packet[VideoStream]) -> None:
        """Remember the flag of a packet that goes to the decoder."""
        stamp = packet.pts
        if stamp is None and not packet.stream.codec_context.has_b_frames:
            stamp = packet.dts  # frames come as packets go: that of the one is that of the other
        if stamp is not None:
            self._held[stamp] = packet.is_keyframe
            if len(self._held) > self._MOST_HELD:
                del self._held[next(iter(self._held))]

    def of(self, frame: av.VideoFrame) -> bool:
        """Return the flag of the frame's packet, or the decoder's where that is not known."""
        stamp = stamp_of(frame)
        flag = None if stamp is None else self._held.pop(stamp, None)
        return bool(frame.key_frame) if flag is None else flag


def start_decoder(clip: Clip, threads: int, report: DamageReport) -> None:
    """Open the picture decoder with its limits; raises VideoRejected (unsupported, too large).

    Threads share one picture's slices and never run ahead: what a damaged packet does to the frames
    around it is then the same with any number of them.
    """
    context = clip.stream.codec_context
    context.thread_count = max(1, threads)
    context.thread_type = "SLICE"
    context.options = {"max_pixels": str(clip.limits.max_pixels)}
    if context.name in UNPACKING:
        check_png(bytes(context.extradata or b""))
    try:
        context.open(strict=False)
    except (av.FFmpegError, ValueError) as err:
        raise report.closed_decoder(err) from err


def check_png(data: bytes) -> None:
    """Raise VideoRejected (too_large) for a PNG, or a part of one, with a bomb in its text."""
    if png_unpacks_over(data, MOST_UNPACKED):
        text = f"its text or colour profile unpacks to more than {MOST_UNPACKED >> 20} MiB"
        raise VideoRejected("decode", "too_large", text)


def decode_packet(
    clip: Clip, packet: Packet[VideoStream] | None, report: DamageReport
) -> list[av.VideoFrame]:
    """Return the intact frames that `packet` releases (None: those that the decoder still holds).

    What goes wrong is reported, not raised, but for a frame over the limit on pixels.
    """
    frames: list[av.VideoFrame] = []
    error: av.FFmpegError | None = None
    if packet is not None and clip.stream.codec_context.name in UNPACKING:
        check_png(bytes(packet))
    try:
        frames = clip.stream.codec_context.decode(packet)
    except av.FFmpegError as err:
        if packet is not None or not isinstance(err, EOFError):
            error = err
    for frame in frames:
        if frame.width * frame.height > clip.limits.max_pixels:
            raise too_many_pixels(frame.width, frame.height, clip.limits)
    return report.add_decoding(frames, error, packet.dts if packet is not None else None)


class WorkBudget:
    """The pixels that one pass over a clip may still decode, by what its file has in bytes.

    67 kB can hold 3,000 frames on a canvas of 8191 x 8191, which take their whole time limit and
    show nothing. The verdict does not depend on how fast a machine is.
    """

    def __init__(self, limits: DecodeLimits, size_bytes: int) -> None:
        self._limit = limits.free_pixels + limits.pixels_per_byte * size_bytes
        self._spent, self._size_bytes = 0, size_bytes

    def spend(self, pixels: int) -> None:
        """Take one frame's pixels off; raises VideoRejected (too_large) when none are left."""
        self._spent += pixels
        if self._spent > self._limit:
            message = f"{self._spent} pixels in all from {self._size_bytes} bytes of file"
            raise VideoRejected("decode", "too_large", f"{message}, the limit is {self._limit}")


def check_ahead(clip: Clip, beat: Callable[[], None]) -> None:
    """Count a small file of large pictures before it is decoded; raises VideoRejected."""
    context = clip.stream.codec_context
    pixels = context.width * context.height
    if pixels < _COUNTED_PIXELS or clip.file.size_bytes > _COUNTED_BYTES:
        return
    budget = WorkBudget(clip.limits, clip.file.size_bytes)
    with clip.reopened() as ahead:
        try:
            for packet in ahead.container.demux(ahead.stream):
                beat()
                if packet.size and not packet.is_corrupt:
                    budget.spend(pixels)
        except (av.FFmpegError, IndexError):
            return  # the pass that decodes says what is wrong with it
