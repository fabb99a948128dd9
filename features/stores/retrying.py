"""How long an object store is asked again before the command gives up, and what is said meanwhile.

A service that has answered this process once is waited for: 503 storms and broken connections pass.
One that nothing answers at, at first contact, is a wrong address or no network: that is told within
seconds.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from framebank.features.terminal import say

CONNECT_TIMEOUT_S = 4.0
ANSWER_TIMEOUT_S = 60.0
FIRST_CONTACT_S = 3.5  # of refused or broken connections, before anything was ever answered
LIMIT_S = 180.0  # of one call, with all its retries
_SAY_AFTER_S = 10.0


class Patience:
    """What one process knows of one service; safe to use from several threads."""

    def __init__(self) -> None:
        self.limit_s = LIMIT_S
        self.reached = False  # whether the service ever answered
        self._said_s = float("-inf")
        self._lock = threading.Lock()

    def retry(self, path: str, *, retryable: Callable[[Exception], bool]) -> Any:
        """Return what has one call about `path` tried again: a decorator of google.api_core."""
        from google.api_core.retry import Retry

        return Retry(
            predicate=self._judge(path, retryable),
            initial=0.5,
            maximum=20.0 if self.reached else 1.0,
            timeout=self.limit_s,
        )

    def _judge(
        self, path: str, retryable: Callable[[Exception], bool]
    ) -> Callable[[Exception], bool]:
        """Return the judge over one call's failures: whether to try again after each."""
        start_s = time.monotonic()

        def again(error: Exception) -> bool:
            if not retryable(error):
                return False
            waited_s = time.monotonic() - start_s
            if status_of(error):
                self.reached = True
            if not self.reached and waited_s > FIRST_CONTACT_S:
                return False
            self._say(path, error, waited_s)
            return True

        return again

    def _say(self, path: str, error: Exception, waited_s: float) -> None:
        with self._lock:
            now_s = time.monotonic()
            if waited_s < _SAY_AFTER_S or now_s - self._said_s < _SAY_AFTER_S:
                return
            self._said_s = now_s
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        say(
            f"{path}: no good answer for {waited_s:.0f} s ({reason}); "
            f"trying again until {self.limit_s:.0f} s"
        )


@functools.cache
def patience_of(service: str) -> Patience:
    """Return this process's patience with a service, by its address."""
    return Patience()


def status_of(error: Exception) -> int:
    """Return the HTTP status that an error carries, 0 where nothing answered."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
