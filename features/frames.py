"""The loop around FFmpeg: packets of a clip, frames of a packet, and what went wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.packet import Packet
from av.video.stream import VideoStream

from features.container import Clip, too_many_pixels
from features.damage import DamageReport
from features.errors import VideoRejected

# A file that only gives errors is not read to its end: each costs time, and none gives a picture.
MOST_ERRORS = 10_000


class PacketReader:
    """Reads a clip's packets in the order of the file.

    `last_end_s` is where the picture track ends by its packets, or with `all_tracks` the longest.
    """

    def __init__(self, clip: Clip, report: DamageReport, *, all_tracks: bool = False) -> None:
        self._clip, self._report, self._all = clip, report, all_tracks
        self.last_end_s: Fraction | None = None
        clip.discard_others(not all_tracks)

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        """Yield the picture track's packets; what goes wrong is reported and ends the clip."""
        container, stream = self._clip.container, self._clip.stream
        source = container.demux() if self._all else container.demux(stream)
        while self._report.errors < MOST_ERRORS:
            try:
                packet = next(source, None)
            except av.FFmpegError as err:
                self._report.add_demux_error(err)
                return
            except OSError as err:
                raise VideoRejected("decode", "unreadable", f"reading failed: {err}") from err
            if packet is None:
                return
            if packet.size:
                self._note_end(packet)
                if packet.stream_index == stream.index:
                    self._report.add_packet(packet)
                    yield packet

    def _note_end(self, packet: Packet[VideoStream]) -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.time_base:
            return
        end = (stamp + (packet.duration or 0)) * packet.time_base
        if self.last_end_s is None or end > self.last_end_s:
            self.last_end_s = end


def start_decoder(clip: Clip, threads: int, report: DamageReport) -> None:
    """Open the picture decoder with its limits; raises VideoRejected (unsupported, too large).

    Threads share one picture's slices and never run ahead: what a damaged packet does to the frames
    around it is then the same with any number of them.
    """
    context = clip.stream.codec_context
    context.thread_count = max(1, threads)
    context.thread_type = "SLICE"
    context.options = {"max_pixels": str(clip.limits.max_pixels)}
    try:
        context.open(strict=False)
    except (av.FFmpegError, ValueError) as err:
        raise report.closed_decoder(err) from err


def decode_packet(
    clip: Clip, packet: Packet[VideoStream] | None, report: DamageReport
) -> list[av.VideoFrame]:
    """Return the sound frames that `packet` releases (None: those that the decoder still holds).

    What goes wrong is reported, not raised, but for a frame over the limit on pixels.
    """
    frames: list[av.VideoFrame] = []
    error: av.FFmpegError | None = None
    try:
        frames = clip.stream.codec_context.decode(packet)
    except av.FFmpegError as err:
        if packet is not None or not isinstance(err, EOFError):
            error = err
    for frame in frames:
        if frame.width * frame.height > clip.limits.max_pixels:
            raise too_many_pixels(frame.width, frame.height, clip.limits)
    return report.add_decoding(frames, error, packet.dts if packet is not None else None)
