"""Where the time of an extraction goes: who works, who waits for whom, and so what bounds it.

All of it is sums of seconds and counts, so that shards and workers add up.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Balance:
    """What the parts of one run of an engine, or of several, did with their time.

    Of the engine: `wall_s` from begin to end, `network_s` with a call of the network under way,
    `taker_s` with whoever takes the results (encodes and writes them). Of the decoders, summed over
    them: `decoders_s` that they had, of which `decode_s` at work on clips, `room_s` waiting until
    frames they have are taken, `fetch_s` waiting for a clip to come. `pictures` were asked for,
    `computed` went through the network; the others had been seen.
    """

    wall_s: float = 0.0
    network_s: float = 0.0
    taker_s: float = 0.0
    decoders_s: float = 0.0
    decode_s: float = 0.0
    room_s: float = 0.0
    fetch_s: float = 0.0
    pictures: int = 0
    computed: int = 0

    def __add__(self, other: Balance) -> Balance:
        mine, theirs = vars(self), vars(other)
        return Balance(**{name: mine[name] + theirs[name] for name in mine})

    def to_json(self) -> dict[str, Any]:
        return {name: round(value, 3) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Balance:
        """Build from `to_json`'s dict, or from {} of a time when none was kept; raises ValueError
        for what is no number."""
        kinds: dict[str, Any] = {
            field.name: float if field.name.endswith("_s") else int
            for field in dataclasses.fields(cls)
        }
        return cls(**{name: kind(fields.get(name, 0)) for name, kind in kinds.items()})

    @property
    def seen(self) -> int:
        """Return how many pictures had been seen before."""
        return self.pictures - self.computed

    def shares(self) -> dict[str, float]:
        """Return what part of the time (0 to 1) the network, the decoders, the fetching of clips
        and the taking of results were at work; {} where nothing was timed."""
        if not self.wall_s or not self.decoders_s:
            return {}
        shares = {
            "network": self.network_s / self.wall_s,
            "decode": self.decode_s / self.decoders_s,
            "fetch": self.fetch_s / self.decoders_s,
            "write": self.taker_s / self.wall_s,
        }
        return {name: min(1.0, share) for name, share in shares.items()}

    def bound(self) -> str:
        """Return which part has least time left ("" where nothing was timed): that one bounds."""
        shares = self.shares()
        return max(shares, key=lambda name: shares[name], default="")

    def line(self) -> str:
        """Return what bounds in words, with how idle the other side is."""
        shares, bound = self.shares(), self.bound()
        if not bound:
            return ""
        idle = {"decoders": 1 - shares["decode"], "network": 1 - shares["network"]}
        idle.pop({"network": "network", "decode": "decoders"}.get(bound, ""), None)
        parts = [f"{bound}-bound {_percent(shares[bound])}"]
        parts += [f"{name} idle {_percent(share)}" for name, share in idle.items()]
        without = 1 - (self.decode_s + self.room_s + self.fetch_s) / self.decoders_s
        if bound == "decode" and without > _WORTH_TELLING:
            parts.append(f"decoders without a clip {_percent(without)}")
        return ", ".join(parts)

    def advice(self, *, tried: Collection[str] = ()) -> str:
        """Return what would make it faster ("" where nothing was timed), less what was `tried`."""
        left = [words for words in _ADVICE.get(self.bound(), ()) if words not in tried]
        return " or ".join(filter(None, [", ".join(left[:-1]), *left[-1:]]))


_WORTH_TELLING = 0.1
_ADVICE = {
    "network": ("--precision bfloat16", "fewer frames (--sample)", "a smaller --backbone", "a GPU"),
    "decode": ("--check sampled", "more cores", "more workers"),
    "fetch": ("workers nearer to the clips",),
    "write": ("a cache on a faster disk, or nearer to the workers",),
}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


class Busy:
    """How long at least one of several calls, of whatever threads, was under way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._calls, self._since_s, self._past_s = 0, 0.0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._calls:
                self._since_s = self._clock()
            self._calls += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._calls -= 1
            if not self._calls:
                self._past_s += self._clock() - self._since_s

    @property
    def seconds(self) -> float:
        """Return the seconds so far; of a call under way once it has ended."""
        return self._past_s
