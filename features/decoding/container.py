"""Opens one untrusted file as a clip: nothing but that file is read, and nothing large is decoded.

The path is looked at before it is opened (a named pipe would block, a device may act), then opened
without blocking and looked at again. FFmpeg gets the open file without its name, so the content
alone decides what it is, with a list of the demuxers it may use and no protocol at all: a playlist,
a concat list or a reference to another file opens nothing. Pictures over the limit are refused
before a decoder gets to see them, probing included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from framebank.features.decoding import structure
from framebank.features.decoding.parts import MOST_PARTS, part_windows
from framebank.features.decoding.structure import Crop, stated_crop
from framebank.features.errors import VideoRejected

# Demuxers that read one self-contained file. Left out on purpose: everything that opens other files
# or addresses (hls, dash, concat, image2, sdp, rtsp, imf), that takes any bytes (rawvideo, data),
# that is text (subtitles, tty, lrc), that runs a filter (lavfi), and the formats of old games.
VIDEO_FORMATS = (
    "mov,matroska,avi,flv,live_flv,kux,asf,asf_o,mpegts,mpeg,mpegvideo,ogg,gif,apng,h264,hevc,vvc,evc,"
    "m4v,h261,h263,vc1,vc1test,obu,av1,ivf,mjpeg,mjpeg_2000,mpjpeg,nut,mxf,rm,wtv,dv,yuv4mpegpipe,swf,"
    "dnxhd,dirac,cavsvideo,avs2,avs3,nsv,nuv,gxf,apv,flic,pva,dhav,ty"
)
PICTURE_FORMATS = (
    "png_pipe,jpeg_pipe,jpegls_pipe,webp_pipe,webp,bmp_pipe,tiff_pipe,gif_pipe,j2k_pipe,jpegxl_pipe,"
    "jpegxl_anim,ppm_pipe,pgm_pipe,pbm_pipe,pam_pipe,pgmyuv_pipe,qoi_pipe,ico"
)
# Sound alone is told from bytes that are no media at all: `no_video_stream`, not `not_a_video`.
SOUND_FORMATS = "mp3,aac,wav,w64,flac,aiff,ac3,eac3,amr,caf,au,tta,wv,ape,mpc,mpc8,dts,truehd"
_FORMAT_WHITELIST = f"{VIDEO_FORMATS},{PICTURE_FORMATS},{SOUND_FORMATS}"
_BUFFER_BYTES = 1 << 18
_MOST_TRACKS = 100  # each may get a decoder while a file is probed, and all at once
_PROBING_CODECS = ",".join(sorted(av.codecs_available.difference(structure.UNPACKING)))
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails
# Formats that name their tracks only as they come (FLV, MPEG program streams): options do not reach
# the decoders that probe those, so the size of their pictures is first read without any decoder.
_LATE_TRACKS = (b"FLV", b"\0\0\1\xba")
_RAW_RATES = ("h264", "hevc")  # streams without a time of their own that state a rate
_SEQUENCE_BRANDS = ("avis", "msf1", "hevc", "hevx")  # ISO/IEC 23008-12, 7 and annex B
_PYAV_GENPTS = 0x1  # AVFMT_FLAG_GENPTS, which PyAV sets for every input


@dataclasses.dataclass(frozen=True)
class DecodeLimits:
    """What a clip may ask for before it is `too_large`.

    `max_pixels` per frame, `max_size_bytes` of the file, `max_rows` that a rule gives for one clip,
    `max_duration_s` that its container states or its frames come to.
    `free_pixels` may be decoded of any clip, and `pixels_per_byte` more for each byte of its file:
    an estimate (4K pictures of 127 bytes each reach it), not a measurement.
    """

    max_pixels: int = 2**26
    max_size_bytes: int = 1 << 40
    max_rows: int = 200_000
    max_duration_s: float | None = None
    free_pixels: int = 2**34
    pixels_per_byte: int = 2**16


class NamelessFile:
    """An open file without its name, for FFmpeg to read; `size_bytes` is its length now.

    It keeps a position of its own: several containers may read one descriptor at a time. With a
    `window` of bytes (start, end) it is that part of the file, of `whole_bytes` in all.
    """

    def __init__(self, descriptor: int, window: tuple[int, int] | None = None) -> None:
        self.descriptor, self._position = descriptor, 0
        self.whole_bytes = os.fstat(descriptor).st_size
        self.window = window or (0, self.whole_bytes)
        self.size_bytes = self.window[1] - self.window[0]

    def read(self, size_bytes: int = -1) -> bytes:
        """Return up to `size_bytes` bytes, or all that is left."""
        wanted = self.size_bytes - self._position if size_bytes < 0 else size_bytes
        data = self.peek(self._position, wanted)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place counted from the start, from here or from the end; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "a place before the start of the file")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def peek(self, offset: int, size_bytes: int) -> bytes:
        """Return bytes from `offset`, none past the end; the position stays as it is."""
        wanted = min(size_bytes, self.size_bytes - offset)
        if wanted <= 0 or offset < 0:  # a length that the file states may lead anywhere
            return b""
        return os.pread(self.descriptor, wanted, self.window[0] + offset)

    def part(self, window: tuple[int, int]) -> NamelessFile:
        """Return a part of the same open file, with a position of its own at its start."""
        return NamelessFile(self.descriptor, window)


@dataclasses.dataclass(frozen=True)
class Clip:
    """An opened clip: its file, FFmpeg's container, and the picture track that counts.

    `later` are the windows of the files that were put behind it (`frames.parts_of` reads them).
    """

    file: NamelessFile
    limits: DecodeLimits
    container: InputContainer
    stream: VideoStream
    later: tuple[tuple[int, int], ...] = ()

    @property
    def format(self) -> str:
        """Return FFmpeg's name of the container, the first of them ("mov" for the mp4 family)."""
        return self.container.format.name.partition(",")[0]

    @property
    def time_base(self) -> Fraction:
        """Return seconds per tick of the track's timestamps."""
        return Fraction(self.stream.time_base or Fraction(1, 1_000_000))

    @property
    def nominal_rate(self) -> Fraction:
        """Return frames per second as the container states or FFmpeg guesses it (25 if unknown)."""
        stream = self.stream
        # What a raw stream says of itself; FFmpeg's demuxer says 25 of all of them.
        coded = stream.codec_context.framerate if self.format in _RAW_RATES else None
        rates = (coded, stream.guessed_rate, stream.average_rate, stream.base_rate)
        return Fraction(next(filter(None, rates), 25))

    @property
    def crop(self) -> Crop:
        """Return what the container says is cut off the pictures."""
        tracks = [t for t in self.container.streams.video if not t.disposition & _COVER]
        place = [track.index for track in tracks].index(self.stream.index)
        return stated_crop(self.format, self.file.peek, self.file.size_bytes, track=place)

    def reopened(self) -> contextlib.AbstractContextManager[Clip]:
        """Read the same open file from its start again."""
        return open_part(self.file.part(self.file.window), self.limits, self.later)


@contextlib.contextmanager
def open_file(path: str | int, limits: DecodeLimits) -> Iterator[NamelessFile]:
    """Open a regular file that is not empty; raises VideoRejected at stage "open".

    A number is the descriptor of one that was opened here by another process: it is left open.
    """
    if isinstance(path, int):
        yield NamelessFile(path)
        return
    _check_kind(path, limits)
    try:
        # Between the look and this a pipe may have taken the name: O_NONBLOCK does not wait on it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError as err:
        raise VideoRejected("open", "missing", f"{path} went away") from err
    except OSError as err:
        raise VideoRejected("open", "unreadable", f"{path}: {err.strerror}") from err
    with os.fdopen(descriptor, "rb", buffering=0):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise VideoRejected("open", "not_a_file", f"{path} is no regular file")
        yield NamelessFile(descriptor)


@contextlib.contextmanager
def open_clip(path: str | int, limits: DecodeLimits) -> Iterator[Clip]:
    """Open `path` as a clip; raises VideoRejected at stage "open" or "probe"."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_file(path, limits))
        windows = part_windows(file.peek, file.size_bytes)
        if len(windows) > MOST_PARTS:
            text = f"more than {MOST_PARTS} files glued together: join them with ffmpeg's concat"
            raise VideoRejected("probe", "too_large", text)
        for number, window in enumerate(windows, 1):
            part = open_part(file.part(window), limits, tuple(windows[number:]))
            try:
                clip = stack.enter_context(part)
                break
            except VideoRejected as err:  # sound alone may come before the pictures
                if err.error_class != "no_video_stream" or number == len(windows):
                    raise
        yield clip


@contextlib.contextmanager
def open_part(
    file: NamelessFile, limits: DecodeLimits, later: tuple[tuple[int, int], ...] = ()
) -> Iterator[Clip]:
    """Probe an open file, or a part of one, as a clip; raises VideoRejected at stage "probe"."""
    if structure.packed_index_bytes(file.peek, file.size_bytes) > structure.MOST_UNPACKED:
        text = f"its index unpacks to more than {structure.MOST_UNPACKED >> 20} MiB"
        raise VideoRejected("probe", "too_large", text)
    if file.peek(0, 4).startswith(_LATE_TRACKS):
        with _probed(file, limits, codec_whitelist="none") as container:
            _picture_track(container, limits)
    with _probed(file, limits) as container:
        # Timestamps made up from later packets would stand in the way of the decoder's own guess.
        container.flags &= ~_PYAV_GENPTS
        check_duration((container.duration or 0) / av.time_base, limits, stage="probe")
        clip = Clip(file, limits, container, _track_of(file, container, limits), later)
        if clip.format == "matroska" and structure.matroska_locked(file.peek, file.size_bytes):
            raise VideoRejected("probe", "encrypted", "matroska with an encrypted picture track")
        if structure.is_animated_webp(file.peek):
            text = "animated WebP, of which FFmpeg decodes no picture"
            raise VideoRejected("probe", "unsupported_codec", text)
        yield clip


@contextlib.contextmanager
def _probed(
    file: NamelessFile, limits: DecodeLimits, **more_options: str
) -> Iterator[InputContainer]:
    options = {
        "format_whitelist": _FORMAT_WHITELIST,
        "protocol_whitelist": "none",
        "max_pixels": str(limits.max_pixels),
        "max_streams": str(_MOST_TRACKS),
        "codec_whitelist": _PROBING_CODECS,
        **more_options,
    }
    file.seek(0)
    try:
        container = av.open(
            file, "r", options=options, buffer_size=_BUFFER_BYTES, metadata_errors="replace"
        )
    except MemoryError as err:
        text = f"more than {_MOST_TRACKS} tracks, or no memory for its headers"
        raise VideoRejected("probe", "too_large", text) from err
    except av.FFmpegError as err:
        raise _rejected_by_probe(file, err) from err
    except OSError as err:
        raise VideoRejected("open", "unreadable", f"reading failed: {err}") from err
    try:
        yield container
    finally:
        container.close()


def _check_kind(path: str, limits: DecodeLimits) -> None:
    """Raise VideoRejected unless `path` leads to a regular file of an allowed size."""
    try:
        status = os.stat(path)
    except FileNotFoundError as err:
        if os.path.islink(path):
            raise VideoRejected("open", "not_a_file", f"{path} is a link to nowhere") from err
        raise VideoRejected("open", "missing", f"{path} does not exist") from err
    except (OSError, ValueError) as err:
        loop = isinstance(err, OSError) and err.errno == 40  # ELOOP: links in a circle
        kind = "not_a_file" if loop else "unreadable"
        raise VideoRejected("open", kind, f"{path}: {err}") from err
    if not stat.S_ISREG(status.st_mode):
        kind = stat.filemode(status.st_mode)[0]
        names = {"d": "folder", "p": "named pipe", "s": "socket", "c": "device", "b": "device"}
        raise VideoRejected("open", "not_a_file", f"{path} is a {names.get(kind, 'special file')}")
    if not status.st_size:
        raise VideoRejected("open", "empty", f"{path} has zero bytes")
    if status.st_size > limits.max_size_bytes:
        message = f"{path} has {status.st_size} bytes, the limit is {limits.max_size_bytes}"
        raise VideoRejected("open", "too_large", message)


def _track_of(file: NamelessFile, container: InputContainer, limits: DecodeLimits) -> VideoStream:
    """Return the picture track; where an mp4 was cut it may be missing or not be known for that."""
    try:
        return _picture_track(container, limits)
    except VideoRejected as err:
        boxes, complete = structure.mp4_boxes(file.peek, file.size_bytes)
        if err.error_class in ("no_video_stream", "unsupported_codec") and boxes and not complete:
            text = f"{err.message}; the file ends within a box ({str(boxes[-1])[2:-1]})"
            raise VideoRejected("probe", "truncated", text) from err
        raise


def _picture_track(container: InputContainer, limits: DecodeLimits) -> VideoStream:
    """Return the first video stream that is no cover picture."""
    name = container.format.name
    tracks = [track for track in container.streams.video if not track.disposition & _COVER]
    if not tracks:
        kinds = ", ".join(sorted({track.type for track in container.streams})) or "no stream"
        raise VideoRejected("probe", "no_video_stream", f"{name} with {kinds}")
    track = tracks[0]
    if container.metadata.get("major_brand", "") in _SEQUENCE_BRANDS:  # AVIF, HEIF
        track = next((track for track in tracks if track.frames > 1), track)  # no still item
    if track.disposition & Disposition.dependent:  # FFmpeg gives the tiles, one by one
        text = f"a picture put together of tiles ({len(tracks)} tracks), which FFmpeg does not do"
        raise VideoRejected("probe", "unsupported_codec", text)
    if track.codec_context is None:  # PyAV then knows nothing more of the track
        raise VideoRejected("probe", "unsupported_codec", f"no decoder for {name}'s picture track")
    context = track.codec_context
    pixels = max(context.width * context.height, context.coded_width * context.coded_height)
    if pixels > limits.max_pixels:
        raise too_many_pixels(context.width, context.height, limits, stage="probe")
    return track


def too_many_pixels(
    width: int, height: int, limits: DecodeLimits, *, stage: str = "decode"
) -> VideoRejected:
    """Return the verdict on pictures over the limit."""
    message = f"{width}x{height} pixels, the limit is {limits.max_pixels} pixels"
    return VideoRejected(stage, "too_large", message)


def check_duration(duration_s: float, limits: DecodeLimits, *, stage: str = "decode") -> None:
    """Raise VideoRejected (too_large) for a clip that lasts longer than it may."""
    if limits.max_duration_s is not None and duration_s > limits.max_duration_s:
        message = f"it lasts {duration_s:.1f} s, the limit is {limits.max_duration_s:g} s"
        raise VideoRejected(stage, "too_large", message)


def _rejected_by_probe(file: NamelessFile, err: av.FFmpegError) -> VideoRejected:
    """Tell a file that was cut before its pictures from bytes that are no video."""
    boxes, complete = structure.mp4_boxes(file.peek, file.size_bytes)
    if boxes and (b"moov" not in boxes or (boxes[-1] == b"moov" and not complete)):
        names = " ".join(str(box)[2:-1] for box in boxes[:8])
        text = f"mp4 without its whole index (boxes: {names})"
        if b"moof" in boxes and b"moov" not in boxes:
            text = f"a segment without its initialisation, which comes first (boxes: {names})"
        return VideoRejected("probe", "truncated", text)
    if (structure.stated_size(file.peek, file.size_bytes) or 0) > file.size_bytes:
        return VideoRejected("probe", "truncated", "it ends within its headers")
    said = err.log[2] if err.log else ""
    detail = str(said).strip() or err.strerror
    return VideoRejected("probe", "not_a_video", f"no demuxer takes it ({detail})")
