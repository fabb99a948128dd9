"""What extraction costs on this machine, from a short run of the real engine over a few clips.

The time of a run is start-up plus work. Start-up is gone through once here: Beam's and TensorFlow's
imports, an empty job, building the network, its first batch. Work is processor time of two kinds,
decoding (`features/decoding/probe.py` measures it clip by clip) and the network; they share
the cores. So the engine runs for some seconds, and how fast frames go through tells how many cores
the two of them keep busy together, on this machine as it is now, other people's load included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from framebank.features.decoders.pool import DecoderPolicy
from framebank.features.decoding.probe import Probe
from framebank.features.extraction.batches import FrameNetwork
from framebank.features.extraction.engine import Engine
from framebank.features.extraction.one_clip import build_network
from framebank.features.machine import usable_cores
from framebank.features.network.weights import Weights
from framebank.features.processes import this_process
from framebank.features.spec import FeatureSpec
from framebank.features.video import VideoRef
from framebank.pipelines.forecast.estimate import Estimate, Forecast

RUN_S = 10.0  # of the engine
_GRACE_S = 5.0
_LEAVE_S = 1.5  # to end decoders and the runner, write the catalog and leave
_LEAST_UNSURE = 0.1  # a shared machine is no steadier
_COMMIT_S = 0.05  # to write and commit one shard on a disk


@dataclasses.dataclass(frozen=True)
class Measured:
    """Costs of this machine."""

    start_s: float  # wall time until the first frame goes through
    frame_s: float  # processor time of the network (and the engine around it) per frame
    busy: float  # cores that network and decoders keep busy
    alone: float  # those that they would, if nothing else ran on this machine
    frames: int  # on which this stands
    cores: int
    unsure: float  # how far off the pace may be: a part of it, two standard errors


@dataclasses.dataclass(frozen=True)
class Load:
    """Work of one run: pictures for the network, padding included, and seconds of decoding."""

    pictures: Estimate
    decode_s: Estimate
    longest_s: float
    shards: int


def load_of(forecast: Forecast, *, shards: int, batch_size: int) -> Load:
    """Return the work that a forecast means; each shard ends with a batch that is filled up."""
    pictures = forecast.total("pictures").plus(shards * batch_size / 2)
    return Load(pictures, forecast.total("decode_s"), forecast.longest_s, shards)


def wall_s(measured: Measured, load: Load, *, decoders: int) -> Estimate:
    """Return how long the whole command will take here, in seconds.

    The value is for a machine as busy with other things as it was while measured, the low end for
    one that does nothing else.
    """
    total = load.decode_s.plus(load.pictures.times(measured.frame_s))

    def whole(cpu_s: float, decode_s: float, busy: float) -> float:
        decoding_s = max(load.longest_s, decode_s / decoders)  # decoders need not be enough
        return max(cpu_s / busy, decoding_s) + fixed_s

    fixed_s = measured.start_s + _LEAVE_S + load.shards * _COMMIT_S
    decode, unsure = load.decode_s, 1 + measured.unsure
    return Estimate(
        whole(total.value, decode.value, measured.busy),
        whole(total.low, decode.low, measured.alone) / unsure,
        whole(total.high, decode.high, measured.busy) * unsure,
    )


def measure(
    spec: FeatureSpec,
    weights: Weights,
    policy: DecoderPolicy,
    *,
    batch_size: int,
    clips: Sequence[tuple[VideoRef, Probe]],
    spent_s: float,
    also: Sequence[tuple[FeatureSpec, Weights]] = (),
) -> Measured:
    """Measure with `clips` that can be decoded, in random order; `spent_s` is the wall time that
    extraction spends, as this command did, before it begins. With `also` further networks see each
    frame, and what a frame costs is what it costs in all of them."""
    start = time.monotonic()
    _run_empty_job()
    members: list[_Member] = []
    for each, found in [(spec, weights), *also]:
        network = build_network(each, found, batch_size=batch_size)
        frames = (each.clip_length,) if each.clip_length > 1 else ()
        shape = (network.batch_size, *frames, each.input_size, each.input_size, 3)
        members.append(_Member(network, each, np.zeros(shape, np.uint8)))
        network(members[-1].blank)
    start_s = spent_s + time.monotonic() - start
    two_batches = dataclasses.replace(policy, queue_bytes=2 * sum(m.blank.nbytes for m in members))
    pictures = sum(probe.pictures for _, probe in clips)
    decode_s = sum(probe.decode_s or 0.0 for _, probe in clips) / max(1, pictures)
    marks = _run_engine(members, two_batches, [ref for ref, _ in clips])
    if len(marks) < 3:  # few frames, or a rule that takes few of long clips: the network by itself
        marks, decode_s = _time_networks(members), 0.0
    frames_done = marks[-1].frames - marks[0].frames
    cpu_s, took_s = marks[-1].cpu_s - marks[0].cpu_s, marks[-1].wall_s - marks[0].wall_s
    cores = usable_cores()
    busy = min(cores, max(0.1, (cpu_s + decode_s * frames_done) / took_s))
    whole_machine = (marks[-1].machine_s - marks[0].machine_s) / took_s
    return Measured(
        start_s=start_s,
        frame_s=cpu_s / frames_done,
        busy=busy,
        alone=min(cores, max(busy, whole_machine)),
        frames=frames_done,
        cores=cores,
        unsure=_unsure(marks),
    )


class _Member(NamedTuple):
    """One of the networks that see each frame, and a batch for it."""

    network: FrameNetwork
    spec: FeatureSpec
    blank: NDArray[np.uint8]


def _unsure(marks: Sequence[_Mark]) -> float:
    paces = [
        (late.wall_s - early.wall_s) / (late.frames - early.frames)
        for early, late in itertools.pairwise(marks)
    ]
    if len(paces) < 3:
        return _LEAST_UNSURE * 2
    error = np.std(paces, ddof=1) / np.sqrt(len(paces)) / np.mean(paces)
    return float(min(1.0, max(_LEAST_UNSURE, 2 * error)))


def _run_empty_job() -> None:
    """Do what every local job does before and after its work: import, build, run, end."""
    import apache_beam as beam

    from framebank.pipelines.extract import pipeline as _extract  # noqa: F401 - imported for the time it takes
    from framebank.pipelines.jobs import beam_options

    options = beam_options.build_options([], runner=beam_options.LOCAL_RUNNER)
    with beam_options.outside_notebooks(), beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "CreateNothing" >> beam.Create(["nothing"])
            | "SpreadNothing" >> beam.Reshuffle()
            | "KeyNothing" >> beam.Map(lambda text: (text, text))
            | "GatherNothing" >> beam.GroupByKey()
        )


class _Mark(NamedTuple):
    """A moment of a run."""

    frames: int  # so far
    wall_s: float  # of the clock
    cpu_s: float  # processor time of this process
    machine_s: float  # and of the whole machine


def _mark(frames: int) -> _Mark:
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    working = sum(ticks) - ticks[3] - ticks[4]  # but for idle and waiting for disks, see proc(5)
    machine_s = working / os.sysconf("SC_CLK_TCK")
    return _Mark(frames, time.monotonic(), time.process_time(), machine_s)


class _Enough(Exception):
    """The engine has run for as long as it may."""


def _run_engine(
    members: Sequence[_Member], policy: DecoderPolicy, refs: Sequence[VideoRef]
) -> list[_Mark]:
    """Run the engine for RUN_S, and return where it was after each batch (of several networks:
    after as many batches).

    The pace is to be taken from the first mark on: before it decoders start and the queue fills.
    """
    marks: list[_Mark] = []
    begun = time.monotonic()

    done, batches = 0, 0

    def note(frames: int) -> None:
        nonlocal done, batches
        done, batches = done + frames, batches + 1
        seen = done // len(members)
        if batches % len(members) == 0 and (not marks or seen > marks[-1].frames):
            marks.append(_mark(seen))
        if time.monotonic() - begun > RUN_S:
            raise _Enough

    (network, spec, _), *also = members
    engine = Engine(network, spec, policy, also=[(one.network, one.spec) for one in also])
    # A clip from which no frame comes for long does not let the engine look at the clock.
    watch = threading.Timer(RUN_S + _GRACE_S, engine.close)
    watch.start()
    try:
        with contextlib.suppress(_Enough):
            for _ in engine.run_all(((ref,) * len(members) for ref in refs), on_frames=note):
                pass
    finally:
        watch.cancel()
        engine.close()
    return marks


def _time_networks(members: Sequence[_Member]) -> list[_Mark]:
    marks, frames = [], len(members[0].blank) * members[0].spec.clip_stride
    for number in range(4):
        marks.append(_mark(number * frames))
        for network, _, blank in members:
            network(blank)
    return marks


def process_age_s() -> float:
    """Return for how many seconds this process has been running (start-up that is paid twice)."""
    started = int(this_process()["started"])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
