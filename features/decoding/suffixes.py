"""The suffixes by which a clip is known where only its name is: of videos, and of pictures."""

from __future__ import annotations

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


def without_suffix(path: str) -> str:
    """Return `path` without the suffix of a video or picture, any other one stays."""
    dot = path.rfind(".")
    named = dot > path.rfind("/") + 1  # ".mp4" is a name
    return path[:dot] if named and path[dot:].lower() in _KNOWN else path
