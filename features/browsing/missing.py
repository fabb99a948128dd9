"""What is not there of a cache that is looked into."""

from __future__ import annotations

from framebank.features.errors import CacheError, UsageError


class NotFoundError(UsageError):
    """A video, or a frame of it, that is not there."""


class NoPicturesError(CacheError):
    """A clip of which no picture can be shown."""
