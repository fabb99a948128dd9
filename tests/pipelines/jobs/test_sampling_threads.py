"""A Ctrl-C that comes while Beam starts its clock leaves no thread that keeps a process alive."""

from __future__ import annotations

import threading

import pytest
from apache_beam.runners.worker import statesampler
from apache_beam.utils.counters import CounterFactory

from framebank.pipelines.jobs import sampling_threads


def test_what_an_interrupt_left_is_ended_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    ours = statesampler.StateSampler("ours", CounterFactory())
    others = statesampler.StateSampler("others", CounterFactory())
    others.start()
    with (
        pytest.raises(KeyboardInterrupt),
        sampling_threads.none_left(),
        monkeypatch.context() as patch,
    ):
        patch.setattr(threading.Thread, "start", interrupted)
        ours.start()
    try:
        (_left,) = set(threading.enumerate()) - before
        assert others.started and not others.finished
    finally:
        others.stop()
    assert set(threading.enumerate()) == before
