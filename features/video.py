"""The records that cross Framebank: a video to do, and what became of it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framebank.features.pictures import Pictures

UNLISTED = "unlisted: "  # how the generation of a folder begins whose content is not known
_NO_COLUMNS: Mapping[str, Any] = {}  # one for all: a million refs hold no million dicts
# By which a clip is known where only its name is.
_VIDEO = """
    3g2 3gp 264 265 amv asf av1 avi divx dv f4v flv gif h261 h263 h264 h265 hevc ivf m1v m2t m2ts
    m2v m4v mjpeg mjpg mk3d mkv mod mov mp4 mpe mpeg mpg mpv mts mxf nut obu ogm ogv qt rm rmvb ts
    vob webm wmv wtv y4m
"""
_PICTURE = """
    apng avif bmp heic heif jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp
"""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split())
PICTURE_SUFFIXES = frozenset(f".{name}" for name in _PICTURE.split())
_KNOWN = VIDEO_SUFFIXES | PICTURE_SUFFIXES


@dataclasses.dataclass(frozen=True, slots=True)
class VideoRef:
    """One input video, before anything of it is read.

    `uri` is an absolute local path or an object's address. `generation` tells versions of the same
    name apart: the mtime in nanoseconds, or that of a bucket; it is "" for one of a manifest that
    does not exist (`size_bytes` -1), and UNLISTED and why for a folder that could not be listed.
    """

    video_id: str
    uri: str
    size_bytes: int
    generation: str
    attempt: int = 1
    columns: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _NO_COLUMNS)

    def key(self, fingerprint: str) -> str:
        """Return 32 hex digits that change when the bytes or the spec change."""
        parts = (self.uri, str(self.size_bytes), self.generation, fingerprint)
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()[:32]

    @property
    def why_unlisted(self) -> str:
        """Why a folder could not be listed, "" of a video."""
        listed = not self.generation.startswith(UNLISTED)
        return "" if listed else self.generation.removeprefix(UNLISTED)


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What the container and the decoder say of a clip that was decoded whole: pixels as shown
    (after rotation), presented frames."""

    container: str
    codec: str
    width: int
    height: int
    rate_fps: float
    duration_s: float
    frames: int


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The features of one video: n rows as the sampling rule asks, d wide.

    Where a row is of a clip of frames, `pts_ms` is its middle, `frame_index` the frame shown then,
    and `span_ms` its first and last frame's times.
    """

    ref: VideoRef
    features: NDArray[np.float32] | Pictures  # [n, d]
    pts_ms: NDArray[np.int64]  # [n] relative to the first presented frame
    frame_index: NDArray[np.int64]  # [n] in order of presentation
    source: SourceInfo
    content_sha256: str
    partial: bool  # the decoder reported errors or the clip ended early (--allow-partial)
    decode_errors: int
    capped: bool  # --max-frames cut rows off
    warning: str = ""  # what the container of a whole clip states that is not so
    checked: str = "whole"  # how much of it was decoded: "whole", or "sampled" (--check sampled)
    span_ms: NDArray[np.int64] | None = None  # [n, 2]


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A video that goes to quarantine."""

    ref: VideoRef
    stage: str
    error_class: str
    message: str


def without_suffix(path: str) -> str:
    """Return `path` without the suffix of a video or picture, any other one stays."""
    dot = path.rfind(".")
    named = dot > path.rfind("/") + 1  # ".mp4" is a name
    return path[:dot] if named and path[dot:].lower() in _KNOWN else path


def catalog_text(text: str) -> str:
    """Return `text` as the catalog stores it: bytes of a file name that are no UTF-8 as \\xNN.

    Compare a uri with the catalog's through this. Text that is plain Unicode stays as it is.
    """
    if text.isascii():
        return text
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, from a JSON manifest
        data = text.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")
