"""What Prometheus reads at `/metrics`: requests, errors, the queue, the network, the model."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from framebank.features.extraction.batches import FrameNetwork, Rows

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        of: dict[str, Any] = {"registry": registry}
        self.requests = Counter(
            "framebank_requests", "Requests that were answered.", ["route", "status"], **of
        )
        self.seconds = Histogram(
            "framebank_request_seconds", "From a request's head to the end of its answer.",
            ["route"], buckets=_SECONDS, **of,
        )  # fmt: skip
        self.errors = Counter("framebank_errors", "Refusals, by their class.", ["class"], **of)
        self.under_way = Gauge(
            "framebank_requests_under_way", "Requests that hold a place in the queue.", **of
        )
        self.queue = Gauge("framebank_queue_places", "Places in the queue.", **of)
        self.frames = Counter("framebank_network_frames", "Frames that were computed.", **of)
        self.network_seconds = Counter(
            "framebank_network_seconds", "Seconds that the network computed.", **of
        )
        self.batches = Histogram(
            "framebank_network_batch_frames", "Frames of a call of the network.",
            buckets=_SIZES, **of,
        )  # fmt: skip
        self.questions = Histogram(
            "framebank_model_batch_questions", "Questions of a call of the model.",
            buckets=_SIZES, **of,
        )  # fmt: skip
        self.model = Gauge("framebank_model_info", "The model in use.", ["name", "version"], **of)
        self.model_changes = Counter(
            "framebank_model_changes", "Models that were taken up, or could not be.", ["outcome"],
            **of,
        )  # fmt: skip

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def take_up(self, name: str, version: str) -> None:
        """Note which model is in use now."""
        self.model.clear()
        self.model.labels(name, version).set(1)


class MeasuredNetwork:
    """A network whose calls are counted and timed."""

    def __init__(self, network: FrameNetwork, metrics: Metrics) -> None:
        self._network, self._metrics = network, metrics
        self.batch_size, self.in_flight = network.batch_size, network.in_flight
        self.feature_dim = network.feature_dim
        self._lock = threading.Lock()

    @property
    def step(self) -> int:
        return self._network.step

    def __call__(self, images: NDArray[np.uint8]) -> Rows:
        start = time.monotonic()
        rows = self._network(images)
        took_s = time.monotonic() - start
        with self._lock:
            self._metrics.frames.inc(len(images))
            self._metrics.network_seconds.inc(took_s)
            self._metrics.batches.observe(len(images))
        return rows
