"""What a run is done with, made once by its command."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from framebank.features.stop_signals import StopRequest
from framebank.train.tracking.trackers import Trackers

if TYPE_CHECKING:
    from framebank.train.workers.replicas import Workers


@dataclasses.dataclass(frozen=True)
class Run:
    """Who may stop it, who is told a line, who shares the work (None: this process alone), and what
    tracks it."""

    stop: StopRequest = dataclasses.field(default_factory=StopRequest)
    say: Callable[[str], None] = lambda text: None
    workers: Workers | None = None
    track: Trackers = dataclasses.field(default_factory=Trackers)
