"""Ends threads that an interrupted Beam leaves behind in a process that goes on.

Beam's clock of what a bundle does is a thread that is no daemon. A KeyboardInterrupt that comes
while it starts leaves it running, and nobody ends it: the process could never end either.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """After the block, end those that were started and whose owner does not know of it."""
    try:
        yield
    finally:
        for thread in threading.enumerate():
            sampler: Any = getattr(getattr(thread, "_target", None), "__self__", None)
            if type(sampler).__name__ == "StateSampler" and not sampler.started:
                with contextlib.suppress(AssertionError):  # it was ended meanwhile
                    sampler.stop()
