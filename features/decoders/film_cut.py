"""A film that several decoders decode at once, and what comes of its shares."""

from __future__ import annotations

import threading
from typing import Any

from framebank.features.errors import VideoRejected


class FilmCut:
    """A film in `shares` shares: which of them are left, and what was found in the others.

    Whoever decodes the first share has the last word on all, which whoever ends last passes on.
    """

    def __init__(self, shares: int) -> None:
        self.shares = shares
        self._left = shares
        self._lock = threading.Lock()
        self._sent = [0] * shares
        self.fields: dict[str, Any] = {}  # the last word of the first share
        self.rejected: VideoRejected | None = None
        self.doubted = False  # the film has to be decoded wholly, by one decoder

    def note(self, share: int, frames: int) -> int:
        """Note how many frames of a share were sent; return how many of the whole film were."""
        with self._lock:
            self._sent[share] = frames
            return sum(self._sent)

    def end(
        self,
        *,
        fields: dict[str, Any] | None = None,
        rejected: VideoRejected | None = None,
        doubted: bool = False,
    ) -> bool:
        """Note how a share ended; return whether it was the last one."""
        with self._lock:
            self.fields = fields or self.fields
            self.rejected = self.rejected or rejected
            self.doubted |= doubted
            self._left -= 1
            return not self._left
