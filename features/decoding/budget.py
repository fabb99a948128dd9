"""A budget of work: how many pixels a clip may ask to be decoded, by what its file has in bytes.

67 kB can hold 3,000 frames on a canvas of 8191 x 8191, which take their whole time limit to decode
and show nothing. A thousand of them would take a job eight hours. The verdict does not depend on
how fast a machine is.
"""

from __future__ import annotations

from collections.abc import Callable

import av

from framebank.features.decoding.container import Clip, DecodeLimits
from framebank.features.errors import VideoRejected

# Clips that may cost much are first counted by their packets, which takes no decoding.
_COUNTED_PIXELS = 2**22
_COUNTED_BYTES = 64 * 2**20


class WorkBudget:
    """The pixels that one pass over a clip may still decode."""

    def __init__(self, limits: DecodeLimits, size_bytes: int) -> None:
        self._limit = limits.free_pixels + limits.pixels_per_byte * size_bytes
        self._spent = 0
        self._size_bytes = size_bytes

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
