"""Tells whether a clip is whole: what FFmpeg reported while it was decoded, and where it ended.

Two verdicts. `corrupt`: the demuxer or the decoder failed, or marked packets or frames as damaged.
`truncated`: the file was cut, so that it ends in the middle of a packet or long before the end that
its container states. What was found out by damaging clips of 20 formats on purpose: exceptions and
marks tell nearly everything; some decoders only write a message (`_DAMAGE` lists those); VP8, VP9
and HEVC hide small damage altogether. Other messages are no evidence: healthy clips cause them too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from fractions import Fraction

import av
from av import logging as av_logging
from av.packet import Packet
from av.video.stream import VideoStream

from framebank.features.decoding import structure
from framebank.features.decoding.container import Clip
from framebank.features.decoding.sampling import Timeline
from framebank.features.errors import VideoRejected

Message = tuple[int, str, str]  # level, the name of the part that speaks, text

# Pictures that end earlier than stated by more than this are cut; encoders round by a frame or two,
# and state the longest track where they state one figure for all.
SHORT_S, SHORT_RATIO = Fraction(1, 2), Fraction(1, 20)

_AVI_FRAME_BYTES = 8  # the head of its chunk
# What the demuxers say when the file ends too soon, and when what they read makes no sense.
_CUT = re.compile(r"partial file|File ended prematurely")
_BROKEN = re.compile(r"^0x\w+ at pos .* invalid as first|^Length \d+ indicated by|^Element at ")
_DEMUXERS = ("mov", "matroska", "avi", "flv", "asf")
# What decoders say that neither fail nor mark the frame, although its picture is damaged.
_DAMAGE = {
    "gif": re.compile(r"LZW decode failed|LZW init failed"),
    "mjpeg": re.compile(r"^overread|^error count|^error y=|^error dc|EOI missing"),
    "ffv1": re.compile(r"CRC mismatch"),
    "hevc": re.compile(r"Could not find ref with POC|Error constructing the frame RPS"),
}
_TOO_LARGE = re.compile(
    r"exceeds specified max pixel count|[Ff]rame size .* exceeds limit|exceeds max_streams"
    r"|Picture size [1-9]\d*x[1-9]\d* is invalid"
)
# Recordings of a running broadcast begin anywhere: what cannot be decoded before the first whole
# picture was never theirs.
_JOINED_RUNNING = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "vvc", "obu", "av1")
_MARKED_AHEAD = 2  # packets that a parser may still hold when the demuxer marks one at a seam
# Transport streams are often glued together; the demuxer marks a packet at each seam, whole or not.
# These decoders notice by themselves when something is missing.
_TELLING_DECODERS = ("h264", "mpeg1video", "mpeg2video", "mpeg4")


@contextlib.contextmanager
def ffmpeg_messages() -> Iterator[list[Message]]:
    """Collect FFmpeg's error messages of all threads while inside; the list is to be emptied often.

    FFmpeg's messages are one stream for the whole process: one clip at a time.
    """
    level, repeated = av_logging.get_level(), av_logging.get_skip_repeated()
    av_logging.set_skip_repeated(False)
    av_logging.set_level(av_logging.ERROR)
    try:
        with av_logging.Capture(local=False) as messages:
            yield messages
    finally:
        av_logging.set_level(level)
        av_logging.set_skip_repeated(repeated)


def has_sidedata(packet: Packet[VideoStream], *names: str) -> bool:
    """Tell whether a packet brings data of one of these kinds beside its own: most bring none, and
    to ask for three kinds by their names takes as long as reading a packet."""
    return any(True for _ in packet.iter_sidedata()) and any(map(packet.has_sidedata, names))


@dataclasses.dataclass(frozen=True)
class StatedEnd:
    """The end in seconds, on the track's clock, that a container states.

    `whole_file` is set where it is one figure for all tracks, the longest of which counts.
    """

    end_s: Fraction
    whole_file: bool


def stated_end(clip: Clip) -> StatedEnd | None:
    """Return the end that the container states, or None where FFmpeg would only guess.

    mp4 and Matroska state it per track, AVI as a number of frames, FLV and ASF for the file.
    """
    stream, container = clip.stream, clip.container
    start = (stream.start_time or 0) * clip.time_base
    whole = Fraction(container.duration or 0, 1_000_000)
    if clip.format == "mov" and stream.duration:
        # FFmpeg adds a fragmented file's start to the duration by itself.
        boxes, _ = structure.mp4_boxes(clip.file.peek, clip.file.size_bytes)
        ticks = stream.duration * clip.time_base
        return StatedEnd(ticks if b"moof" in boxes else start + ticks, False)
    # Written to a pipe an AVI has a count that no file of its size can hold, or none.
    if clip.format == "avi" and 0 < stream.frames <= clip.file.size_bytes // _AVI_FRAME_BYTES:
        return StatedEnd(start + stream.frames / clip.nominal_rate, False)
    if clip.format == "matroska":
        tags = [text for key, text in stream.metadata.items() if key.startswith("DURATION")]
        seconds = _clock_seconds(tags[0]) if tags else None
        if seconds is not None:
            return StatedEnd(seconds, False)
    if clip.format in ("matroska", "flv", "asf") and whole > 0:
        return StatedEnd(whole, True)
    return None


class DamageReport:
    """What went wrong in one pass over a clip; `errors` counts packets, frames and failures."""

    def __init__(self, clip: Clip, messages: list[Message], *, strict: bool = False) -> None:
        """`messages`: the list of `ffmpeg_messages`, emptied here.

        `strict`: a stated end that is not there is damage, though the file is all there.
        """
        self._messages, self._strict = messages, strict
        self.warning = ""  # what a whole file states that is not so
        self.errors = 0
        self.heard = 0  # messages of FFmpeg, most of which are no evidence
        self.cut = ""  # why the file counts as cut, or ""
        self._first = ""
        self._packets = 0
        self._packets_at_first = 0
        self._lost_its_way = False
        self._unsupported = False
        self._unread = False  # a part of the file is of a kind that FFmpeg does not read
        self._giant = ""
        self._frames = 0
        self._marked: list[tuple[int, str, int | None]] = []  # by the number of the packet
        self._part = [0, 0]  # packets and intact frames of the part in hand
        self.enter(clip)

    def enter(self, part: Clip) -> None:
        """Turn to `part` of a glued file: what is reported from now on is about it."""
        self._clip = part
        self._part_begins = True
        self._tracks = len(part.container.streams.video)
        codec = part.stream.codec_context.codec.canonical_name
        self._only_a_join = part.format == "mpegts" and codec in _TELLING_DECODERS
        self._read_messages(decoding=False)

    def add_lost_part(self, number: int, err: VideoRejected, *, last: bool) -> None:
        """Note that part `number` (from 1) of a glued file does not open; the last one was cut."""
        self._messages.clear()
        what = f"part {number} of the files glued together: {err.message}"
        self._part_begins = False
        self._count(what, None)
        if last or err.error_class == "truncated":
            self._cut_by(what)

    @property
    def damaged(self) -> bool:
        return bool(self.errors or self.cut)

    def add_packet(self, packet: Packet[VideoStream], *, seam: bool = False) -> None:
        """Look at a packet before it is decoded; raises VideoRejected (encrypted).

        `seam`: a further part of a glued file begins with it.
        """
        self._packets += 1
        self._read_messages(decoding=False)
        self._settle_marked(seam=seam)
        self._part[0] += 1
        if has_sidedata(packet, "encryption_info"):
            message = f"{self._clip.format}: the picture track's packets are encrypted"
            raise VideoRejected("probe", "encrypted", message)
        if packet.is_corrupt and not self._only_a_join:
            what = f"a damaged packet ({packet.size} bytes)"
            if self._clip.format == "mpegts":  # which marks the packet before a join as well
                self._marked += [] if seam else [(self._packets, what, packet.dts)]
            else:
                self._count(what, packet.dts)
            if self._clip.format == "mov":  # its index knows every size: the file ended within it
                self._cut_by(what)

    def _settle_marked(self, *, seam: bool = False, end: bool = False) -> None:
        """Count packets that were marked as damaged, unless a part of the file ends right there."""
        while self._marked and (seam or end or self._packets - self._marked[0][0] > _MARKED_AHEAD):
            number, what, dts = self._marked.pop(0)
            if not seam or self._packets - number > _MARKED_AHEAD:
                self._count(what, dts)

    def add_demux_error(self, err: av.FFmpegError) -> None:
        self._read_messages(decoding=False)
        file = self._clip.file
        if self._clip.format == "mpjpeg" and file.tell() >= file.size_bytes:
            return  # how its demuxer says that nothing follows the last part
        self._unread = isinstance(err, av.error.PatchWelcomeError)
        self._count(f"reading failed: {err.strerror}", None)

    def add_decoding(
        self, frames: list[av.VideoFrame], err: av.FFmpegError | None, dts: int | None
    ) -> list[av.VideoFrame]:
        """Look at what one packet gave; return the frames that are intact.

        Raises VideoRejected (too_large) where the decoder refused a frame for its size.
        """
        if err is not None:
            self._unsupported = isinstance(err, av.error.PatchWelcomeError)
            self._count(f"decoding failed: {err.strerror}", dts)
        if self._read_messages(decoding=True):
            # These decoders give a packet's frame at once, so the message is about these frames.
            self._count("a frame that the decoder complains about", dts)
            return []
        intact = [frame for frame in frames if not frame.is_corrupt]
        for frame in frames:
            if frame.is_corrupt:
                self._count("a frame marked as damaged", dts if frame.pts is None else frame.pts)
        self._frames += len(intact)
        self._part[1] += len(intact)
        self._part_begins &= not intact
        return intact

    def take_pictures_for_granted(self) -> None:
        """Note that the packets to come are judged as they are, as if a picture came before them:
        what cannot be read is damage wherever it lies; what was heard till now counts no more."""
        self._part_begins = False
        self.heard = 0

    def begin_part(self) -> None:
        """Note that a further part of a glued file begins, which may begin anywhere as well."""
        self._end_part()
        self._part_begins = True

    def _end_part(self) -> None:
        """Count a part that had packets and no picture: it is of another codec, perhaps."""
        (packets, frames), self._part = self._part, [0, 0]
        if packets and not frames:
            self._part_begins = False
            self._count("a part of the file without a picture that the decoder can read", None)

    def finish(
        self, timeline: Timeline, end: StatedEnd | None, last_end_s: Fraction | None
    ) -> None:
        """Judge the end of the file; `last_end_s` is that of the track that `end` speaks of."""
        self._read_messages(decoding=False)
        self._settle_marked(end=True)
        if self._frames:
            self._end_part()
        # A parser may have split what was left of the last packet in two; a program stream marks
        # all packets of its last pack.
        last_packets = 4 if self._clip.format == "mpeg" else 1
        at_the_end = self.errors and self._packets_at_first >= self._packets - last_packets
        knows_better = self._clip.format in ("mov", "gif") or self._ends_in_full()
        if at_the_end and not self._lost_its_way and not knows_better:
            self._cut_by(f"the last packet is damaged: {self._first}")
        file = self._clip.file
        if self._clip.format == "gif" and structure.gif_is_cut(file.peek, file.size_bytes):
            self._cut_by("the GIF ends without its trailer")
        if structure.ends_amid_a_packet(self._clip.format, file.peek, file.size_bytes):
            self._cut_by("the file ends within a packet")
        if self._clip.format == "mov":
            boxes, complete = structure.mp4_boxes(file.peek, file.size_bytes)
            if boxes and not complete and (b"moof" in boxes or not len(timeline)):
                self._cut_by(f"the file ends within a box ({str(boxes[-1])[2:-1]})")
        more = len(self._clip.container.streams.video) - self._tracks  # of glued files, mostly
        if more > 0 and not self.warning:
            self.warning = f"{more} more picture tracks begin within the file; the first counts"
        if end is None or last_end_s is None:
            return
        unknown = len(timeline) == 1 and not timeline.durations[0]  # it may be shown to the end
        missing = end.end_s - last_end_s
        if not unknown and missing > max(SHORT_S, SHORT_RATIO * end.end_s):
            ended, stated = float(last_end_s), float(end.end_s)
            what = f"it ends at {ended:.2f} s of {stated:.2f} s stated"
            if not self._is_all_there():
                self._cut_by(what)
            elif self._strict:
                self._count(what, None)
            else:
                self.warning = what

    def closed_decoder(self, err: Exception) -> VideoRejected:
        """Return the verdict on a picture track whose decoder does not open."""
        if self._giant:
            return VideoRejected("probe", "too_large", self._giant)
        name = self._clip.stream.codec_context.name
        message = f"the decoder {name} does not open: {err}"
        return VideoRejected("probe", "unsupported_codec", message)

    def no_frames(self) -> VideoRejected:
        """Return the verdict on a clip without a single intact frame."""
        if self._giant:
            return VideoRejected("decode", "too_large", self._giant)
        message = f"{self._packets} packets and no picture; {self.cut or self._first or 'no error'}"
        if self._unsupported:
            return VideoRejected("decode", "unsupported_codec", message)
        return VideoRejected("decode", "truncated" if self.cut else "no_frames", message)

    def rejection(self) -> VideoRejected:
        """Return the verdict on a damaged clip of which no part may be kept."""
        counts = f"{self.errors} errors, {self._frames} intact frames"
        if self._unread:
            return VideoRejected("decode", "unsupported_codec", f"{self._first} ({counts})")
        if self.cut:
            return VideoRejected("decode", "truncated", f"{self.cut} ({counts})")
        return VideoRejected("decode", "corrupt", f"{counts}; first: {self._first}")

    def _read_messages(self, *, decoding: bool) -> bool:
        """Empty FFmpeg's messages; return whether the decoder complained of a damaged picture."""
        complained = False
        for _, speaker, text in self._messages:
            self.heard += 1
            if _TOO_LARGE.search(text):
                self._giant = text.partition(", see")[0].strip()
                if decoding or "max_streams" in text:  # while probing it may have been a cover
                    raise VideoRejected("decode", "too_large", self._giant)
            elif speaker.startswith(_DEMUXERS):
                if _CUT.search(text) and not self._ends_in_full():
                    self._cut_by(text.strip())
                elif _CUT.search(text) or _BROKEN.search(text):
                    self._count(text.strip(), None)
                    self._lost_its_way = True
            elif decoding and speaker in _DAMAGE:
                complained |= bool(_DAMAGE[speaker].search(text))
        self._messages.clear()
        return complained

    def _ends_in_full(self) -> bool:
        """Tell whether the file is as long as it says: then reading only lost its way."""
        file = self._clip.file
        stated = structure.stated_size(file.peek, file.size_bytes)
        return stated is not None and stated <= file.size_bytes

    def _is_all_there(self) -> bool:
        """Tell whether the file shows that none of its frames is missing."""
        file = self._clip.file
        if self._clip.format == "mov":  # an index lists every frame; fragments may be missing
            boxes, complete = structure.mp4_boxes(file.peek, file.size_bytes)
            return complete and b"moof" not in boxes
        return self._ends_in_full()

    def _count(self, what: str, ticks: int | None) -> None:
        if self._part_begins and self._clip.format in _JOINED_RUNNING:
            return
        at = "" if ticks is None else f" at {float(ticks * self._clip.time_base):.2f} s"
        if not self.errors:
            self._first, self._packets_at_first = what + at, self._packets
        self.errors += 1

    def _cut_by(self, what: str) -> None:
        self.cut = self.cut or what


def _clock_seconds(text: str) -> Fraction | None:
    """Read Matroska's "00:00:10.333000000"."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip().rstrip("\0"))
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
