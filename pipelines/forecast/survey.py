"""What clips that are left to do will give: a sample of them is probed, within a time."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from framebank.features.decoders.pool import ClipProbed, DecoderPolicy, DecoderPool
from framebank.features.decoding.probe import Probe
from framebank.features.machine import share_memory, usable_cores
from framebank.features.progress import Bar
from framebank.features.spec import FeatureSpec
from framebank.features.stores import storage
from framebank.features.video import VideoRef
from framebank.pipelines.forecast import estimate
from framebank.pipelines.forecast.estimate import Estimate, Forecast

_PROBE_S = 20.0  # for all probes
_GRACE_S = 20.0  # after which those that hang are not waited for
_MOST_DECODERS = 8
_DECODE_S = 8.0  # of these for decoding
_TIMED = 100  # clips of which a part is decoded
_TIMED_S = 0.4  # processor seconds of one of them at most
_STAGED_BYTES = 64 * 2**20  # a larger object of a bucket is not copied for a probe


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Processor seconds to decode an hour of video, wholly and with `--check sampled`."""

    whole_s: float
    sampled_s: float

    @classmethod
    def of(cls, probes: Iterable[Probe]) -> Decoding | None:
        """Return what these probes found; None where they decoded nothing in both ways."""
        whole_s = sampled_s = duration_s = 0.0
        for probe in probes:
            if probe.decode_s is not None and probe.sampled_s is not None:
                whole_s += probe.decode_s
                sampled_s += probe.sampled_s
                duration_s += probe.duration_s
        if not duration_s:
            return None
        return cls(3600 * whole_s / duration_s, 3600 * sampled_s / duration_s)


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What was found out about the clips that are left to do.

    `forecast` is about those that exist and are not empty; `drawn` of them were to be probed, of
    `timed` a part was decoded, `too_large` are objects that were judged by their size alone.
    `decodable` are those that were probed and can be decoded, in random order. `decoding` is what
    either `--check` takes, None where that was not measured.
    """

    forecast: Forecast
    decodable: Sequence[tuple[VideoRef, Probe]]
    missing: int
    empty: int
    unlisted: int  # folders whose content is not known
    drawn: int
    timed: int
    too_large: int
    decoding: Decoding | None = None

    @property
    def left(self) -> int:
        return self.forecast.clips + self.known

    @property
    def known(self) -> int:
        """How many end in quarantine for what the listing says of them."""
        return self.missing + self.empty + self.unlisted

    @property
    def quarantined(self) -> Estimate:
        return self.forecast.total("quarantined").plus(self.known)


def look(
    refs: Sequence[VideoRef], spec: FeatureSpec, policy: DecoderPolicy, *, probes: int, timed: bool
) -> Outlook:
    """Probe `probes` of `refs` at most, and return what that says of all of them.

    Of some a part is decoded if `timed`.
    """
    unlisted = sum(bool(ref.why_unlisted) for ref in refs)
    strata = estimate.draw(
        [ref for ref in refs if ref.size_bytes > 0],
        most=probes,
        fits=lambda ref: ref.size_bytes <= _STAGED_BYTES or storage.is_local(ref.uri),
    )
    order = estimate.probing_order(strata)
    decoded = min(_TIMED, len(order)) if timed else 0
    each_s = min(_TIMED_S, _DECODE_S * usable_cores() / max(1, decoded))
    found: list[tuple[VideoRef, Probe]] = []
    with Bar("plan", total=len(order)) as bar:
        for pair in probe_all(
            order,
            spec,
            policy,
            deadline_s=time.monotonic() + _PROBE_S,
            decode_s=lambda number: each_s if number < decoded else 0.0,
        ):
            found.append(pair)
            bar.update(len(found), f"looked into {len(found)} of {len(order)} clips")
    decoding = Decoding.of(probe for _, probe in found)
    if policy.check == "sampled":
        found = [
            (ref, dataclasses.replace(probe, decode_s=probe.sampled_s or probe.decode_s))
            for ref, probe in found
        ]
    raw = {ref.video_id: probe for ref, probe in found}
    priced = estimate.priced(raw)
    return Outlook(
        forecast=estimate.forecast(strata, priced),
        decodable=[(ref, priced[ref.video_id]) for ref, probe in found if not probe.error_class],
        missing=sum(ref.size_bytes < 0 for ref in refs) - unlisted,
        empty=sum(ref.size_bytes == 0 for ref in refs),
        unlisted=unlisted,
        drawn=len(order),
        timed=sum(probe.decode_s is not None for probe in raw.values()),
        too_large=sum(len(stratum.refs) for stratum in strata if not stratum.drawn),
        decoding=decoding,
    )


def probe_all(
    refs: Sequence[VideoRef],
    spec: FeatureSpec,
    policy: DecoderPolicy,
    *,
    deadline_s: float,
    decode_s: Callable[[int], float],
) -> Iterator[tuple[VideoRef, Probe]]:
    """Yield each clip with its probe as they come; after `deadline_s` (of time.monotonic) none is
    begun. `decode_s` says for the n-th clip how many seconds of decoding it may have. Raises
    JobError for a fault of this machine."""
    decoders = min(_MOST_DECODERS, share_memory().decoders)
    pool = DecoderPool(spec, dataclasses.replace(policy, decoders=decoders))
    begun = itertools.takewhile(lambda _: time.monotonic() <= deadline_s, refs)
    try:
        for found in pool.probe(begun, decode_s=decode_s, until_s=deadline_s + _GRACE_S):
            if isinstance(found, ClipProbed):
                yield found.ref, found.probe
            else:
                yield found.ref, Probe(error_class=found.reason.error_class)
    finally:
        pool.close()
